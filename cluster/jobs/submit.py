"""`submit`: a sweep becomes a job of a Ray cluster. Submitting it again is the same sweep, running, finished or resumed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from cluster.connect.address import is_loopback
from cluster.guard import OURS as PACKAGES
from cluster.jobs.client import OURS, RESUME, Job, JobExists, Jobs, job_id
from cluster.jobs.interpreter import own_version
from cluster.jobs.probe_job import check_interpreter
from cluster.jobs.secrets import refuse_secrets
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.errors import DipsweepError, InputError
from sweeps.journal.lease import USER_VARIABLE, driving_user
from sweeps.results import Results, load
from sweeps.storage.base import join

Became = Literal["submitted", "resumed", "running", "finished"]
STOP_S: Final = 60  # how long a stopped driver may take to save; Ray's own default of 3 s would kill it in mid-save
NEVER_STARTED: Final = (2, 127)  # a driver's exit code for bad input, and the shell's for no such interpreter
OVER_LIMITS, INTERRUPTED = 3, 130  # exit codes of a driver whose sweep can be resumed
# Bytes; it travels in the environment of the driver, where Linux allows 128 KiB a string.
LARGEST_SPEC: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Submission:
    """The outcome of a submit.

    Attributes:
        sweep: the sweep's id. job: the job that runs it, or ran it. address: the cluster's Jobs API.
        became: `submitted` (the first time here), `resumed` (goes on with an earlier run), `running` or `finished`
            (it was already; nothing was started).
        storage: where it writes. visible: paths that every node must see, with where the sweep names them.
        installed: it runs the dipsweep of the nodes, not this one.
        token_file: the cluster's token, where one was given.
    """

    sweep: str
    job: str
    address: str
    became: Became
    storage: str
    visible: tuple[tuple[str, str], ...] = ()
    installed: bool = False
    token_file: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the outcome as plain JSON, without the token's path."""
        return {name: value for name, value in asdict(self).items() if name != "token_file"}

    def wait(self, *, poll_s: float = 1.0) -> Results:
        """Waits until the job has ended and returns the sweep's results, the same as `cluster.run` does.

        A sweep that was stopped or ran into a limit has results too; `submit` again goes on with it.

        Args:
            poll_s: seconds between two looks at the cluster.

        Raises:
            DipsweepError: the job failed, or the cluster has not answered for minutes; the job may run on then.
            InputError: the storage is a folder that this machine does not see.
        """
        job = Jobs.at(self.address, self.token_file).ended(self.job, poll_s=poll_s)
        if job.state == "failed" and job.exit_code != INTERRUPTED and job.exit_code != OVER_LIMITS:
            code = "its node was lost" if job.exit_code is None else f"exit code {job.exit_code}"
            raise DipsweepError(
                f"{self.job} failed ({code}); dipsweep logs {self.sweep} --address {self.address} says why"
            )
        return load(join(self.storage, self.sweep))


def submit(
    sweep: Sweep,
    *,
    address: str,
    storage: str | None = None,
    token_file: Path | None = None,
    again: bool = False,
    installed: bool | None = None,
    python: str | None = None,
    driver_resources: Mapping[str, float] | None = None,
    driver_labels: Mapping[str, str] | None = None,
) -> Submission:
    """Runs a sweep on a Ray cluster, as a job that outlives this process.

    Args:
        sweep: what to run.
        address: the cluster's dashboard, `http://HOST:8265`.
        storage: root of all sweeps, a URL or a folder that every node sees; default is the sweep's own.
        token_file: the cluster's token; default is as in `cluster.connect.tokens.find_token`.
        again: start a run also when the last one finished; a pause is over then, and limits are those of the storage.
        installed: use the dipsweep that is installed on the nodes instead of this one.
        python: the nodes' interpreter. Both are by default what the sweep's last run there had; at first this dipsweep, and
            `python`. A probe makes sure that it can run the sweep before anything is submitted.
        driver_resources, driver_labels: where the driver may sit (a node that is not pre-empted).

    Raises:
        InputError: the address, the token, the storage or the cluster's interpreter will not do, or the sweep was run with
            another storage; nothing was started.
        SpecError: the sweep holds a secret. LimitError: it is over its own limits.

    Example:
        >>> from cluster import submit                                                           # doctest: +SKIP
        >>> submit(sweep, address="http://10.0.0.1:8265", storage="s3://bucket/sweeps").job      # doctest: +SKIP
        'first-1a2b3c4d'
    """
    Plan(sweep).check_limits()
    root = storage_for(storage or sweep.storage, address)
    metadata = describe(sweep, root)
    refuse_secrets("sweep", sweep.to_json())
    jobs = Jobs.at(address, token_file)
    last = next(iter(reversed(jobs.of(sweep.id))), None)
    python = python or (last.metadata.get("python") if last else None) or "python"
    installed = (last is not None and last.metadata.get("installed") == "yes") if installed is None else installed
    metadata |= {"python": python, "installed": "yes" if installed else "no"}
    environment = runtime_env(installed)
    goes_on = [RESUME] if again else []
    entrypoint = shlex.join([python, "-m", "cluster.jobs.entrypoint", sweep.id, "--storage", root, *goes_on])
    refuse_secrets("job", {"entrypoint": entrypoint, "runtime_env": environment, "metadata": metadata})
    where = _where(driver_resources, driver_labels)
    for _ in range(3):  # somebody may submit the same sweep at the same moment: then theirs is ours
        before = jobs.of(sweep.id)
        if before and before[-1].state == "finished" and not again:
            return replace(_already(before[-1], jobs.endpoint.url, root), token_file=token_file)
        ran = [job for job in before if job.exit_code not in NEVER_STARTED]
        if ran:
            _hold_to_storage(ran[-1], jobs.endpoint.url, root)
        if before and before[-1].live:
            return replace(_already(before[-1], jobs.endpoint.url, root), token_file=token_file)
        check_interpreter(jobs, python, environment, own_version())
        job = job_id(sweep.id, before[-1].run + 1 if before else 1)
        try:
            jobs.submit(job, entrypoint, environment, metadata, **where)
        except JobExists:
            continue
        became: Became = "resumed" if ran else "submitted"
        visible = tuple(local_paths(sweep))
        return Submission(sweep.id, job, jobs.endpoint.url, became, root, visible, installed, token_file)
    raise DipsweepError(
        f"{jobs.endpoint.url}: {sweep.id} was submitted and ended three times meanwhile; look at its log"
    )


def _already(job: Job, url: str, root: str) -> Submission:
    became: Became = "running" if job.live else "finished"
    return Submission(job.sweep, job.id, url, became, job.metadata.get("storage", root))


def _hold_to_storage(job: Job, url: str, root: str) -> None:
    """A sweep is resumed from its storage; with another one it would silently be trained anew.

    Raises:
        InputError: it was run with another one.
    """
    theirs = job.metadata.get("storage", root)
    if theirs.rstrip("/") != root.rstrip("/"):
        raise InputError(
            f"{job.sweep} {'runs' if job.live else 'ran'} on {url} with storage {theirs}, not {root}: its checkpoints are in "
            f"{theirs}; give --storage {theirs}, or give the sweep another name to train everything anew in {root}"
        )


def storage_for(storage: str, address: str) -> str:
    """Returns the storage root as every node will understand it.

    Raises:
        InputError: it is relative to a folder of this machine, and the cluster is elsewhere.
    """
    if "://" in storage or Path(storage).expanduser().is_absolute():
        return storage if "://" in storage else str(Path(storage).expanduser())
    if is_loopback(address):
        return str(Path(storage).absolute())
    raise InputError(
        f"storage: '{storage}' is a folder of this machine; give --storage with a URL such as s3://bucket/sweeps, or the "
        "absolute path of a folder that every node of the cluster sees"
    )


def describe(sweep: Sweep, storage: str) -> dict[str, str]:
    """Returns a job's metadata: what the dashboard shows of a sweep, and the definition from which its driver starts.

    Raises:
        InputError: the definition is too large to travel with a job.
    """
    spec = json.dumps(sweep.to_json(), separators=(",", ":"))
    if len(spec.encode()) > LARGEST_SPEC:
        raise InputError(
            f"the sweep's definition has {len(spec.encode()):,} bytes, {LARGEST_SPEC:,} can travel with a job; write long "
            "lists of values as a range (loguniform, randint)"
        )
    return {
        OURS: own_version() or "unknown",
        "job_name": sweep.id, "sweep": sweep.id, "name": sweep.name, "trials": str(Plan(sweep).total),
        "user": driving_user(), "storage": storage, "spec": spec,
    }  # fmt: skip


def spec_of(job: Job) -> Sweep:
    """Returns the sweep that a job runs, from what it was submitted with.

    Raises:
        InputError: the job does not carry it.
    """
    try:
        return Sweep(**json.loads(job.metadata["spec"]))
    except (KeyError, ValueError, TypeError) as e:
        raise InputError(
            f"job {job.id} does not carry a sweep that this dipsweep can read ({e}); submit the sweep file"
        ) from e


def local_paths(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Yields (where the sweep names it, path) of everything that must lie at the same path on every node."""
    for name, model in sweep.models.items():
        if model.path.startswith("/"):
            yield f"models.{name}.path", model.path
    for name, tier in sweep.tiers.items():
        if tier.path.startswith("/"):
            yield f"tiers.{name}.path", tier.path
    if sweep.evaluation.python:
        yield "evaluation.python", sweep.evaluation.python
    kind, _, folder = sweep.evaluation.suite.partition(":")
    if kind == "paper" and folder:
        yield "evaluation.suite", folder


def runtime_env(installed: bool) -> dict[str, Any]:
    """What the job needs of the nodes beyond what is there: our four packages, and time to save when it is stopped.

    The code that ran before is sent by content: the cluster takes it once. That two installations call themselves the same
    version does not make them the same code, so sending is the default.
    """
    stop = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), USER_VARIABLE: driving_user()}
    if installed:
        return {"env_vars": stop}
    home = Path(__file__).parents[2]
    return {"env_vars": stop, "py_modules": [str(home / name) for name in PACKAGES], "excludes": ["__pycache__"]}


def code_size() -> int:
    """Returns the size in bytes of what is sent as our own code."""
    home = Path(__file__).parents[2]
    files = (f for name in PACKAGES for f in (home / name).rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sum(f.stat().st_size for f in files)


def _where(resources: Mapping[str, float] | None, labels: Mapping[str, str] | None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if resources:
        out["entrypoint_resources"] = dict(resources)
    if labels:
        out["entrypoint_label_selector"] = dict(labels)
    return out
