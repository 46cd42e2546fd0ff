"""What a sweep is expected to cost, from the best source at hand: a probe, earlier sweeps, published figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sweeps.config.known_models import known_model
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.config.trial import ModelSource
from sweeps.errors import DipsweepError, InputError
from sweeps.journal.rows import Row
from sweeps.planning.devices import PEAK_BF16
from sweeps.planning.estimate import estimate
from sweeps.planning.speeds import (
    Key,
    Measured,
    Speed,
    key_of,
    measured_speeds,
    published_speed,
    speeds_to_json,
)
from sweeps.planning.work import TrialWork, planned_work
from sweeps.storage.base import Where

RECENT: Final = 20
"""Earlier sweeps of a storage that are read for their speed: the last ones by name."""
RECENT_AT_START: Final = 5
"""As many are read when a sweep begins, which is not to wait for it."""
USUAL_GPU: Final = "H100"
"""The device of a figure, where nobody says which it is."""
BYTES_A_PARAMETER: Final = 12
KEPT: Final = 3
PROBE_ERROR: Final = 0.15
TASKS: Final = 10
"""Tasks of a suite that cannot be loaded here. An assumption."""


def predicted(plan: Plan, storage: Where) -> dict[str, Any]:
    """Returns what a sweep that begins is expected to cost, as its journal keeps it; {} where that cannot be said.

    `device_seconds` with its bounds, and the `speeds` behind them (`sweeps.planning.speeds.speeds_to_json`).
    """
    try:
        speeds = speeds_for(plan, gpu=USUAL_GPU, storage=storage, recent=RECENT_AT_START)
        whole = estimate(plan, speeds).device_seconds
    except DipsweepError:  # a model whose shape cannot be read from here: the sweep runs all the same
        return {}
    return {"device_seconds": asdict(whole), "speeds": speeds_to_json(speeds)}


def speeds_for(
    plan: Plan, *, gpu: str, storage: Where | None, probed: Sequence[Row] = (), probe: str = "", recent: int = RECENT
) -> dict[Key, Speed]:
    """Returns how fast each model of a sweep is, from the best source at hand.

    Args:
        gpu: name of the devices, of `PEAK_BF16`. storage: root of earlier sweeps, `recent` of which are read.
        probed: rows of a probe on this machine, which go before all else. probe: what it was, in words.

    Raises:
        InputError: the device is unknown, or a model's shape cannot be read.
    """
    if gpu not in PEAK_BF16:
        raise InputError(f"plan: --gpu: got {gpu!r}; expected one of {', '.join(PEAK_BF16)}")
    sweep = plan.sweep
    journals = journals_of(storage or sweep.storage, recent)
    past = measured_speeds(journals, sweep.evaluation.suite, source="earlier sweeps here")
    if probed:
        past |= measured_speeds([probed], sweep.evaluation.suite, source=probe, error=PROBE_ERROR)
    replies = _tasks(sweep) * sweep.evaluation.items
    speeds: dict[Key, Speed] = {}
    for item in planned_work(plan):
        key = key_of(item.config, item.workers)
        if key not in speeds:
            speeds[key] = _speed(plan, item, gpu, replies, past.get(key))
    return speeds


def _speed(plan: Plan, item: TrialWork, gpu: str, replies: int, measured: Measured | None) -> Speed:
    from trainers.model.flops import counted
    from trainers.model.recurrence import is_recurrent, layer_runs, train_range

    shape = model_shape(item.model, plan.sweep.model_source(item.model))
    try:
        known = counted(shape)
        runs = round(layer_runs(shape, sum(train_range(shape)) / 2)) if is_recurrent(shape) else 0
        guess = published_speed(
            item.config,
            {**shape, "num_hidden_layers": runs} if runs else shape,
            known.active,
            total=known.total,
            workers=item.workers,
            on_gpu=item.gpus > 0,
            gpu=gpu,
            replies=replies,
        )
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"plan: model {item.model!r}: its config.json is not that of a decoder: {e!r}") from e
    return measured.over(guess, plan.sweep.evaluation.items) if measured else guess


def model_shape(name: str, source: ModelSource) -> dict[str, Any]:
    """Returns a model's config.json: of a built-in model, of a folder or bucket, or of a published name.

    Raises:
        InputError: there is none to read.
    """
    from sweeps.storage.factory import open_store
    from trainers.model.builtin import builtin_folder

    try:
        if source.path == "builtin":
            text: str | bytes = (builtin_folder(name) / "config.json").read_text(encoding="utf-8")
        else:
            text = open_store(source.path).read("config.json")
        found: dict[str, Any] = json.loads(text)
        return found
    except (OSError, ValueError, DipsweepError) as e:
        known = known_model(name)
        if known is not None:
            return known.shape.config()
        raise InputError(f"plan: model {name!r}: config.json cannot be read from {source.path}: {e}") from e


def _tasks(sweep: Sweep) -> int:
    from evaluators.suites.registry import load_suite

    try:
        suite = load_suite(sweep.evaluation.spec, seed=sweep.seed)
    except DipsweepError:
        return TASKS
    return len(suite.tasks) * (1 + len(suite.variants))


@dataclass(frozen=True, slots=True)
class StorageUse:
    """Bytes of checkpoints that a sweep writes, the most that is kept of them at its end, and how many it writes."""

    written: int
    kept: int
    checkpoints: int


def storage_use(plan: Plan) -> StorageUse | None:
    """Returns what the checkpoints of a sweep take; None where some trials train adapters, whose checkpoints differ.

    Weights and both of Adam's moments in fp32; of a trial its last two checkpoints and its best are kept.
    """
    from trainers.model.flops import num_parameters

    written = kept = checkpoints = 0
    sizes: dict[str, int] = {}
    for item in planned_work(plan):
        if item.config["lora_rank"]:
            return None
        if item.model not in sizes:
            shape = model_shape(item.model, plan.sweep.model_source(item.model))
            sizes[item.model] = BYTES_A_PARAMETER * num_parameters(shape)
        written += item.saves * sizes[item.model]
        kept += min(item.saves, KEPT) * sizes[item.model]
        checkpoints += item.saves
    return StorageUse(written, kept, checkpoints)


def journals_of(storage: Where, recent: int = RECENT) -> Iterator[Sequence[Row]]:
    """Yields the rows of the last sweeps of a storage by name, of those that can be read."""
    from sweeps.journal.writer import read_rows, sweeps_in
    from sweeps.storage.factory import open_store

    try:
        homes = list(sweeps_in(open_store(storage)))[-recent:]
    except (DipsweepError, OSError):
        return
    for home in homes:
        try:
            yield read_rows(home)
        except DipsweepError:
            continue
