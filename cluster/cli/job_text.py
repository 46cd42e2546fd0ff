"""A cluster's sweeps as text, and what the command line does with them: list, status, log, stop, go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from cluster.jobs.client import Job, Jobs
from cluster.jobs.submit import Submission, code_size
from cluster.locate import find
from sweeps.errors import DipsweepError
from sweeps.output import printable

ENDS: Final = {
    0: "finished", 1: "failed", 2: "refused: bad input", 3: "over its limits; can be resumed",
    127: "its interpreter was not found on the cluster; give --python", 130: "interrupted; can be resumed",
}  # fmt: skip


def state(job: Job) -> str:
    """Returns a job's state in words a user of `run` knows."""
    if job.state == "stopped":
        return "stopped; can be resumed"
    if job.state == "failed":
        code = job.exit_code
        return "lost with its node; can be resumed" if code is None else ENDS.get(code, f"failed (exit code {code})")
    return job.state


def job_json(job: Job) -> dict[str, Any]:
    """Returns a job as plain JSON."""
    m = job.metadata
    return {
        "sweep": job.sweep, "job": job.id, "state": job.state, "exit_code": job.exit_code, "name": m.get("name", ""),
        "trials": int(m.get("trials", 0)), "progress": m.get("progress", ""), "user": m.get("user", ""),
        "storage": m.get("storage", ""), "dipsweep": m.get("dipsweep", ""), "started_ms": job.start_ms or None,
        "ended_ms": job.end_ms or None,
    }  # fmt: skip


def job_line(job: Job) -> str:
    """Returns one line for `dipsweep list --address`."""
    run = f" (run {job.run})" if job.run > 1 else ""
    m = job.metadata
    progress = m.get("progress") or f"{m.get('trials', '?')} {'trial' if m.get('trials') == '1' else 'trials'}"
    by = f"by {m.get('user', '?')}, {_ago(job)}, in {m.get('storage', '?')}"
    return printable(f"{job.sweep}{run}  {state(job)}  {progress}  {by}")


def _ago(job: Job) -> str:
    """How long ago a job started. The two clocks may differ: less than nothing is shown as now."""
    minutes = max(0, int(time.time() - job.start_ms / 1000)) // 60
    if minutes < 120:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // 1440} days ago"


def latest(jobs: list[Job]) -> list[Job]:
    """Returns the last run of each sweep, in the order given."""
    last: dict[str, Job] = {}
    for job in jobs:
        if job.sweep not in last or job.run > last[job.sweep].run:
            last[job.sweep] = job
    return list(last.values())


def log_lines(jobs: Jobs, name: str, *, follow: bool) -> Iterator[str]:
    """Yields what the latest run of a sweep has printed; with `follow`, goes on until it ends, however it ends."""
    job = jobs.find(name)
    if not (follow and job.live):
        yield jobs.log(job.id)
        return
    yield from jobs.follow(job.id)


def stop(jobs: Jobs, name: str) -> str:
    """Stops the driver of a sweep in good order; returns what will happen."""
    job = jobs.find(name)
    if not job.live:
        return f"{job.sweep} does not run: {state(job)}; nothing to stop"
    jobs.stop(job.id)
    on = f"dipsweep resume {job.sweep} --address {jobs.endpoint.url}"
    return f"{job.sweep}: its trials save their last step and end, within a minute; {on} goes on"


def status_of(jobs: Jobs, name: str, storage: str | None) -> tuple[dict[str, Any], str]:
    """Returns the status of a sweep on a cluster, as JSON and as text; its trials too, where its storage can be read here."""
    from cluster.cli.render import status_text, sweep_state

    job = jobs.find(name)
    out, text = {"job": job_json(job)}, job_line(job)
    if job.state == "failed":
        text += "\n" + "\n".join(f"  {line}" for line in job.message.strip().splitlines()[-5:])
    root = storage or job.metadata["storage"]
    try:
        state = sweep_state(find(job.sweep, root))
    except DipsweepError as e:
        return out, f"{text}\n  its trials cannot be read from here: {e}"
    return {**state, **out}, f"{text}\n{status_text(state)}"


def submission_message(submission: Submission, trials: str) -> str:
    """Returns what a user should know after a submit."""
    s = submission
    first = {
        "submitted": f"{s.sweep}: {trials}; submitted to {s.address}",
        "resumed": f"{s.sweep}: {trials}; goes on as job {s.job} on {s.address}, from its last checkpoints",
        "running": f"{s.sweep} runs already on {s.address}, as job {s.job}; nothing was started",
        "finished": f"{s.sweep} is finished already on {s.address}, as job {s.job}; nothing was started",
    }[s.became]
    lines = [first, f"  report and log   {s.storage}/{s.sweep}"]
    if s.became in ("submitted", "resumed"):
        code = (
            "as installed on its nodes"
            if submission.installed
            else f"as it is here, {code_size() / 1e6:.1f} MB, sent once"
        )
        lines.append(f"  dipsweep itself  {code}")
    if s.visible and s.became in ("submitted", "resumed"):
        lines.append("  not sent         " + ", ".join(f"{path} ({where})" for where, path in s.visible))
        lines.append("                   every node must see these at the same path")
    if s.became == "running":
        lines.append("  just stopped?    it saves and ends within a minute; give the same command again then")
    commands = "logs -f | status | stop" if s.became != "finished" else "logs | status"
    return "\n".join([*lines, f"  next             dipsweep {commands}  {s.sweep} --address {s.address}"])


def wait(jobs: Jobs, job: str, *, poll_s: float = 1.0) -> int:
    """Waits until a job has ended; returns the exit code that `dipsweep run` would have had.

    Raises:
        DipsweepError: the cluster has not answered for minutes; the job may run on.
    """
    now = jobs.ended(job, poll_s=poll_s)
    if now.state == "stopped":
        return 130
    if now.state == "finished":
        return 0
    return now.exit_code if now.exit_code in ENDS else 1
