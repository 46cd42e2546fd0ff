"""What can be known before anything starts: do models, data and storage exist, and can they be used?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cluster.preflight.evaluation import evaluation_faults, evaluation_notes
from cluster.preflight.model_data import check_models_with_data
from cluster.preflight.plugins import plugins_used
from sweeps.config.blocks import TrialSettings
from sweeps.config.checks.unused import unused_notes
from sweeps.config.compat import PAPER, UNLIKE
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.controller.earlier_trials import sweeps_at
from sweeps.errors import DipsweepError, Fault, InputError, SpecError, StorageError
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import SweepRow, TierRow
from sweeps.journal.writer import is_sweep
from sweeps.plugins import SFT
from sweeps.storage.base import Store, Where, is_url
from sweeps.storage.factory import open_store
from sweeps.storage.probe import storage_fault
from trainers.data.sources.download_cache import is_remote
from trainers.data.sources.user_files import check_data
from trainers.data.types import TierData
from trainers.model.files.folder import check_model


class Preflight(NamedTuple):
    """What else there is to know before a sweep starts: lines for the terminal (how data was understood, what of it is left
    out, what of the evaluation it holds), and each tier in numbers."""

    notes: list[str]
    tiers: list[TierRow]


def preflight(
    sweep: Sweep,
    storage: Where | None = None,
    *,
    reach: bool = True,
    here: bool = False,
    builtin: bool = False,
    scores: bool = True,
    in_process: bool = False,
) -> Preflight:
    """Raises SpecError with everything that would fail later for reasons that are plain now.

    Args:
        sweep: what is to run. storage: where; None where that is not known yet, and the sweep's own `storage` is looked at.
        reach: also ask a storage that is not a folder of this machine: list, write, read, create twice, delete; and look at
            models and data elsewhere, by the headers of their files.
        here: it is to run on this machine alone, which must have the GPUs and the memory that are asked for.
        builtin: measure built-in tiers too, which cannot be wrong.
        scores: checkpoints are scored as the sweep says; False where a function of the caller's own does that.
        in_process: it is to run in one process, without Ray.
    """
    read: dict[str, TierData] = {}
    faults = [*_models(sweep, reach), *_tiers(sweep, read, reach)]
    faults += evaluation_faults(sweep, reach=reach, in_process=in_process) if scores else ()
    if (reach or not is_url(storage or sweep.storage)) and (fault := storage_fault(storage or sweep.storage)):
        by_option = isinstance(storage, str | Path) and str(storage) != sweep.storage
        faults.append(Fault("--storage" if by_option else "storage", fault))
    else:
        faults += _earlier_sweeps(sweep, storage, reach)
    if here and not faults:
        faults += [*_gpus(sweep), *_memory(sweep, in_process), *_adapters(sweep)]
    found = Preflight([], [])
    if not faults:
        checked = check_models_with_data(sweep, builtin=builtin, reach=reach, scores=scores, read=read)
        notes = [*plugins_used(sweep), *unused_notes(sweep), *_compat_notes(sweep)]
        notes += [*(evaluation_notes(sweep, in_process=in_process) if scores else ()), *checked.notes]
        faults, found = checked.faults, Preflight(notes, checked.tiers)
    if faults:
        raise SpecError(*faults)
    return found


def _models(sweep: Sweep, reach: bool) -> Iterator[Fault]:
    for name in _model_names(sweep):
        source = sweep.model_source(name)
        if source.path != "builtin" and (reach or not is_remote(source.path)):
            try:
                check_model(source.path)
            except InputError as e:
                yield Fault(f"models.{name}.path", str(e))


def _tiers(sweep: Sweep, read: dict[str, TierData], reach: bool) -> Iterator[Fault]:
    """Yields what is wrong with tiers, and puts those that were read into `read`."""
    for name in sweep.axis_values("data", sweep.default_tier):
        source = sweep.tier_source(str(name))
        if source.path != "builtin" and (reach or not is_remote(source.path)):
            try:
                if (data := check_data(source)) is not None:
                    read[str(name)] = data
            except InputError as e:
                yield Fault(f"tiers.{name}.path", str(e))


def _earlier_sweeps(sweep: Sweep, storage: Where | None, reach: bool) -> Iterator[Fault]:
    """Yields places of `search.points_from` without a sweep; ids are looked up where it is known which storage they are of.

    A sweep that has begun holds what it took from them, and asks no more for them.
    """
    root = storage or sweep.storage

    def can_look(where: Where) -> bool:
        return reach or not is_url(where)

    places = [
        (i, place)
        for i, place in enumerate(sweep.search.points_from)
        if (can_look(place) if "/" in place else storage is not None and can_look(root))
    ]
    if not places or (can_look(root) and _has_begun(open_store(root) / sweep.id)):
        return
    for i, place in places:
        try:
            sweeps_at(place, root, sweep.id)
        except (InputError, StorageError) as e:
            yield Fault(f"search.points_from[{i}]", str(e))


def _has_begun(home: Store) -> bool:
    try:
        return is_sweep(home) and any(isinstance(row, SweepRow) for row in read_rows(home))
    except DipsweepError:
        return True  # its journal says what is wrong with it


def _compat_notes(sweep: Sweep) -> Iterator[str]:
    if PAPER in sweep.axis_values("compat", sweep.trainer.compat):
        yield from (f"compat paper: not as in the paper's trainer: {difference}" for difference in UNLIKE)


def _gpus(sweep: Sweep) -> Iterator[Fault]:
    wanted = {f"models.{name}": sweep.model_source(name) for name in _model_names(sweep)}
    asked = {where: (m.fewest, m.gpus_per_worker) for where, m in wanted.items()}
    asked["evaluation"] = (sweep.evaluation.workers, sweep.evaluation.gpus_per_worker)
    if not any(gpus for _, gpus in asked.values()):
        return
    import torch

    there = torch.cuda.device_count()
    for where, (workers, gpus) in asked.items():
        if workers * gpus > there:
            yield Fault(
                f"{where}.gpus_per_worker",
                f"{workers} x {gpus:g} GPU asked for, this machine has {there or 'none'}; "
                "0 uses the CPU, --address a cluster that has them",
            )


def _memory(sweep: Sweep, in_process: bool) -> Iterator[Fault]:
    """Weights, gradients and Adam's moments of every own model against this machine, once for each way to train it."""
    import json

    plan, seen = Plan(sweep), set[tuple[object, ...]]()
    for cell in plan.cells:
        config = plan.config(cell, {}, 0)
        way = tuple(config[name] for name in ("model", "precision", "lora_rank", "lora_target_modules"))
        source = sweep.model_source(str(config["model"]))
        source = source.alone if in_process else source
        file = Path(source.path).expanduser() / "config.json"
        if source.path == "builtin" or way in seen or not file.is_file():
            continue
        seen.add(way)
        import torch

        from trainers.model.estimates.memory import check, device_bytes

        device = torch.device("cuda" if source.gpus_per_worker else "cpu")
        if source.gpus_per_worker and not torch.cuda.is_available():
            continue  # told already
        try:
            check(
                TrialSettings.from_config(config),
                json.loads(file.read_text()),
                source.fewest,
                device_bytes(device),
                share=source.gpus_per_worker or 1.0,
            )
        except InputError as e:
            yield Fault(f"models.{config['model']}", str(e))


def _adapters(sweep: Sweep) -> Iterator[Fault]:
    ranks = sweep.axis_values("lora_rank", sweep.trainer.lora_rank)
    if sweep.trainer.loop == SFT and any(ranks) and find_spec("peft") is None:
        yield Fault(
            "trainer.lora_rank",
            f"got {max(ranks)}, but peft is not installed; pip install 'dipsweep[lora]', or set lora_rank to 0",
        )


def _model_names(sweep: Sweep) -> list[str]:
    return [str(name) for name in sweep.axis_values("model", sweep.default_model)]
