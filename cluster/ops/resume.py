"""Going on with a sweep: which one, from where, and whether a driver only waits to be woken."""

from __future__ import annotations

from pathlib import Path

from cluster.find import definition, find
from cluster.ops.jobs import Jobs
from cluster.ops.submit import spec_of
from sweeps.errors import InputError
from sweeps.journal import read_rows
from sweeps.spec import Sweep
from sweeps.storage import Store


def where(name: str, storage: str | None, address: str, token_file: Path | None) -> tuple[Sweep, str]:
    """Returns the sweep and the storage root with which a job goes on.

    The cluster knows both, until its head node is replaced: a new head has forgotten all jobs, and the storage has not.

    Raises:
        InputError: neither the cluster nor the storage knows the sweep.
    """
    jobs = Jobs.at(address, token_file)
    try:
        job = jobs.find(name)
    except InputError as e:
        if storage is None:
            raise InputError(
                f"{e}; a new head node has forgotten its jobs: give --storage, where the sweep is kept"
            ) from e
        home = find(name, storage)
        return definition(home), home.root.rpartition("/")[0]
    return spec_of(job), storage or job.metadata["storage"]


def unpaused(home: Store) -> str:
    """Asks a driver that a person paused to go on; returns its answer, or nothing when no driver waits there."""
    asked = [r.extra.get("action") for r in read_rows(home) if r.kind == "control" and not r.trial]
    last = next((a for a in reversed(asked) if a in ("pause", "resume", "interrupt")), None)
    if last != "pause":
        return ""
    from cluster.ops.steer import NOBODY, ask

    said = ask(home, "resume")
    return "" if said == NOBODY.format(sweep=home.name) else said
