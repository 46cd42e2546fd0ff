"""A tier in numbers, as one model sees it: what is trained on, what is lost, how long it is and where it ends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sweeps.config.blocks import TrialSettings
from trainers.data.batching.losses import LongRows, RefusedRow, check_rows, long_rows, refused_rows
from trainers.data.batching.row_cache import tokenised
from trainers.data.chat.rows import Rows
from trainers.data.chat.template import ChatTemplate, split_thought
from trainers.data.chat.tokenization import Tokenised, refusals
from trainers.data.inspection.contamination import Overlap, conversation_texts
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
        rows, tokens, label_tokens, longest: what is trained on, of those measured, after the length policy; the tokens of the
            longest row.
        lengths, labels: eleven deciles each, from the shortest row to the longest, before the policy and after it.
        reasoning: share of conversations with a thought. duplicates: conversations that stand in the file before.
        long: rows above the limit. ends: the tokens that end a reply, and how many rows end so.
        unknown: tokens that stand for text which the tokenizer cannot write, in the rows that are trained on.
        evaluation: what the tier holds of the evaluation's prompts; None where they were not given.
        notes: how the rows were understood.
    """

    conversations: int
    measured: int
    bad: int
    refused: tuple[RefusedRow, ...]
    rows: int
    tokens: int
    label_tokens: int
    longest: int
    lengths: tuple[int, ...]
    labels: tuple[int, ...]
    reasoning: float
    duplicates: int
    long: LongRows
    ends: Mapping[str, int]
    unknown: int
    evaluation: Overlap | None
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
        if self.unknown:
            out.append(f"not writable     {self.unknown:,} tokens stand for text that the tokenizer does not know")
        if (found := self.evaluation) is not None:
            out.append(f"evaluation       {found.touched:,} rows hold {found.seen:,} of its {found.prompts:,} prompts")
        return out + [f"refused          {row.where}: {row.reason}" for row in self.refused[:3]]

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers of the card by the names of `sweeps.journal.rows.TierRow`."""
        counts = ("conversations", "measured", "bad", "rows", "tokens", "label_tokens", "duplicates", "unknown")
        found = self.evaluation
        return {
            "row_limit": self.long.limit,
            "counts": {name: getattr(self, name) for name in counts}
            | {"refused": len(self.refused), "long": self.long.rows},
            "shares": {"reasoning": self.reasoning, "long_tokens": self.long.token_share},
            "lengths": {str(10 * i): value for i, value in enumerate(self.lengths)},
            "labels": {str(10 * i): value for i, value in enumerate(self.labels)},
            "ends": dict(self.ends),
            "evaluation": {"prompts": found.prompts, "seen": found.seen, "touched": found.touched} if found else {},
        }


def _deciles(values: Sequence[int]) -> str:
    return " ".join(f"{value:,}" for value in values) + "  (deciles)" if values else "none"


def measure_tier(
    tokenizer: PreTrainedTokenizerBase,
    data: TierData,
    config: TrialSettings,
    *,
    strict: bool = True,
    evaluation: Overlap | None = None,
) -> tuple[TierCard, int]:
    """Measures a tier under a trainer's settings, and leaves its tokens in the cache where a trial finds them.

    Args:
        strict: hold the tier to what it may lose. evaluation: what it holds of the evaluation's prompts.

    Returns:
        The card, and the largest token id, which the model's embedding has to hold.

    Raises:
        InputError: more rows are bad, refused or too long than the tier allows, as training would find.
    """
    pools = (data.primary if config.replay < 1 else (), data.replay if config.replay > 0 else ())
    used = [*pools[0], *pools[1]]
    characters = sum(len(text) for text in conversation_texts(used))
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
        check_rows(data, primary, replay, config, ChatTemplate(tokenizer))
    card, largest = _card(tokenizer, data, part=part, used=used, primary=primary, replay=replay, limit=config.row_limit)
    return replace(card, evaluation=evaluation), largest


def _every(data: TierData, stride: int) -> TierData:
    """Returns every so-manieth conversation of both pools."""
    if stride == 1:
        return data
    return TierData(
        data.primary[::stride],
        data.replay[::stride],
        data.bad,
        data.source,
        data.primary_numbers[::stride],
        data.replay_numbers[::stride],
        data.notes,
    )


def _card(
    tokenizer: PreTrainedTokenizerBase,
    data: TierData,
    *,
    part: TierData,
    used: Sequence[Conversation],
    primary: Tokenised,
    replay: Tokenised,
    limit: int,
) -> tuple[TierCard, int]:
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
        longest=max(rows.lengths(), default=0),
        lengths=_eleven(lengths),
        labels=_eleven(labels),
        reasoning=thoughts / len(used) if used else 0.0,
        duplicates=len(used) - len({json.dumps(conversation) for conversation in used}),
        long=long_rows(lengths, limit),
        ends={tokenizer.decode([token]): count for token, count in ends},
        unknown=_unknown(tokenizer, rows),
        evaluation=None,
        notes=data.notes,
    )
    return card, int(rows.flat_ids.max(initial=-1))


def _unknown(tokenizer: PreTrainedTokenizerBase, rows: Rows) -> int:
    """Counts the tokens that a tokenizer puts for text that it cannot write, where it has a token for that alone."""
    token = tokenizer.unk_token_id
    if token is None or token in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        return 0
    return int((rows.flat_ids == token).sum())


def _has_thought(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and bool(split_thought(dict(message))[0])


def _eleven(values: Any) -> tuple[int, ...]:
    if not len(values):
        return ()
    return tuple(int(v) for v in np.quantile(values, np.linspace(0, 1, 11), method="nearest"))
