"""One trial, resolved: everything a worker needs to know, nothing it could look up elsewhere."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from (`builtin` or a folder) and what a trial of it needs.

    `workers` is the number of training processes, `cpus_per_worker` and `gpus_per_worker` are what each reserves. An
    elastic trial also runs on fewer, down to `min_workers` (0: exactly `workers`); its batch stays the same.
    `chat_template` is a file, or a name of `sweeps.config.names.TEMPLATES`, to use instead of the model's own template.
    """

    path: str = "builtin"
    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    min_workers: int = 0
    chat_template: str = ""

    @property
    def fewest(self) -> int:
        """The smallest number of workers that a trial starts on."""
        return self.min_workers or self.workers

    @property
    def alone(self) -> ModelSource:
        """The same for a process that has its machine to itself: it holds whole GPUs."""
        return replace(self, gpus_per_worker=float(math.ceil(self.gpus_per_worker)))

    def gpus(self, workers: int) -> float:
        """Returns the GPUs that so many of its processes hold."""
        return workers * self.gpus_per_worker


@dataclass(frozen=True, slots=True)
class TierSource:
    """Where a data tier comes from: `builtin` or a file of conversations; `columns` renames its columns.

    `max_bad_rows` is the share of rows that may be left out because nothing can read or render them, `max_long_rows` the
    share that may be dropped for their length.
    """

    path: str = "builtin"
    columns: Mapping[str, str] = field(default_factory=dict)
    max_bad_rows: float = 0.0
    max_long_rows: float = 0.05


KeepReplies = Literal["sample", "all", "none"]
"""What is kept of a checkpoint's replies: of each role the same few items at every checkpoint, everything, or nothing."""


@dataclass(frozen=True, slots=True)
class EvalFile:
    """A JSONL file of the user's own evaluation items; see `evaluators.suites.user_files`.

    Attributes:
        path: here or on `s3://`.
        role, task, scorer: of items that name none of their own; "" is no role, the file's name, and by the item.
        max_new_tokens: what a reply may have.
    """

    path: str
    role: str = ""
    task: str = ""
    scorer: str = ""
    max_new_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """How a checkpoint is evaluated: all that decides its scores except the checkpoint itself.

    Attributes:
        suite: `mini`, `gym`, `offline`, `paper:DIR`, `lm-eval:ROLE/TASK@DIR`;
            `none` leaves `files` alone.
        items: items per task, at most.
        test_time: settings of test-time compute under which the same items are asked too: `@8`, `cap=64`, `think=32`, `r=8`.
        judge: folder of a model that judges what a rule cannot; "" leaves that to rules.
        files: the user's own items, asked beside the suite's.
        chat_template: file with the template under which the base model is asked, instead of its own; checkpoints hold it.
    """

    suite: str = "mini"
    items: int = 100
    test_time: tuple[str, ...] = ()
    judge: str = ""
    files: tuple[EvalFile, ...] = ()
    chat_template: str = ""


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """A trial as the worker sees it.

    Attributes:
        id: `t-` and 8 hex of the hash of `config`.
        sweep: the sweep's id.
        config: all resolved hyperparameters: `model, data, steps, seed, replay` and every trainer setting
            (`sweeps.config.blocks.TrainerBlock`).
        model, tier: where the two names of `config` lead.
        snapshots: optimizer steps after which weights are saved and scored, ascending, the last one is `steps`.
        evaluation: what its checkpoints are asked.
        forks: steps after which a checkpoint is kept to branch off from, scored or not.
    """

    id: str
    sweep: str
    config: Mapping[str, Any]
    model: ModelSource
    tier: TierSource
    snapshots: tuple[int, ...]
    evaluation: EvalSpec = EvalSpec()
    forks: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        """The budget, in optimizer steps."""
        return int(self.config["steps"])

    @property
    def saves(self) -> frozenset[int]:
        """Steps after which a checkpoint is written."""
        return frozenset((*self.snapshots, *self.forks))


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole checkpoint: after which step, in which folder, with which digest of its weights."""

    step: int
    path: str
    digest: str = ""


class Hooks(Protocol):
    """What a training loop may do to the outside world. Nothing here ever waits for a score.

    Hooks with a true attribute `background_saves` may hear of a checkpoint some steps later: it is written while training
    goes on. Hooks with a method `waiting(reason)` hear what a checkpoint waits for, such as room on a disk, from any thread.
    """

    def report(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        progress: Mapping[str, float],
        cost: Mapping[str, float],
    ) -> None:
        """Hands over numbers measured by the trainer itself (`train/loss`, `train/grad_norm`, `perf/…`).

        Args:
            cost: since the attempt began, summed over its workers: `gpu_s`, seconds of wall clock of each that trains on a GPU,
                or `cpu_s`, CPU seconds. What GPUs a worker reserved, a share of one or several, is the driver's to count.
        """

    def saved(self, checkpoint: Saved) -> None:
        """Says that a checkpoint is whole (its manifest is written): it can be scored and resumed from."""

    def stop_asked(self) -> bool:
        """True when this attempt is to end now; called between steps."""


def waiting_of(hooks: Hooks) -> Callable[[str], None]:
    """Returns what takes a sentence on what an attempt waits for: the hooks' own `waiting`, else the log."""
    return getattr(hooks, "waiting", None) or log.warning


def trial_id(config: Mapping[str, Any]) -> str:
    """Returns the id of a resolved configuration; equal configurations have equal ids on every machine."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "t-" + hashlib.sha256(text.encode()).hexdigest()[:8]


def attempt_folder(storage: str, sweep: str, trial: str, attempt: int) -> Path:
    """Returns `<storage>/<sweep>/trials/<trial>/attempt-N`."""
    return Path(storage) / sweep / "trials" / trial / f"attempt-{attempt}"
