"""What can be known before anything starts: do models, data and storage exist, and can they be used?"""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.errors import Fault, InputError, SpecError
from sweeps.spec import Sweep
from sweeps.storage import Where, is_url
from sweeps.storage_check import storage_fault


def preflight(sweep: Sweep, storage: Where | None = None, *, reach: bool = True) -> None:
    """Raises SpecError with everything that would fail later for reasons that are plain now.

    Args:
        sweep: what is to run. storage: where, if not in the sweep's own `storage`.
        reach: also ask a storage that is not a folder of this machine: list, write, read, create twice, delete.
    """
    faults = [*_models(sweep), *_tiers(sweep), *_suite(sweep), *_storage(storage or sweep.storage, reach)]
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


def _storage(storage: Where, reach: bool) -> Iterator[Fault]:
    if (reach or not is_url(storage)) and (fault := storage_fault(storage)):
        yield Fault("storage", fault)
