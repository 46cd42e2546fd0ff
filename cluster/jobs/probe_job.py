"""A small job that says what an interpreter of a cluster can do, before anything is promised."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cluster.jobs.client import Jobs
from cluster.jobs.interpreter import MARK
from sweeps.errors import DipsweepError, InputError

WAIT_S: Final = 180.0


def run_probe(
    jobs: Jobs, name: str, python: str, arguments: Sequence[str], mark: str, runtime_env: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs `PYTHON -m ARGUMENTS…` as a job, removes it, and returns the JSON of the line that begins with `mark`.

    Raises:
        DipsweepError: it gave none, in three minutes; the message says why, as far as its log does.
    """
    job = f"dipsweep-{name}-{secrets.token_hex(4)}"
    jobs.submit(job, shlex.join([python, "-m", *arguments]), runtime_env, {"job_name": f"dipsweep {name}"})
    until = time.monotonic() + WAIT_S
    try:
        while (now := jobs.get(job)).live:
            if time.monotonic() > until:
                raise DipsweepError(f"no answer in {WAIT_S:.0f} s ({now.message.strip()}); it was stopped")
            time.sleep(0.5)
    except BaseException:  # Ctrl-C too: nobody waits for it any more
        with contextlib.suppress(DipsweepError):
            jobs.stop(job)
        raise
    log = jobs.log(job)
    jobs.delete(job)
    line = next((text for text in log.splitlines() if text.startswith(mark)), None)
    if line is None:
        raise DipsweepError(why_no_answer(python, now.exit_code, log))
    return dict(json.loads(line.removeprefix(mark)))


def why_no_answer(python: str, exit_code: int | None, log: str) -> str:
    """Returns why a probe brought nothing back."""
    if exit_code in (126, 127):
        return f"'{python}' was not found on the cluster; give --python"
    if lacks := re.search(r"No module named '?([\w.]+)", log):
        return (
            f"'{python}' on the cluster lacks {lacks[1]}: install dipsweep's dependencies on the nodes "
            "(deploy/Containerfile), or give --python another interpreter"
        )
    return f"it failed: {log.strip()[-600:]}"


def check_interpreter(jobs: Jobs, python: str, runtime_env: Mapping[str, Any], version: str) -> None:
    """Makes sure that an interpreter of the cluster can run this dipsweep.

    Args:
        runtime_env: of the job that is to come. version: of the dipsweep that submits.

    Raises:
        InputError: it is not there, is too old, lacks packages, cannot join the cluster, or has another dipsweep
            installed than this one, and that one is to be used.
    """
    try:
        found = run_probe(jobs, "probe", python, ["cluster.jobs.interpreter"], MARK, runtime_env)
    except DipsweepError as e:
        raise InputError(f"{jobs.endpoint.url}: {e}; nothing was submitted") from e
    url, where = jobs.endpoint.url, f"'{python}' on the cluster (Python {found['python']})"
    if missing := found["missing"]:
        raise InputError(
            f"{url}: {where} lacks {', '.join(missing)}: install dipsweep's dependencies on the nodes (deploy/Containerfile), "
            "or give --python another interpreter; nothing was submitted"
        )
    if refused := found["refused"]:
        raise InputError(
            f"{url}: {where} has the packages but cannot join the cluster: {refused}; give --python an interpreter with the "
            "cluster's Python and Ray; nothing was submitted"
        )
    if "py_modules" not in runtime_env and found["dipsweep"] != version:
        raise InputError(
            f"{url}: {where} has dipsweep {found['dipsweep'] or '(none)'} installed, and this is {version}; submit without "
            "--installed, or install the same version there; nothing was submitted"
        )
