"""Runs a sweep from its definition: on Ray, or in this very process where Ray is not wanted or not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from sweeps.director import Director
from sweeps.inprocess import Evaluate, InProcess, Progress, Scored, Train
from sweeps.journal import SweepJournal
from sweeps.narrate import Narrator
from sweeps.plan import Plan
from sweeps.records import Row
from sweeps.scoring import EvalJob
from sweeps.spec import Sweep
from sweeps.steering import Steering
from sweeps.stopping.base import StopRule
from sweeps.storage import open_store
from sweeps.trial import ModelSource

Backend = Literal["ray", "in-process"]


def run(
    sweep: Sweep,
    *,
    storage: str | Path | None = None,
    backend: Backend = "ray",
    cpus: int | None = None,
    dashboard: bool = False,
    address: str | None = None,
    say: Progress = print,
    train: Train | None = None,
    evaluate: Evaluate | None = None,
) -> Path:
    """Runs a sweep to its end, or goes on with it where an earlier run stopped; writes its report.

    Args:
        sweep: what to run. storage: root folder; default is the sweep's own `storage`.
        backend: `ray` (Tune outside, Train inside) or `in-process` (one trial at a time, no Ray).
        cpus: CPUs of a Ray started here; default all. dashboard: start Ray's dashboard too.
        address: a running Ray cluster whose nodes all see `storage`.
        say: takes one line of progress at a time.
        train, evaluate: stand-ins for `trainers.loop.train` and `evaluators.evaluate`, for tests and own loops.

    Returns:
        The sweep's folder, with `report/index.html` in it.

    Raises:
        SweepBusy: another driver runs this sweep. LimitError, Interrupted: ended early, can be resumed.
    """
    plan = Plan(sweep)
    plan.check_limits()
    root = Path(storage or sweep.storage).expanduser().resolve()
    folder = root / plan.sweep_id
    with SweepJournal(folder) as journal:
        narrator = Narrator(plan)
        for row in journal.rows():
            narrator.line(row)
        director = Director(plan, journal, stop_rule(sweep), watch=lambda row: _tell(narrator, row, say), home=folder)
        write_spec(sweep, folder / "spec.yaml")  # anew: limits may have changed, they are not part of the id
        steer = Steering(director, open_store(root), lambda: write_spec(director.plan.sweep, folder / "spec.yaml"))
        steer()  # what was asked while nobody drove, such as a longer run of a trial of a finished sweep
        if director.done():
            say(f"{plan.sweep_id} is finished already; nothing to run")
        else:
            _execute(
                director,
                root,
                backend,
                cpus,
                dashboard,
                address,
                say,
                train or _train(),
                evaluate or partial(score_job, scores=root / ".scores"),
                steer,
            )
        write_report(folder)
    shutil.rmtree(folder / ".ray", ignore_errors=True)
    return folder


def _execute(
    director: Director, root: Path, backend: Backend, cpus: int | None, dashboard: bool, address: str | None,
    say: Progress, train: Train, evaluate: Evaluate, steer: Callable[[], None],
) -> None:  # fmt: skip
    keep = _keeper(director, (root / director.plan.sweep_id).resolve())
    if backend == "in-process":
        InProcess(director, train, evaluate, root, keep, say, steer).run()
        return
    from cluster.environment import prepare

    prepare(address)
    from cluster.loop import RayLoop, local_ray
    from cluster.ops.exporter import exported

    evaluation = director.plan.sweep.evaluation
    with local_ray(cpus, dashboard=dashboard, address=address), exported(director):
        RayLoop(director, train, evaluate, root, evaluators=evaluation.workers, eval_gpus=evaluation.gpus_per_worker,
                say=say, keep=keep, steer=steer).run()  # fmt: skip


def _tell(narrator: Narrator, row: Row, say: Progress) -> None:
    line = narrator.line(row)
    if line:
        say(line)


def stop_rule(sweep: Sweep) -> StopRule:
    """Returns the stop rule that the sweep asks for."""
    from sweeps.stopping.rules import make_rule

    block = sweep.stopping
    settings = {
        n: getattr(block, n) for n in ("risk", "patience", "grace", "reduction") if getattr(block, n) is not None
    }
    if block.rule == "dip-aware":
        settings |= {"protect": block.protect, "trials": Plan(sweep).total}
    elif block.rule == "patient" and block.patience is not None:
        settings["patience"] = int(block.patience)
    return make_rule(block.rule, sweep.goal, **settings)


def score_job(job: EvalJob, scores: Path) -> Scored:
    """Scores one checkpoint with the sweep's suite; what was scored before, in any sweep of this storage, is looked up."""
    from evaluators.cache import ScoreCache
    from evaluators.evaluate import evaluate
    from trainers.models import model_folder

    folder = model_folder(job.model, ModelSource(job.path)) if job.step == 0 else Path(job.path)
    return evaluate(folder, job.suite, items=job.items, cache=ScoreCache(scores))


def _train() -> Train:
    from trainers.loop import train

    return train


def _keeper(director: Director, home: Path) -> Callable[[], None]:
    """Returns what deletes checkpoints that nobody needs any more: all but a trial's last two and its best."""

    def keep() -> None:
        for trial, checkpoint in director.disposable():
            path = Path(checkpoint.path).resolve()
            if path.is_relative_to(home):  # a journal is data: it cannot name what lies elsewhere for deletion
                shutil.rmtree(path, ignore_errors=True)
            director.dropped(trial, checkpoint)

    return keep


def write_spec(sweep: Sweep, path: Path) -> None:
    """Writes the sweep's definition beside its log, as YAML that `dipsweep resume` and people can read."""
    import yaml

    aside = path.with_suffix(".aside")
    aside.write_text(yaml.safe_dump(sweep.to_json(), sort_keys=False), encoding="utf-8")
    aside.replace(path)


def write_report(folder: Path) -> Path:
    """Writes `report/index.html` and `report/report.json` from the journal alone; returns the page."""
    from sweeps.journal import read_rows
    from sweeps.report import summarize, write_html, write_json

    summary = summarize(read_rows(folder))
    page = folder / "report" / "index.html"
    page.parent.mkdir(exist_ok=True)
    write_html(summary, page)
    write_json(summary, page.with_name("report.json"))
    return page
