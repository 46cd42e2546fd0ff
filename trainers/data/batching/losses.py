"""What a tier loses on its way to the model, and how much of that is allowed: bad rows, and rows that are too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.data.chat.template import ChatTemplate
from trainers.data.chat.tokenization import Tokenised
from trainers.data.chat.training_templates import advice
from trainers.data.types import TierData

SHOWN: int = 20
"""Faulty rows that a message names one by one."""


class LongRows(NamedTuple):
    """Rows above a limit: how many of `total`, the share of all tokens in them, and the limit that keeps 99 % of rows."""

    rows: int
    total: int
    token_share: float
    limit: int
    keeps_99: int

    @property
    def share(self) -> float:
        """Share of the rows, 0 to 1."""
        return self.rows / self.total if self.total else 0.0

    def sentence(self, policy: str) -> str:
        """Returns what is lost, under `long_rows: policy`, and what would keep it."""
        done = {"drop": "dropped", "cut-prompt": "cut in the prompt", "cut-answer": "cut in the answer"}[policy]
        return (
            f"{self.rows} of {self.total} rows ({self.share:.1%}, with {self.token_share:.1%} of the tokens) are longer "
            f"than {self.limit} tokens and are {done}; max_length: {self.keeps_99} would keep 99% of the rows"
        )


def long_rows(lengths: NDArray[np.int32], limit: int) -> LongRows:
    """Counts the rows above a limit, from the lengths of all rows before any was cut."""
    if not len(lengths):
        return LongRows(0, 0, 0.0, limit, limit)
    long = lengths > limit
    keeps_99 = int(np.quantile(lengths, 0.99, method="higher"))
    share = float(lengths[long].sum() / lengths.sum())
    return LongRows(int(long.sum()), len(lengths), share, limit, keeps_99)


class RefusedRow(NamedTuple):
    """A row that the chat template refuses: its number in the file, from 1 (0 without a file), where it stands, and why."""

    number: int
    where: str
    reason: str


def refused_rows(data: TierData, primary: Tokenised, replay: Tokenised) -> Iterator[RefusedRow]:
    """Yields every row that the chat template refuses."""
    path = data.source.path if data.source else ""
    for name, pool, numbers in (
        ("primary", primary, data.primary_numbers),
        ("replay", replay, data.replay_numbers),
    ):
        for conversation, reason in pool.refused:
            number = numbers[conversation] if numbers else 0
            yield RefusedRow(number, f"{path}:{number}" if number else f"{name} conversation {conversation}", reason)


def check_rows(
    data: TierData, primary: Tokenised, replay: Tokenised, config: TrialSettings, template: ChatTemplate
) -> None:
    """Compares what a tier loses with what it may.

    Args:
        template: under which it was rendered; says which other one would take what it refuses.

    Raises:
        InputError: more rows are bad than `max_bad_rows`, or dropped for their length than `max_long_rows`.
    """
    name, source = config.data, data.source
    refused = sorted(refused_rows(data, primary, replay))
    total = data.bad + len(data.primary) + len(data.replay)
    allowed = source.max_bad_rows if source else 0.0
    if refused and (data.bad + len(refused)) / total > allowed:
        raise InputError(_refusal(name, refused, data.bad, total, allowed, advice(template, refused[0].reason)))
    lost = long_rows(np.concatenate([primary.lengths, replay.lengths]), config.row_limit)
    may = source.max_long_rows if source else 1.0
    if config.long_rows == "drop" and lost.share > may:
        raise InputError(
            f"data tier {name!r}: {lost.sentence(config.long_rows)}. Allowed by max_long_rows: {may:.1%}; raise "
            f"trainer.max_length (and batch_tokens), choose another trainer.long_rows, or tiers.{name}.max_long_rows"
        )


def _refusal(tier: str, refused: Sequence[RefusedRow], bad: int, total: int, allowed: float, way_out: str) -> str:
    lines = [f"{row.where}: {row.reason}" for row in refused[:SHOWN]]
    if len(refused) > SHOWN:
        lines.append(f"and {len(refused) - SHOWN} more")
    count = bad + len(refused)
    lines.append(
        f"data tier {tier!r}: {count} of {total} rows are bad ({count / total:.2%}), {len(refused)} of them refused by "
        f"the chat template; allowed by max_bad_rows: {allowed:.2%}. {way_out}"
    )
    return "\n".join(lines)
