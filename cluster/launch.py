"""A sweep from its checks to its report, with progress on the terminal and an exit code: what commands and jobs share."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.errors import DipsweepError, InputError, Interrupted, NoDriver
from sweeps.executors.interrupt import signals_as_ctrl_c
from sweeps.output import (
    LossyStream,
    escape_what_cannot_be_encoded,
    keep_running_without_output,
    open_standard_streams,
    printable,
    silence,
)
from sweeps.storage.base import join, storage_trouble


def run_with_output(
    sweep: Sweep,
    storage: Any = None,
    in_process: bool = False,
    cpus: int | None = None,
    dashboard: bool = False,
    address: str | None = None,
) -> None:
    """Runs a sweep from its checks to its report and prints what happens; `run`, `resume` and submitted jobs do this.

    Raises:
        DipsweepError: every trial failed.
    """
    from cluster.preflight.checks import preflight
    from cluster.run_output import run_output
    from cluster.run_sweep import Backend, runs_here
    from cluster.run_sweep import run as run_sweep

    keep_running_without_output()
    backend: Backend = "in-process" if in_process else "ray"
    here = runs_here(backend, address)
    checked = preflight(sweep, storage or sweep.storage, here=here, builtin=True, in_process=in_process)
    with run_output() as output:
        say = output.say
        say(f"{sweep.id}: {describe_size(sweep)}; report and log go to {join(str(storage or sweep.storage), sweep.id)}")
        for line in checked.notes:
            say(line)
        results = run_sweep(
            sweep,
            storage=storage,
            backend=backend,
            cpus=cpus,
            dashboard=dashboard,
            address=address,
            say=say,
            tiers=checked.tiers,
            on_progress=output.progress,
        )
    print()
    for sentence in results.answer:
        print(sentence)
    print(f"\nThe report: {results.report}")
    trials = results.summary.trials
    if trials and all(t.state == "failed" for t in trials):
        raise DipsweepError(
            f"every trial failed; the first: {trials[0].reason}. The report says more: {results.report}"
        )


def describe_size(sweep: Sweep) -> str:
    """Returns `6 trials of at most 400 steps`."""
    total = Plan(sweep).total
    budgets = [int(b) for b in sweep.axis_values("steps", sweep.trainer.steps)]
    return f"{total} trial{'s' if total != 1 else ''} of at most {max(budgets)} steps"


def _tell(line: str) -> None:
    """Prints a line to standard error. Its reader may be gone, as a terminal is after SIGHUP: that changes no exit code."""
    print(printable(line), file=LossyStream(sys.stderr), flush=True)


def main_of(act: Callable[[], Any]) -> None:
    """Runs `act` and exits the process: every error of ours becomes one clear message and its exit code."""
    open_standard_streams()
    escape_what_cannot_be_encoded()
    try:
        with signals_as_ctrl_c():
            code = act()
            sys.stdout.flush()  # here, where it can be told that nobody takes it
        sys.exit(code if isinstance(code, int) else 0)
    except DipsweepError as e:
        text = f"{'' if isinstance(e, InputError | Interrupted | NoDriver) else 'error: '}{e}"
        _tell(text)
        sys.exit(e.exit_code)
    except BrokenPipeError:  # whoever read along has seen enough
        silence(sys.stdout)
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _tell("interrupted")
        sys.exit(130)
    except OSError as e:
        if (trouble := storage_trouble(e)) is None:
            raise
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # what was said before
        silence(sys.stdout)
        _tell(f"error: {trouble}")
        sys.exit(1)
    except Exception as e:
        if type(e).__module__.startswith(("click", "typer")) and hasattr(e, "exit_code"):
            e.show()  # type: ignore[attr-defined]
            sys.exit(e.exit_code)
        raise
