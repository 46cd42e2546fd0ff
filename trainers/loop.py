"""One SFT run, from its trial to its last checkpoint.

The loop knows nothing of Ray, journals or scores: it gets three callables (`Hooks`) and a folder. With several workers
every rank runs it; rank 0 alone speaks to the hooks and writes checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sweeps.config.blocks import TrialSettings
from sweeps.config.trial import Hooks, Saved, TrialSpec, waiting_of
from sweeps.errors import InputError, TrialFailed
from sweeps.garbage_collection import collection_paused
from trainers import checkpoint
from trainers.checkpoint_writer import CheckpointWriter
from trainers.data.batching.batches import BatchIterator, Progress, Step
from trainers.data.chat.tokenization import stop_ids
from trainers.data.sources.datasets import load
from trainers.data.types import TierData
from trainers.model import parallel
from trainers.model.attention import PACKED
from trainers.model.estimates import memory
from trainers.model.estimates.flops import counted_in, step_flops
from trainers.model.files.folder import checked_folder
from trainers.model.generation import end_replies
from trainers.model.load import keeps_names, load_model, load_tokenizer, model_folder
from trainers.model.packable import check_packable
from trainers.model.recurrent.recurrence import layer_runs, recurrences_of
from trainers.schedule import lr_factor
from trainers.snapshot import SNAPSHOTS, Snapshot
from trainers.step import Learner
from trainers.throughput import ThroughputMeter

log = logging.getLogger(__name__)


def train(
    trial: TrialSpec,
    hooks: Hooks,
    *,
    folder: Path,
    resume: Saved | None = None,
    rank: int = 0,
    world: int = 1,
    data: TierData | None = None,
) -> None:
    """Trains to the trial's budget, or until `hooks.stop_asked()`.

    After each step of `trial.snapshots` a whole checkpoint lies in `folder` and `hooks.saved` hears of it; a run that
    is asked to stop writes one more. A resumed run repeats the uninterrupted one to the bit on the CPU.

    Args:
        trial: what to train.
        hooks: called on rank 0 only, always between steps.
        folder: where checkpoints go, one `step-NNNNNN` each.
        resume: the checkpoint to go on from, written by any number of workers.
        rank, world: this worker among all; the caller has initialised `torch.distributed` when `world` > 1.
        data: the tier's conversations; by default `trainers.data.sources.datasets.load` finds them by name.

    Raises:
        InputError: configuration, model or data cannot be used.
        StorageError: the checkpoint to resume from is damaged.
        TrialFailed: `diverged`, when loss or gradient norm is no finite number.
    """
    if resume is not None and resume.step >= trial.steps:
        return
    with collection_paused():
        run = _Run(trial, hooks, folder, resume=resume, rank=rank, world=world, data=data)
    run.run()


@dataclass(slots=True)
class Window:
    """Sums since the last report; part of a checkpoint, so that a resumed run reports the same means."""

    loss: float = 0.0
    norm: float = 0.0
    steps: int = 0

    def add(self, loss: float, norm: float) -> None:
        self.loss += loss
        self.norm += norm
        self.steps += 1

    def means(self) -> dict[str, float]:
        return {"train/loss": self.loss / self.steps, "train/grad_norm": self.norm / self.steps}


@dataclass(slots=True)
class State:
    """The state of a run apart from its tensors."""

    step: int = 0
    progress: Progress = field(default_factory=Progress)
    window: Window = field(default_factory=Window)

    @classmethod
    def parse(cls, facts: Mapping[str, Any]) -> State:
        return cls(int(facts["step"]), Progress.parse(facts["progress"]), Window(**facts["window"]))


class _Run:
    def __init__(
        self,
        trial: TrialSpec,
        hooks: Hooks,
        folder: Path,
        *,
        resume: Saved | None,
        rank: int,
        world: int,
        data: TierData | None,
    ) -> None:
        self.config = config = TrialSettings.from_config(trial.config)
        self.hooks, self.folder, self.rank, self.world = hooks, folder, rank, world
        self.snapshots, self.saves, self.forks = frozenset(trial.snapshots), trial.saves, frozenset(trial.forks)
        torch.set_num_threads(max(1, int(trial.model.cpus_per_worker)))
        device = _device(trial)
        self.meter, begun = ThroughputMeter(device, world), time.perf_counter()
        base = checked_folder(model_folder(config.model, trial.model))
        self.tokenizer = load_tokenizer(base)
        if data is None:
            data = load(config.data, trial.tier, seed=config.seed)
        self.batches = BatchIterator(config, self.tokenizer, data)
        self.rows = self.batches.rows.fingerprint()  # once: it reads every token
        prepared = time.perf_counter()
        kept = SNAPSHOTS.get(resume.path) if resume is not None and world == 1 else None
        if resume is not None and kept is None:
            checkpoint.verify(resume.path, digest=resume.digest)
        elif resume is not None:
            checkpoint.read_manifest(resume.path, resume.digest)  # what else it holds is in memory
        model = json.loads((base / "config.json").read_text(encoding="utf-8"))
        memory.check(config, model, world, memory.device_bytes(device), share=trial.model.gpus_per_worker or 1.0)
        frozen = torch.bfloat16 if config.lora_rank and config.precision == "bf16" else torch.float32
        whole = resume is not None and not config.lora_rank  # adapters are taken up beside the base's own weights
        network = load_model(
            resume.path if resume and whole else base,
            attn=PACKED,
            dtype=frozen,
            weights_in_memory=kept.weights if kept and whole else None,
        )
        _check_embedding(self.batches, self.tokenizer, network)
        self.batches.apart = check_packable(network, max(self.batches.rows.lengths()))
        end_replies(network.generation_config, stop_ids(self.tokenizer))  # exports end where training does
        self.learner = Learner(config, network, device, world)
        self.state = self._resumed(resume, kept) if resume else State()
        self.start_up = {
            "perf/start_up/data_s": prepared - begun,
            "perf/start_up/model_s": time.perf_counter() - prepared,
            "perf/resumed_in_memory": float(kept is not None),
        }
        # By recurrences: parameters and layers that a token passes through.
        self.passed: dict[int, tuple[int, int]] = {}
        if rank == 0:
            log.info("attention: %s (%s)", self.learner.choice.name, self.learner.choice.reason)

    def _resumed(self, resume: Saved, kept: Snapshot | None) -> State:
        facts = self.learner.load(resume.path, kept)
        same_trial = facts["config"] == self.config.model_dump()
        if same_trial and facts["data"] != self.rows:
            raise InputError(
                f"checkpoint {resume.path} was trained on other rows than tier {self.config.data!r} holds now; "
                "restore the data, or start the trial anew"
            )
        state = State.parse(facts)
        for _ in range(state.step):
            next(self.batches)
        return state

    def run(self) -> None:
        """Steps until the budget is spent or a stop is requested; every checkpoint is reported when this returns."""
        self.writer = CheckpointWriter(self.hooks)
        try:
            self._steps()
        except BaseException:
            with contextlib.suppress(Exception):  # what was saved before counts; the first error is the one to tell
                self.writer.finish()
            raise
        self.writer.finish()

    def _steps(self) -> None:
        state, saved = self.state, self.state.step
        while state.step < self.config.steps:
            self.writer.poll()
            if self._stop_asked():
                if state.step > saved:
                    self._save()
                return
            self._one_step()
            if state.step in self.snapshots or state.step % self.config.logging_steps == 0:
                self._report()
            if state.step in self.saves:
                self._save()
                saved = state.step

    def _one_step(self) -> None:
        state, meter, begun = self.state, self.meter, time.perf_counter()
        with meter.phase("data"):
            step = next(self.batches)
            packs = self.batches.packs(step, self.rank, self.world)
        measured = self.learner.update(state.step + 1, packs, step.divisor, meter)
        with meter.phase("sync"):
            parallel.summed(measured[:1], self.world)
            loss, norm = measured.tolist()
            loss *= step.loss_scale
        if "perf/start_up/data_s" in self.start_up:
            self.start_up.setdefault("perf/start_up/first_step_s", time.perf_counter() - begun)
        state.step += 1
        state.progress = state.progress.after(step)
        self._count(step)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._diverged(loss, norm)
        state.window.add(loss, norm)

    def _count(self, step: Step) -> None:
        network, recurrences = self.learner.network, recurrences_of(self.learner.network)
        if recurrences not in self.passed:
            layers = round(layer_runs(network.config.to_dict(), recurrences))
            self.passed[recurrences] = counted_in(network).active, layers
        parameters, layers = self.passed[recurrences]
        frozen = self.config.lora_rank > 0
        flops = step_flops(network.config, parameters, step.lengths, step.labels, frozen=frozen, layers_run=layers)
        self.meter.count(step.tokens, step.labels, flops)

    def _diverged(self, loss: float, norm: float) -> None:
        step, before = self.state.step, self.state.window
        rate = self.config.learning_rate * lr_factor(step, self.config)
        if self.rank == 0:
            self._report_metrics({"train/loss": loss, "train/grad_norm": norm, "train/lr": rate}, self.meter.spent())
        last = (
            f"; mean loss of the {before.steps} steps before: {before.loss / before.steps:.4g}" if before.steps else ""
        )
        raise TrialFailed(
            "diverged",
            f"step {step}: loss {loss}, gradient norm {norm} at learning rate {rate:.3g}{last}; "
            "try a lower learning_rate, more warmup_steps or a smaller max_grad_norm",
        )

    def _report(self) -> None:
        spent = parallel.summed(torch.tensor([self.meter.spent()], device=self.learner.device), self.world).item()
        state = self.state
        metrics = {
            **state.window.means(),
            "train/lr": self.config.learning_rate * lr_factor(state.step, self.config),
            "train/rows_dropped": float(self.batches.dropped),
            "train/rows_cut": float(self.batches.cut),
            "train/rows_bad": float(self.batches.bad),
            **self.meter.read(),
            **self.start_up,
        }
        self.start_up = {}
        state.window = Window()
        if self.rank == 0:
            self._report_metrics(metrics, spent)

    def _report_metrics(self, metrics: Mapping[str, float], spent: float) -> None:
        done = self.state.progress
        progress = {
            "tokens": float(done.tokens),
            "label_tokens": float(done.label_tokens),
            "rows": float(done.rows),
            "epoch": done.primary / max(1, self.batches.num_primary),
        }
        self.hooks.report(self.state.step, metrics, progress=progress, cost=self.meter.cost(spent))

    def _save(self) -> None:
        state = self.state
        facts = {
            "config": self.config.model_dump(),
            "data": self.rows,
            "world": self.world,
            "progress": state.progress.to_json(),
            "window": asdict(state.window),
        }
        # Whether copies fit beside the tensors themselves.
        room = self.learner.host_bytes() < memory.available_host_bytes() // 2
        keep, aside = room and self.world == 1 and state.step in self.forks, room and self.writer.background
        with self.meter.phase("checkpoint"):
            snapshot = self.learner.snapshot(state.step, facts, self.rank, own=keep or aside)
            if snapshot is not None:
                self.writer.write(partial(self._write, snapshot, keep), aside=aside)

    def _write(self, snapshot: Snapshot, keep: bool, give_up: Callable[[], bool]) -> Saved:
        saved = self.learner.write(snapshot, self.folder, self.tokenizer, give_up, waiting_of(self.hooks))
        if keep and keeps_names(Path(saved.path)):
            SNAPSHOTS.put(saved.path, snapshot)
        return saved

    def _stop_asked(self) -> bool:
        """Rank 0 asks and all ranks get its answer; the step before was waited for, so this waits for nothing else."""
        asked = self.rank == 0 and self.hooks.stop_asked()
        if self.world == 1:
            return asked
        return bool(parallel.summed(torch.tensor([float(asked)], device=self.learner.device), self.world).item())


def _check_embedding(batches: BatchIterator, tokenizer: Any, network: Any) -> None:
    largest, rows = int(batches.rows.flat_ids.max()), network.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise InputError(
            f"the data's token {largest} ({tokenizer.decode([largest])!r}) has no row in the model's embedding of {rows}: "
            "resize_token_embeddings was not called after a token was added"
        )


def _device(trial: TrialSpec) -> torch.device:
    if trial.model.gpus_per_worker <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"trial {trial.id} asks for {trial.model.gpus_per_worker} GPUs a worker, but torch {torch.__version__} "
            "sees no CUDA device; set gpus_per_worker to 0 or run where there is one"
        )
    return torch.device("cuda", torch.cuda.current_device())
