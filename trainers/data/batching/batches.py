"""The data of a run: its two pools as token rows, and the rows of every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.config.blocks import TrialSettings
from sweeps.config.compat import PAPER
from sweeps.errors import InputError
from trainers.data.batching.losses import check_rows
from trainers.data.batching.packing import Pack, collate, split_step
from trainers.data.batching.paper_order import in_file_order, label_weights, loss_scale
from trainers.data.batching.row_cache import tokenised
from trainers.data.batching.sampler import fill_steps, mixed, same_rows
from trainers.data.chat.rows import Rows
from trainers.data.chat.template import ChatTemplate
from trainers.data.chat.tokenization import Tokenised
from trainers.data.types import TierData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Progress:
    """What was trained on so far. `primary` counts rows of the primary pool, of which `epoch` is a multiple."""

    tokens: int = 0
    label_tokens: int = 0
    rows: int = 0
    primary: int = 0

    def after(self, step: Step) -> Progress:
        return Progress(
            self.tokens + step.tokens,
            self.label_tokens + step.labels,
            self.rows + len(step.rows),
            self.primary + step.primary,
        )

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Progress:
        return cls(**{name: int(value) for name, value in data.items()})


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one optimizer step, and what they amount to over all workers."""

    rows: Sequence[int]
    lengths: Sequence[int]
    labels: int
    primary: int
    weights: Sequence[float] | None = None
    """What a label token of each row counts, where they do not count the same (`trainers.data.batching.paper_order`)."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def divisor(self) -> float:
        """By what the losses of all packs, summed, are divided for the loss whose gradient is taken."""
        return self.labels if self.weights is None else 1.0

    @property
    def loss_scale(self) -> float:
        """What turns that loss into the one that is reported."""
        return 1.0 if self.weights is None else loss_scale(len(self.rows))


class BatchIterator:
    """An endless supply of steps, the same for any number of workers.

    Args:
        config: seed, share of replay, step and pack sizes, length policy.
        tokenizer: of the model under training.
        data: the two pools.

    Raises:
        InputError: nothing is left to train on, more rows are bad or too long than the tier allows, or replay is asked
            for and the tier has none.
    """

    def __init__(self, config: TrialSettings, tokenizer: PreTrainedTokenizerBase, data: TierData) -> None:
        self._config = config
        primary = self._pool(tokenizer, data.primary if config.replay < 1 else (), "primary")
        replay = self._pool(tokenizer, data.replay if config.replay > 0 else (), "replay")
        check_rows(data, primary, replay, config, ChatTemplate(tokenizer))
        self.bad = data.bad + len(primary.refused) + len(replay.refused)
        self.cut, self.dropped = primary.cut + replay.cut, primary.dropped + replay.dropped
        if config.replay < 1 and not len(primary.rows):
            raise InputError(f"data tier {config.data!r} has no row to train on: {_counts(primary, config)}")
        if config.replay > 0 and not len(replay.rows):
            raise InputError(
                f"replay is {config.replay}, but tier {config.data!r} has no replay rows ({_counts(replay, config)}); "
                "set replay to 0 or give the tier a replay pool"
            )
        self.apart = 0
        """Rows longer than this share no pack with shorter ones; 0 for any. The model says (`trainers.model.packable`)."""
        self.rows: Rows = primary.rows + replay.rows
        self.num_primary = len(primary.rows)
        self._lengths, self._labels = self.rows.lengths(), self.rows.labels()
        self._weighted = config.compat == PAPER
        self._steps = self._order(len(replay.rows))

    def _order(self, num_replay: int) -> Iterator[list[int]]:
        config = self._config
        if config.compat == PAPER:
            return in_file_order(self.num_primary, config.batch_rows)
        stream = mixed(self.num_primary, num_replay, config.replay, config.seed)
        if config.batch_rows > 0:
            return same_rows(stream, config.batch_rows)
        return fill_steps(stream, self._lengths, config.batch_tokens)

    def _pool(self, tokenizer: PreTrainedTokenizerBase, conversations: Any, name: str) -> Tokenised:
        try:
            return tokenised(tokenizer, conversations, self._config.row_limit, self._config.long_rows)
        except InputError as e:
            raise InputError(f"data tier {self._config.data!r}, {name} pool: {e}") from e

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        chosen = next(self._steps)
        return Step(
            rows=chosen,
            lengths=[self._lengths[i] for i in chosen],
            labels=sum(self._labels[i] for i in chosen),
            primary=sum(i < self.num_primary for i in chosen),
            weights=label_weights([self._labels[i] for i in chosen]) if self._weighted else None,
        )

    def packs(self, step: Step, rank: int, world: int) -> list[Pack]:
        """Returns one worker's share of a step as tensors on the CPU."""
        share = split_step(step.lengths, self._config.pass_tokens, world, self.apart)[rank]
        weights = None if step.weights is None else dict(zip(step.rows, step.weights, strict=True))
        return [collate(self.rows, [step.rows[i] for i in pack], weights) for pack in share]


def _counts(pool: Tokenised, config: TrialSettings) -> str:
    return (
        f"{pool.dropped} rows were dropped, longer than {config.row_limit} tokens or without anything to learn"
        if pool.dropped
        else "it is empty"
    )
