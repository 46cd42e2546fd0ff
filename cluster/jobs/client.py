"""Sweeps as jobs of a Ray cluster: what there is, what became of it, its log, its end. Ray's Jobs API does the work."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

from cluster.connect.address import JobsEndpoint, connect
from cluster.locate import is_id
from sweeps.errors import DipsweepError, InputError, nearest
from sweeps.storage.base import is_url

State = Literal["pending", "running", "finished", "failed", "stopped"]
_STATES: Final[Mapping[str, State]] = {
    "PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "finished", "FAILED": "failed", "STOPPED": "stopped",
}  # fmt: skip
_TALKATIVE: Final = (  # of every package they send
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# Of a job's entrypoint: goes on with what the storage has, its limits included; a pause is over.
RESUME: Final = "--resume"
OURS: Final = "dipsweep"  # the metadata key by which a job is known as a sweep's
PAUSES_S: Final = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)  # 5 minutes: a head that restarts, a tunnel that is opened again
HELD_S: Final = 10.0  # a tail that held so long did work: what ended it was a proxy's idle time, or a cable


class JobExists(DipsweepError):
    """A job of this id was submitted before, perhaps a moment ago by another user."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a sweep's driver on a cluster.

    Attributes:
        id: the submission id: the sweep's id, then `-r2`, `-r3`, … for runs that went on with it.
        sweep: the sweep's id. state: how it stands. message: Ray's word on it.
        exit_code: the driver's, once it has ended (None when Ray stopped it).
        metadata: what it was submitted with, and `progress` from the driver.
        start_ms, end_ms: Unix time in milliseconds, by the cluster's clock.
    """

    id: str
    sweep: str
    state: State
    message: str = ""
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    start_ms: int = 0
    end_ms: int = 0

    @property
    def live(self) -> bool:
        return self.state in ("pending", "running")

    @property
    def run(self) -> int:
        """Which run of the sweep this is, from 1."""
        return run_number(self.id, self.sweep)


def run_number(job: str, sweep: str) -> int:
    """Returns 1 for a sweep's first job, n for `<sweep>-rn`."""
    found = re.fullmatch(re.escape(sweep) + r"-r(\d+)", job)
    return int(found[1]) if found else 1


def job_id(sweep: str, run: int) -> str:
    """Returns the submission id of a sweep's n-th run. Ray never takes an id twice, not even of a job that has ended."""
    return sweep if run == 1 else f"{sweep}-r{run}"


class Jobs:
    """The sweeps of one cluster.

    Args:
        endpoint: a Jobs API that has been found safe to talk to.
    """

    sleep: Callable[[float], None] = staticmethod(time.sleep)
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, endpoint: JobsEndpoint) -> None:
        self.endpoint = endpoint
        with _without_ray_address_env(endpoint.url), _translate_ray_errors():
            from ray.job_submission import JobSubmissionClient

            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = JobSubmissionClient(endpoint.url, headers=dict(endpoint.headers))

    @classmethod
    def at(cls, address: str, token_file: Path | None = None) -> Self:
        """Opens the Jobs API at an address.

        Raises:
            InputError: see `connect`.
        """
        return cls(connect(address, token_file))

    def submit(
        self, job: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str], **where: Any
    ) -> None:
        """Starts a job.

        Raises:
            JobExists: its id was taken before. DipsweepError: the cluster refused it.
        """
        try:
            with _translate_ray_errors():
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job,
                    runtime_env=dict(runtime_env),
                    metadata=dict(metadata),
                    **where,
                )
        except DipsweepError as e:
            if "already exists" in str(e):
                raise JobExists(job) from e
            raise

    def all(self) -> list[Job]:
        """Returns every sweep's every run, the newest first; of other jobs none."""
        with _translate_ray_errors():
            found = [_job(d) for d in self._client.list_jobs() if _is_sweeps(d.metadata or {})]
        return sorted(found, key=lambda job: -job.start_ms)

    def of(self, sweep: str) -> list[Job]:
        """Returns the runs of one sweep, the first one first."""
        return sorted((j for j in self.all() if j.sweep == sweep), key=lambda job: job.run)

    def find(self, name: str) -> Job:
        """Returns the latest run of a sweep given by its id, its name or the id of one of its jobs.

        Raises:
            InputError: there is none, or more than one sweep of that name.
        """
        jobs = self.all()
        hits = [j for j in jobs if name in (j.sweep, j.id)] or [j for j in jobs if j.metadata.get("name") == name]
        sweeps = sorted({j.sweep for j in hits})
        if len(sweeps) == 1:
            return max((j for j in jobs if j.sweep == sweeps[0]), key=lambda job: job.run)
        if sweeps:
            raise InputError(f"'{name}' could be {' or '.join(sweeps)}; give the whole id")
        known = list(dict.fromkeys(j.sweep for j in jobs))
        have = (
            f"; there are {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else "; there is none at all"
        )
        raise InputError(f"no sweep '{name}' on {self.endpoint.url}{have}{nearest(name, known)}")

    def get(self, job: str) -> Job:
        """Returns a job's present state."""
        with _translate_ray_errors():
            return _job(self._client.get_job_info(job))

    def stop(self, job: str) -> None:
        """Asks a job to end. The driver gets SIGINT, as by Ctrl-C: trials save, then it ends (`submit.runtime_env`)."""
        with _translate_ray_errors():
            self._client.stop_job(job)

    def delete(self, job: str) -> None:
        """Takes a job that has ended off the list. Never a sweep's: Ray's behaviour is undefined when its id comes again."""
        with _translate_ray_errors():
            self._client.delete_job(job)

    def log(self, job: str) -> str:
        """Returns what a job has printed so far."""
        with _translate_ray_errors():
            return str(self._client.get_job_logs(job))

    def ended(self, job: str, *, poll_s: float = 1.0) -> Job:
        """Waits until a job has ended, and returns it.

        Raises:
            DipsweepError: the cluster has not answered for minutes; the job may run on.
        """
        while (now := self.reached(job)).live:
            self.sleep(poll_s)
        return now

    def reached(self, job: str) -> Job:
        """Returns a job's present state, retrying for five minutes: a lost request does not mean that a sweep failed.

        Raises:
            DipsweepError: no answer came in that time.
        """
        for pause in PAUSES_S:
            try:
                return self.get(job)
            except DipsweepError:
                self.sleep(pause)
        try:
            return self.get(job)
        except DipsweepError as e:
            raise DipsweepError(
                f"{self.endpoint.url} has not answered for {sum(PAUSES_S) // 60} min ({e}); {job} may run on: "
                f"dipsweep status {job} --address {self.endpoint.url}"
            ) from e

    def follow(self, job: str) -> Iterator[str]:
        """Yields what a job prints, in chunks, from its start until it ends.

        A connection that drops, or is closed in order while the job lives, is made again: Ray tails from the start each
        time, so what was yielded already is skipped. Tries are counted anew after each that did work.

        Raises:
            DipsweepError: the log cannot be followed, or the cluster does not answer; the job may well run on.
        """
        printed, pauses = 0, iter(PAUSES_S)
        while True:
            began, before, fault = self.clock(), printed, "the connection was closed"
            try:
                for text in _beyond(printed, self._tail(job)):
                    printed += len(text)
                    yield text
            except DipsweepError as e:
                fault = str(e)
            worked = printed > before or self.clock() - began >= HELD_S
            if not self.reached(job).live:
                yield self._rest(job, printed)
                return
            pauses = iter(PAUSES_S) if worked else pauses
            pause = next(pauses, None)
            if pause is None:
                raise DipsweepError(
                    f"{job} goes on, but its log cannot be followed ({fault}): dipsweep logs {job} --address {self.endpoint.url}"
                )
            self.sleep(pause)

    def _tail(self, job: str) -> Iterator[str]:
        import asyncio

        chunks = self._client.tail_job_logs(job)
        with _translate_ray_errors(), asyncio.Runner() as loop:
            while True:
                try:
                    yield loop.run(_next(chunks))
                except StopAsyncIteration:
                    return

    def _rest(self, job: str, printed: int) -> str:
        """The end of an ended job's log that was not streamed; it may be gone with its node."""
        try:
            return self.log(job)[printed:]
        except DipsweepError as e:
            return f"(whether it printed more cannot be read: {e})\n"


def _beyond(skip: int, chunks: Iterator[str]) -> Iterator[str]:
    """Yields what follows the first `skip` characters."""
    for chunk in chunks:
        if new := chunk[skip:]:
            yield new
        skip = max(0, skip - len(chunk))


async def _next(chunks: Any) -> str:
    return str(await anext(chunks))


def _is_sweeps(metadata: Mapping[str, str]) -> bool:
    """True for a job that names a sweep by its id and its storage by a whole path or address.

    Everybody who has the token can write anything there, and we go by it to folders of whoever asks: `gc` removes things.
    """
    storage = metadata.get("storage", "")
    return OURS in metadata and is_id(metadata.get("sweep", "")) and (is_url(storage) or os.path.isabs(storage))


def _job(details: Any) -> Job:
    metadata = dict(details.metadata or {})
    return Job(
        id=str(details.submission_id),
        sweep=metadata.get("sweep", str(details.submission_id)),
        state=_STATES[getattr(details.status, "value", str(details.status))],
        message=details.message or "",
        exit_code=details.driver_exit_code,
        metadata=metadata,
        start_ms=details.start_time or 0,
        end_ms=details.end_time or 0,
    )


@contextmanager
def _without_ray_address_env(url: str) -> Iterator[None]:
    """RAY_ADDRESS and RAY_API_SERVER_ADDRESS beat the address that a caller gives to Ray's client; not here."""
    from cluster.connect.environment import prepare

    prepare(url)
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    aside = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(aside)


@contextmanager
def _translate_ray_errors() -> Iterator[None]:
    """Turns what Ray's client raises into one of our errors, on one line."""
    try:
        yield
    except ImportError as e:
        raise InputError("talking to a cluster needs Ray: pip install 'dipsweep'") from e
    except (RuntimeError, ConnectionError, OSError) as e:  # requests' errors are OSErrors
        raise DipsweepError(_first_words(str(e))) from e
    except Exception as e:
        if type(e).__module__.startswith(("ray.", "aiohttp.")):
            raise DipsweepError(_first_words(str(e))) from e
        raise


def _first_words(text: str) -> str:
    """Ray answers with whole tracebacks; their last line says what happened."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "the cluster did not say why"
    return f"the cluster refused: {last[-500:]}"
