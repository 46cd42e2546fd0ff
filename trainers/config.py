"""The settings of one SFT run, read from a trial's flat configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from sweeps.errors import InputError, nearest

Schedule = Literal["cosine", "constant", "wsd"]
Precision = Literal["bf16", "fp32"]
LongRows = Literal["drop", "cut-prompt", "cut-answer"]
LoraTargets = Literal["all-linear", "attention", "mlp"]


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """Everything that decides what a run computes. Equal configurations give equal runs."""

    model: str
    """Name of the base model; the trial's `ModelSource` says where it lies."""
    data: str
    """Name of the data tier; the trial's `TierSource` says where it lies."""
    steps: int
    """Budget, in optimizer steps."""
    seed: int = 0
    """Decides the order of the data; two runs of one seed see the same rows in the same steps."""
    replay: float = 0.0
    """Share of the examples that is drawn from the general replay pool, 0 to 1."""
    lr: float = 5e-5
    """Peak learning rate (the paper's; tiny models want about 3e-3)."""
    schedule: Schedule = "cosine"
    """What follows the warm-up: cosine to `min_lr`, constant, or wsd (constant, then a linear decay)."""
    warmup: float = 0.1
    """Linear warm-up: steps if 1 or more, a share of the budget below 1."""
    decay: float = 0.2
    """wsd only: the last share of the budget, in which the rate falls."""
    min_lr: float = 0.0
    """Where the rate ends, as a share of `lr`."""
    batch_tokens: int = 8192
    """Tokens of one optimizer step over all workers, prompts included; a step comes as close as whole rows allow."""
    batch_rows: int = 0
    """Rows of one optimizer step, however many tokens they have; 0 counts tokens."""
    pack_tokens: int = 0
    """Tokens of one forward pass, at most `batch_tokens`; 0 takes `batch_tokens`. Decides memory, never the update."""
    max_length: int = 4096
    """Longest row in tokens; `long_rows` says what happens to longer ones."""
    long_rows: LongRows = "drop"
    """drop the row, cut-prompt (keep the prompt's end and the whole answer), or cut-answer. Always counted."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on every parameter."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.999
    """AdamW's second moment."""
    clip: float = 1.0
    """Upper bound of the global gradient norm; 0 turns clipping off."""
    precision: Precision = "bf16"
    """Compute type; master weights and optimizer state are fp32 either way."""
    recompute: bool = False
    """Activation checkpointing: less memory, about a third more compute."""
    lora_rank: int = 0
    """Rank of the adapters that are trained on frozen weights (`trainers.model.lora`); 0 trains all weights."""
    lora_alpha: float = 32.0
    """Adapters count `lora_alpha / lora_rank` times."""
    lora_targets: LoraTargets = "all-linear"
    """Which of a layer's matrices get an adapter: all, those of attention, or those of the feed-forward part."""
    log_every: int = 10
    """Report train metrics at least this often, in steps; snapshots always report."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)!r}, but must be {rule}" for name, ok, rule in self._rules() if not ok
        ]
        if faults:
            raise InputError("trainer settings: " + "; ".join(faults))

    def _rules(self) -> list[tuple[str, bool, str]]:
        return [
            ("steps", self.steps >= 1, "1 or more"),
            ("replay", 0 <= self.replay <= 1, "between 0 and 1"),
            ("lr", 0 < self.lr < math.inf, "above 0 and finite"),
            ("schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}"),
            ("warmup", 0 <= self.warmup < math.inf, "0 or more (steps, or a share of the budget below 1)"),
            ("decay", 0 < self.decay <= 1, "above 0 and at most 1"),
            ("min_lr", 0 <= self.min_lr <= 1, "between 0 and 1 (a share of lr)"),
            ("batch_tokens", self.batch_tokens >= 2, "2 or more"),
            ("batch_rows", self.batch_rows >= 0, "0 or more"),
            ("pack_tokens", 0 <= self.pack_tokens <= self.batch_tokens, f"between 0 and {self.batch_tokens=}"),
            ("max_length", self.max_length >= 2, "2 or more"),
            ("long_rows", self.long_rows in get_args(LongRows), f"one of {', '.join(get_args(LongRows))}"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("beta1", 0 <= self.beta1 < 1, "at least 0 and below 1"),
            ("beta2", 0 <= self.beta2 < 1, "at least 0 and below 1"),
            ("clip", 0 <= self.clip < math.inf, "0 or more"),
            ("precision", self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}"),
            ("lora_rank", self.lora_rank >= 0, "0 (all weights are trained) or more"),
            ("lora_alpha", 0 < self.lora_alpha < math.inf, "above 0 and finite"),
            ("lora_targets", self.lora_targets in get_args(LoraTargets), f"one of {', '.join(get_args(LoraTargets))}"),
            ("log_every", self.log_every >= 1, "1 or more"),
        ]

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass, at most."""
        return self.pack_tokens or self.batch_tokens

    @property
    def row_limit(self) -> int:
        """Longest row that can be trained on, in tokens: it has to fit one forward pass."""
        return min(self.max_length, self.pass_tokens)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainerConfig:
        """Reads a trial's configuration.

        Raises:
            InputError: a setting is unknown, missing, of the wrong type, or out of range.
        """
        known = {f.name: f for f in fields(cls)}
        for name in config:
            if name not in known:
                hint = nearest(name, known) or f"; known: {', '.join(known)}"
                raise InputError(f"trainer setting {name!r} is unknown{hint}")
        missing = [name for name, f in known.items() if f.default is MISSING and name not in config]
        if missing:
            raise InputError(f"the trial's configuration lacks {', '.join(missing)}")
        return cls(**{name: _typed(name, str(known[name].type), value) for name, value in config.items()})


def _typed(name: str, kind: str, value: Any) -> Any:
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {"int": int, "float": float, "bool": bool}.get(kind, str)
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        raise InputError(f"trainer setting {name} must be {wanted.__name__}, not {value!r}")
    return value
