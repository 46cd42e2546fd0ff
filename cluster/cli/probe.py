"""`dipsweep plan --probe`: what a sweep takes on this machine, by some real steps and replies of each kind of trial and tier."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.preflight.cost import LongestRows, Probed, model_shape, speeds_for
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.config.trial import Saved, TrialSpec
from sweeps.errors import DipsweepError, InputError, out_of_memory
from sweeps.journal.rows import Row
from sweeps.journal.state import device_seconds
from sweeps.planning.speeds import Key, Speed, key_of
from sweeps.planning.work import TrialWork, planned_work
from sweeps.plugins import SFT

if TYPE_CHECKING:
    from trainers.data.types import Conversation

PROBE_STEPS: Final = 32
PROBE_ITEMS: Final = 32
PROCESS_BYTES: Final = 2 * 10**9
"""Memory of a process beside what its model takes."""
MOST_AT_ONCE: Final = 8
"""Processes that train at once while CPUs are measured, at most."""
MOST_LINES: Final = 20
"""Lines that each of them prints, so that it waits for nobody to read them."""
LONGEST_STEPS: Final = 4
"""Steps at the longest rows, the first of which does not count."""
TRAINING_IMPORTS: Final = "import ray, trainers.loop; from transformers import AutoModelForCausalLM, AutoTokenizer"
PROBE: Final = f"a probe of {PROBE_STEPS} steps here"


def probed_speeds(
    plan: Plan, *, gpu: str, journals: Iterable[Sequence[Row]] = (), alone: bool = False
) -> dict[Key, Speed]:
    """Returns how fast each model is, after some steps and some items of each here; see `speeds_for` and `probe`."""
    return speeds_for(plan, gpu=gpu, journals=journals, probed=probe(plan, alone=alone), in_process=alone)


def probe(plan: Plan, *, alone: bool = False) -> Probed:
    """Trains and scores some steps of each kind of trial on each tier, in this process, in a folder that is removed again; then
    some steps at the longest rows of each.

    It also starts a process that imports what a new one of a cluster does.

    Args:
        alone: for a sweep that runs in one process. Else what trains on CPUs is measured while the others of this machine train
            too: they may share cores, caches and memory (two CPUs of a virtual machine took 1.4 times as long).

    Raises:
        InputError: memory ran out at the longest rows.
    """
    from cluster.run_sweep import run
    from sweeps.journal.writer import read_rows

    kinds = {(key_of(w.config, w.workers), w.data): w for w in planned_work(plan)}
    small = [(item, Sweep(**_definition(plan.sweep, item, PROBE_STEPS))) for item in kinds.values()]
    on_cpus = [] if alone else [item for item in kinds.values() if not item.gpus]
    others = min((_others(plan.sweep, item) for item in on_cpus), default=0)
    other = next((sweep for item, sweep in small if not item.gpus), small[0][1])
    rows, longest = list[Row](), list[LongestRows]()
    with tempfile.TemporaryDirectory(prefix="dipsweep-probe-") as folder, busy(others, other, Path(folder)):
        for number, (item, sweep) in enumerate(small):
            home = Path(folder) / str(number)
            run(sweep, storage=home, backend="in-process", say=lambda line: None)
            rows += read_rows(home / sweep.id)
            if sweep.trainer.loop == SFT:
                longest.append(_at_longest_rows(plan.sweep, item, home))
            shutil.rmtree(home)
    return Probed(rows, new_process_seconds(), PROBE, longest)


def new_process_seconds() -> float:
    """Returns how long a new process takes to import what trains a model.

    Raises:
        DipsweepError: it cannot.
    """
    began = time.monotonic()
    # Not from the folder that one works in (-P), which may have a ray.py of its own.
    done = subprocess.run([sys.executable, "-P", "-c", TRAINING_IMPORTS], capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise DipsweepError(f"plan: --probe: a new process cannot import what trains a model: {why}")
    return time.monotonic() - began


def _others(sweep: Sweep, item: TrialWork) -> int:
    """Returns how many more processes can train the same on this machine: one for each of its CPUs, as memory allows."""
    from sweeps.config.blocks import TrialSettings
    from trainers.model.estimates.memory import available_host_bytes, estimate

    shape = model_shape(item.model, sweep.model_source(item.model))
    each = estimate(TrialSettings.from_config(item.config), shape, 1).total + PROCESS_BYTES
    return max(0, min(os.cpu_count() or 1, MOST_AT_ONCE, available_host_bytes() // each) - 1)


@contextlib.contextmanager
def busy(others: int, sweep: Sweep, folder: Path) -> Iterator[None]:
    """Keeps so many other processes of this machine busy with the same sweep, over and over, while the block runs."""
    (folder / "sweep.json").write_text(json.dumps(sweep.to_json()), encoding="utf-8")
    words = [sys.executable, "-P", "-m", "cluster.cli.probe", str(folder / "sweep.json")]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(others)]
    try:
        for process in started:  # its end is no reason not to measure
            assert process.stdout is not None
            while (line := process.stdout.readline()) and " starts" not in line:
                pass
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def keepbusy(file: Path) -> None:
    """Runs a sweep over and over, until this process is killed or its parent has ended."""
    from cluster.run_sweep import run

    sweep, parent = Sweep(**json.loads(file.read_text(encoding="utf-8"))), os.getppid()
    lines = 0

    def say(line: str) -> None:
        nonlocal lines
        lines += 1
        if lines <= MOST_LINES:
            print(line, flush=True)

    while os.getppid() == parent:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            run(sweep, storage=folder, backend="in-process", say=say)


def _definition(sweep: Sweep, item: TrialWork, steps: int) -> dict[str, Any]:
    """The sweep with one trial, with the settings of `item`, for few steps and few items, all in one process.

    It is scored three times, since the first evaluation of a kind also warms up: a median leaves that out.
    """
    definition = sweep.to_json()
    items, at = min(PROBE_ITEMS, sweep.evaluation.items), [steps // 3, 2 * steps // 3, steps]
    trainer = {name: item.config[name] for name in definition["trainer"]}
    trainer |= {"steps": steps, "logging_steps": 4, "warmup_steps": 1.0}
    return {
        **definition,
        "name": "probe",
        "space": {"model": {"grid": [item.model]}, "data": {"grid": [item.data]}},
        "search": {"algorithm": "grid"},
        "constraints": [],
        "stopping": {"rule": "none"},
        "limits": {},
        "trainer": trainer,
        "evaluation": {**definition["evaluation"], "items": items, "at": at, "stop_early": None, "python": None},
    }


def _at_longest_rows(sweep: Sweep, item: TrialWork, folder: Path) -> LongestRows:
    """Trains some steps at the longest rows that the settings of `item` leave of its tier."""
    import torch

    from trainers.data.types import TierData
    from trainers.loop import train

    definition = _definition(sweep, item, LONGEST_STEPS)
    definition["trainer"] |= {"replay": 0.0, "logging_steps": 1}
    (spec,) = Plan(Sweep(**definition)).known_trials()
    rows, tokens = _longest_rows(spec)
    hooks, on_gpu = _Costs(), torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        train(spec, hooks, folder=folder / "longest", data=TierData(rows, source=spec.tier))
    except Exception as e:
        if not out_of_memory(e):
            raise
        raise InputError(
            f"plan: --probe: memory ran out where {item.model} trains at the longest rows of {item.data} ({tokens:,} tokens)"
        ) from e
    seconds = (hooks.costs[-1] - hooks.costs[0]) / (LONGEST_STEPS - 1)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return LongestRows(item.model, item.data, bool(item.config["lora_rank"]), tokens, seconds, peak)


def _longest_rows(spec: TrialSpec) -> tuple[list[Conversation], int]:
    """Returns the conversations behind the longest rows of a trial's tier, which fill its steps, and tokens of the longest."""
    from sweeps.config.blocks import TrialSettings
    from trainers.data.batching.row_cache import tokenised
    from trainers.data.sources.datasets import load
    from trainers.model.load import load_tokenizer, model_folder

    config = TrialSettings.from_config(spec.config)
    data = load(config.data, spec.tier, seed=config.seed)
    made = tokenised(
        load_tokenizer(model_folder(config.model, spec.model)), data.primary, config.row_limit, config.long_rows
    )
    lengths = made.rows.lengths()
    chosen, wanted = dict[int, None](), max(config.batch_tokens, config.batch_rows * max(lengths)) * LONGEST_STEPS
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        chosen[int(made.origins[made.kept[row]])] = None
        wanted -= lengths[row]
        if wanted <= 0:
            break
    return [data.primary[i] for i in chosen], max(lengths)


class _Costs:
    """Hooks of a training loop that keep what it had cost at each report."""

    def __init__(self) -> None:
        self.costs: list[float] = []

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        self.costs.append(device_seconds(cost))

    def saved(self, checkpoint: Saved) -> None:
        """Nothing is scored."""

    def stop_asked(self) -> bool:
        return False


if __name__ == "__main__":
    keepbusy(Path(sys.argv[1]))
