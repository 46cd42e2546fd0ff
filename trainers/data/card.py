"""A tier in numbers, as one model sees it: what is trained on, what is lost, how long it is and where it ends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sweeps.config.blocks import TrialSettings
from trainers.data.chat import Tokenised, refusals
from trainers.data.chat_template import split_thought
from trainers.data.losses import LongRows, RefusedRow, check_rows, long_rows, refused_rows
from trainers.data.row_cache import tokenised
from trainers.data.types import Conversation, TierData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLED_CHARACTERS: Final = 16_000_000
"""About four million tokens, which take some seconds to make; of more data a part, spread evenly, is tokenised."""


@dataclass(frozen=True, slots=True)
class TierCard:
    """What a tier holds for a model.

    Attributes:
        conversations: usable ones in the file, both pools. measured: those whose tokens were counted.
        bad: rows that cannot be read. refused: rows that the chat template cannot render.
        rows, tokens, label_tokens: what is trained on, of those measured, after the length policy.
        lengths, labels: eleven deciles each, from the shortest row to the longest, before the policy and after it.
        reasoning: share of conversations with a thought. duplicates: conversations that stand in the file before.
        long: rows above the limit. ends: the tokens that end a reply, and how many rows end so.
        notes: how the rows were understood.
    """

    conversations: int
    measured: int
    bad: int
    refused: tuple[RefusedRow, ...]
    rows: int
    tokens: int
    label_tokens: int
    lengths: tuple[int, ...]
    labels: tuple[int, ...]
    reasoning: float
    duplicates: int
    long: LongRows
    ends: Mapping[str, int]
    notes: tuple[str, ...]

    def lines(self, policy: str) -> list[str]:
        """Returns the card as lines for a terminal; `policy` is the trainer's `long_rows`."""
        part = "" if self.measured == self.conversations else f" (tokens of {self.measured:,} measured)"
        out = [
            *self.notes,
            f"conversations    {self.conversations:,}{part}; {self.bad:,} bad rows, {len(self.refused):,} refused",
            f"rows             {self.rows:,} of {self.tokens:,} tokens, {self.label_tokens:,} of them learnt",
            f"tokens a row     {_deciles(self.lengths)}",
            f"learnt a row     {_deciles(self.labels)}",
            f"with a thought   {self.reasoning:.1%}",
            f"duplicates       {self.duplicates:,}",
            f"too long         {self.long.sentence(policy) if self.long.rows else f'none above {self.long.limit} tokens'}",
            f"replies end with {', '.join(f'{token!r} ({count:,})' for token, count in self.ends.items()) or 'nothing'}",
        ]
        return out + [f"refused          {row.where}: {row.reason}" for row in self.refused[:3]]

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers of the card, for a journal."""
        return {
            "conversations": self.conversations, "measured": self.measured, "bad": self.bad, "refused": len(self.refused),
            "rows": self.rows, "tokens": self.tokens, "label_tokens": self.label_tokens, "lengths": list(self.lengths),
            "labels": list(self.labels), "reasoning": self.reasoning, "duplicates": self.duplicates,
            "long": self.long.share, "long_tokens": self.long.token_share, "ends": dict(self.ends),
        }  # fmt: skip


def _deciles(values: Sequence[int]) -> str:
    return " ".join(f"{value:,}" for value in values) + "  (deciles)" if values else "none"


def measure_tier(
    tokenizer: PreTrainedTokenizerBase, data: TierData, config: TrialSettings, *, strict: bool = True
) -> tuple[TierCard, int]:
    """Measures a tier under a trainer's settings, and leaves its tokens in the cache where a trial finds them.

    Args:
        strict: hold the tier to what it may lose.

    Returns:
        The card, and the largest token id, which the model's embedding has to hold.

    Raises:
        InputError: more rows are bad, refused or too long than the tier allows, as training would find.
    """
    pools = (data.primary if config.replay < 1 else (), data.replay if config.replay > 0 else ())
    used = [*pools[0], *pools[1]]
    characters = sum(len(str(message["content"])) for conversation in used for message in conversation)
    stride = -(-characters // SAMPLED_CHARACTERS) or 1
    part = _every(data, stride)
    primary, replay = (
        tokenised(tokenizer, pool if asked else (), config.row_limit, config.long_rows)
        for pool, asked in zip((part.primary, part.replay), pools, strict=True)
    )
    if stride > 1:  # every row is rendered all the same
        primary = primary._replace(refused=refusals(tokenizer, pools[0]))
        replay = replay._replace(refused=refusals(tokenizer, pools[1]))
    if strict:
        check_rows(data, primary, replay, config)
    return _card(tokenizer, data, part, used, primary, replay, config.row_limit)


def _every(data: TierData, stride: int) -> TierData:
    """Returns every so-manieth conversation of both pools."""
    if stride == 1:
        return data
    return TierData(
        data.primary[::stride], data.replay[::stride], data.bad, data.source,
        data.primary_numbers[::stride], data.replay_numbers[::stride], data.notes,
    )  # fmt: skip


def _card(
    tokenizer: PreTrainedTokenizerBase, data: TierData, part: TierData, used: Sequence[Conversation],
    primary: Tokenised, replay: Tokenised, limit: int,
) -> tuple[TierCard, int]:  # fmt: skip
    rows = primary.rows + replay.rows
    lengths = np.concatenate([primary.lengths, replay.lengths])
    labels = np.array(rows.labels(), dtype=np.int64)
    last = rows.flat_ids[rows.starts[1:] - 1] if len(rows) else rows.flat_ids[:0]
    ends = Counter(last.tolist()).most_common(4)
    thoughts = sum(any(_has_thought(m) for m in conversation) for conversation in used)
    card = TierCard(
        conversations=len(used),
        measured=len(part.primary) * bool(len(primary.lengths) or primary.refused)
        + len(part.replay) * bool(len(replay.lengths) or replay.refused),
        bad=data.bad,
        refused=tuple(sorted(refused_rows(data, primary, replay))),
        rows=len(rows),
        tokens=int(rows.starts[-1]),
        label_tokens=int(labels.sum()),
        lengths=_eleven(lengths),
        labels=_eleven(labels),
        reasoning=thoughts / len(used) if used else 0.0,
        duplicates=len(used) - len({json.dumps(conversation) for conversation in used}),
        long=long_rows(lengths, limit),
        ends={tokenizer.decode([token]): count for token, count in ends},
        notes=data.notes,
    )
    return card, int(rows.flat_ids.max(initial=-1))


def _has_thought(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and bool(split_thought(dict(message))[0])


def _eleven(values: Any) -> tuple[int, ...]:
    if not len(values):
        return ()
    return tuple(int(v) for v in np.quantile(values, np.linspace(0, 1, 11), method="nearest"))
