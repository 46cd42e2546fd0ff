"""What can be known before anything starts: do models, data and storage exist, and can they be used?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sweeps.errors import Fault, InputError, SpecError
from sweeps.spec import Sweep


def preflight(sweep: Sweep) -> None:
    """Raises SpecError with everything that would fail later for reasons that are plain now."""
    faults = [*_models(sweep), *_tiers(sweep), *_suite(sweep), *_storage(sweep)]
    if faults:
        raise SpecError(*faults)


def _models(sweep: Sweep) -> Iterator[Fault]:
    from trainers.model_files import check_model

    for name in sweep.axis_values("model", sweep.default_model):
        source = sweep.model_source(str(name))
        if source.path != "builtin":
            try:
                check_model(source.path)
            except InputError as e:
                yield Fault(f"models.{name}.path", str(e))


def _tiers(sweep: Sweep) -> Iterator[Fault]:
    from trainers.own_data import check_data

    for name in sweep.axis_values("data", sweep.default_tier):
        source = sweep.tier_source(str(name))
        if source.path != "builtin":
            try:
                check_data(source)
            except InputError as e:
                yield Fault(f"tiers.{name}.path", str(e))


def _suite(sweep: Sweep) -> Iterator[Fault]:
    name = sweep.evaluation.full_suite
    if name == "mini" or name.startswith("lm-eval:"):
        return
    from evaluators.suites import load_suite

    try:
        load_suite(name, items=1)
    except InputError as e:
        yield Fault("evaluation.suite", str(e))


def _storage(sweep: Sweep) -> Iterator[Fault]:
    root = Path(sweep.storage).expanduser()
    nearest = next((p for p in (root, *root.parents) if p.exists()), Path("/"))
    if not nearest.is_dir():
        yield Fault("storage", f"{nearest} is a file; give a folder")
    elif not os.access(nearest, os.W_OK):
        yield Fault("storage", f"{nearest} is not writable; give a folder that you can write to")
