"""Test-time compute as an axis: the same checkpoint and items, with other means to answer them.

A variant is written as its metrics are: `@8` (eight samples an item), `cap=64` (replies end after 64 tokens),
`think=32` (a thought ends after 32 tokens, then the answer is asked for: budget forcing), `t=0.6` (temperature), `r=8`
(recurrences), or several of them: `@8,cap=64`. What it scores stands under names of its own, so scores of two means never
share a curve:

    math/score            as the suite says
    math/score@8          a right reply among eight (and math/score@2, @4: all from the same samples, without bias)
    math/score,avg=8      share of right ones among them     ready/score,avg=8    a start for RL (`evaluators.readiness`)
    math/score,cap=64     replies of at most 64 tokens
    math/score,r=8        a model of recurrent depth (`trainers.model.recurrent.recurrence`) runs its shared block eight times
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from evaluators.decoding import Decoding, Reply
from evaluators.score import measured
from evaluators.scores import Scores
from evaluators.tasks import Suite
from sweeps.errors import InputError

WARM: Final = 0.6
"""Temperature at which a greedy suite is sampled, unless the variant says another: the paper's."""
_FORM: Final = re.compile(r"(?:@(?P<samples>\d+))?(?P<rest>(?:(?:^|,)[a-z]+=[\d.]+)*)")


@dataclass(frozen=True, slots=True)
class Variant:
    """Other settings at test time; None leaves a setting as the suite has it."""

    samples: int | None = None
    cap: int | None = None
    think: int | None = None
    t: float | None = None
    r: int | None = None

    @property
    def cheap(self) -> bool:
        """Its replies are beginnings of those that the suite has drawn already."""
        return self.samples is None and self.think is None and self.t is None and self.r is None

    def of(self, suite: Suite) -> Suite:
        """Returns the suite with these means."""
        how = suite.decoding
        warm = self.t if self.t is not None else (how.temperature or WARM) if self.samples else how.temperature
        decoding = replace(
            how,
            temperature=warm,
            samples=self.samples or how.samples,
            think_cap=how.think_cap if self.think is None else self.think,
            recurrences=how.recurrences if self.r is None else self.r,
        )
        tasks = tuple(
            replace(
                task,
                cap=task.cap if self.cap is None else self.cap,
                samples=task.samples if self.samples is None else None,
            )
            for task in suite.tasks
        )
        return replace(suite, tasks=tasks, decoding=decoding, variants=())

    def fault(self, suite: Suite) -> str:
        """Returns why a suite's items are not to be asked with these means, as a clause; empty where they are."""
        asked, longest = self.of(suite), max(task.cap for task in suite.tasks)
        if (task := asked.greedy_samples()) is not None:
            drawn = asked.samples(task)
            return f"but suite {suite.name} draws {drawn} replies an item of {task.name}, all the same then; expected t above 0"
        if asked == replace(suite, variants=()):
            return f"but suite {suite.name} asks that way already; expected other means than its own"
        limit = longest if self.cap is None else self.cap
        if self.think is not None and self.think >= limit:
            return f"but a reply ends after {limit} tokens; expected think below that"
        return ""

    def name(self, metric: str) -> str:
        """Returns the name under which a metric stands with these means."""
        if self.samples and "@" not in metric:
            metric += f",avg={self.samples}"
        given = [(name, value) for name in ("t", "cap", "think", "r") if (value := getattr(self, name)) is not None]
        return metric + "".join(f",{name}={value:g}" for name, value in given)


def parse_variant(text: str) -> Variant:
    """Reads a variant.

    Raises:
        InputError: it is written otherwise, or its numbers make no sense.
    """
    found = _FORM.fullmatch(text)
    pairs = [part.split("=") for part in (found["rest"].lstrip(",") if found else "").split(",") if part]
    known = dict(pairs)
    if not text or found is None or set(known) - {"cap", "think", "t", "r"} or len(known) < len(pairs):
        raise InputError(
            f"test_time {text!r}: expected @SAMPLES, cap=TOKENS, think=TOKENS, t=TEMPERATURE, r=RECURRENCES, or several"
        )
    try:
        variant = Variant(
            samples=int(found["samples"]) if found["samples"] else None,
            cap=int(known["cap"]) if "cap" in known else None,
            think=int(known["think"]) if "think" in known else None,
            t=float(known["t"]) if "t" in known else None,
            r=int(known["r"]) if "r" in known else None,
        )
    except ValueError as error:
        raise InputError(f"test_time {text!r}: {error}") from error
    if variant.samples == 1 or variant.cap == 0:
        raise InputError(f"test_time {text!r}: samples must be 2 or more, a cap 1 or more")
    warm = variant.t if variant.t is not None else WARM if variant.samples else 0.0
    # Says what else is wrong.
    Decoding(temperature=warm, samples=variant.samples or 1, think_cap=variant.think, recurrences=variant.r)
    return variant


def cut(replies: Sequence[Reply], cap: int) -> list[Reply]:
    """Returns what of the replies would have been said within `cap` tokens, the one that ends a reply counted."""
    return [
        reply if len(reply.ids) + (not reply.truncated) <= cap else Reply(reply.ids[:cap], truncated=True)
        for reply in replies
    ]


def joined(scores: Scores, variant: Variant, more: Scores) -> Scores:
    """Returns scores with those of a variant beside them."""

    def named(values: dict[str, float] | dict[str, int]) -> dict[str, float | int]:
        return {variant.name(metric): value for metric, value in values.items()}

    return replace(
        scores,
        metrics={**scores.metrics, **named(dict(more.metrics))},
        se={**scores.se, **named(dict(more.se))},
        n={**scores.n, **{variant.name(metric): n for metric, n in more.n.items()}},
    )


def all_measured(suite: Suite) -> frozenset[str]:
    """Returns the names of all that a suite measures, variants included."""
    variants = map(parse_variant, suite.variants)
    return measured(suite).union(*({v.name(metric) for metric in measured(v.of(suite))} for v in variants))
