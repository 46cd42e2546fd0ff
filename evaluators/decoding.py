"""How replies are drawn, and what a reply is: shared by suites and engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sweeps.errors import InputError
from trainers.model.recurrent.recurrence import MOST

THINK: Final = "<think>"
END_THINK: Final = "</think>"
"""What ends a thought; `Decoding.think_cap` forces it, and an answer is what stands behind it."""


class ThinkTags(NamedTuple):
    """The ids of THINK and END_THINK; `begin` is None where the tokenizer has no token for it."""

    begin: int | None
    end: int

    def leave_open(self, ids: Sequence[int]) -> bool:
        """True when a text of these tokens ends within a thought."""
        if self.begin is None:
            return self.end not in ids
        last = next((token for token in reversed(ids) if token in self), None)
        return last == self.begin


@dataclass(frozen=True, slots=True)
class Decoding:
    """How replies are drawn; part of a suite's version.

    Attributes:
        temperature: 0 takes the likeliest token. top_p: samples from the smallest set with this much probability.
        samples: replies per item. seed: draws them; a reply depends on (seed, item, sample), never on its batch.
        think_cap: a reply that is within a thought after so many tokens has `</think>` forced, and the answer follows; None
            leaves it free.
        recurrences: how often a model of recurrent depth runs its shared block; None: as often as its config.json says.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0
    think_cap: int | None = None
    recurrences: int | None = None

    def __post_init__(self) -> None:
        faults = [
            (self.temperature < 0, f"temperature is {self.temperature}, but must be 0 or more"),
            (not 0 < self.top_p <= 1, f"top_p is {self.top_p}, but must be above 0 and at most 1"),
            (self.samples < 1, f"samples is {self.samples}, but must be 1 or more"),
            (
                self.samples > 1 and not self.temperature,
                "several samples need a temperature above 0: greedy ones agree",
            ),
            (
                self.think_cap is not None and self.think_cap < 1,
                f"think_cap is {self.think_cap}, but must be 1 or more",
            ),
            (
                self.recurrences is not None and not 1 <= self.recurrences <= MOST,
                f"recurrences (r) is {self.recurrences}, but must be from 1 to {MOST}",
            ),
        ]
        if found := [text for wrong, text in faults if wrong]:
            raise InputError("decoding: " + "; ".join(found))


GREEDY: Final = Decoding()


@dataclass(frozen=True, slots=True)
class Reply:
    """Token ids of a reply, the end-of-turn token left out; `truncated` when the cap came before it.

    `entropy` is the mean over its tokens of the entropy of the next token, in nats at temperature 1; None where unknown.
    Equal replies may differ in it: its last digits depend on the batch.
    """

    ids: list[int]
    truncated: bool
    entropy: float | None = field(default=None, compare=False)
