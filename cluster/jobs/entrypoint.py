"""What runs on the cluster: `python -m cluster.jobs.entrypoint SWEEP_ID --storage ROOT [--resume]`, a job's entrypoint.

The definition comes with the job's metadata, so that the command line of a job stays readable, and nothing a user wrote
goes through its shell.
"""

from __future__ import annotations

import json
import os
import sys

from cluster.connect.environment import JOB_CONFIG
from cluster.jobs.client import RESUME
from cluster.jobs.interpreter import missing_packages
from cluster.launch import main_of, run_with_output
from sweeps.config.schema import Sweep
from sweeps.errors import DipsweepError, InputError


def main(argv: list[str] | None = None) -> None:
    """Runs the sweep that came with this job; its exit code is that of `dipsweep run`."""
    main_of(lambda: run_with_output(*_arguments(sys.argv[1:] if argv is None else argv)))


def _arguments(argv: list[str]) -> tuple[Sweep, str]:
    if len(argv) < 3 or argv[1] != "--storage" or argv[3:] not in ([], [RESUME]):
        raise InputError("this is what a submitted job runs; use dipsweep submit")
    if missing := missing_packages():
        raise DipsweepError(
            f"{sys.executable} on this cluster lacks {', '.join(missing)}: install dipsweep's dependencies on the nodes "
            "(pip install dipsweep; deploy/Containerfile), or give --python another interpreter"
        )
    sweep, root = sent_sweep(argv[0]), argv[2]
    if not argv[3:]:
        return sweep, root
    from cluster.jobs.resume import prepare_resumed_sweep

    return prepare_resumed_sweep(sweep, root), root


def sent_sweep(sweep_id: str) -> Sweep:
    """Returns the sweep in this job's metadata.

    Raises:
        InputError: there is none, or this dipsweep reads it as another sweep than the one that was submitted.
    """
    try:
        metadata = json.loads(os.environ[JOB_CONFIG])["metadata"]
        sweep = Sweep(**json.loads(metadata["spec"]))
    except (KeyError, ValueError, TypeError) as e:
        raise InputError(f"this job came without a sweep ({type(e).__name__}: {e}); use dipsweep submit") from e
    if sweep.id != sweep_id:
        raise InputError(
            f"{sweep_id} was submitted, and the dipsweep of this cluster reads it as {sweep.id}: the two are of different "
            "versions; submit without --installed, or install the same version here"
        )
    return sweep


if __name__ == "__main__":
    main()
