"""Going on with a sweep: which one, from where, and whether a driver only waits to be woken."""

from __future__ import annotations

from pathlib import Path

from cluster.jobs.client import Jobs
from cluster.jobs.requests import post_request, send_request_and_wait
from cluster.jobs.submit import spec_of
from cluster.locate import definition, find
from sweeps.config.schema import Sweep
from sweeps.errors import InputError, StorageError
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import ControlAction
from sweeps.journal.writer import read_rows
from sweeps.storage.base import Store


def locate_sweep(name: str, storage: str | None, address: str, token_file: Path | None) -> tuple[Sweep, str]:
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


def request_resume(home: Store) -> str:
    """Asks a driver that a person paused to go on; returns its answer, or nothing when no driver waits there (then the next
    one finds the request)."""
    if not paused(home):
        return ""
    return send_request_and_wait(home, ControlAction.RESUME) or ""


def request_resume_on_cluster(sweep: str, root: str) -> str:
    """The same for a sweep of a cluster, as far as its storage can be reached from this machine."""
    try:
        return request_resume(find(sweep, root))
    except (InputError, StorageError):
        return ""


def paused(home: Store) -> bool:
    """True when the sweep was paused and not resumed since; a stop or Ctrl-C does not end a pause."""
    return bool(SweepState(read_rows(home)).paused_by)


def prepare_resumed_sweep(sweep: Sweep, root: str) -> Sweep:
    """Returns a sweep with its present limits by the storage, and posts a request that ends a pause.

    What the driver of a resumed job does first: the job carries the definition of its first submit, and whoever resumed it may
    not reach the storage.
    """
    try:
        home = find(sweep.id, root)
        stored = definition(home)
    except InputError:  # nothing is there yet
        return sweep
    if paused(home):
        post_request(home, ControlAction.RESUME)
    return sweep.model_copy(update={"limits": stored.limits})
