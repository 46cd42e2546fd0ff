"""Runs a sweep from its definition: on Ray, or in this very process where Ray is not wanted or not there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cluster.preflight.cost import predicted
from cluster.preflight.inputs import check_inputs
from cluster.train.functions import PluginTrain, score_job, train_model
from cluster.train.inputs import VerifyInputsBefore
from sweeps.checkpoints.transfer import RemoteStorageEvalFn, RemoteStorageTrainFn, drop_checkpoint
from sweeps.config.checks.unused import in_process_notes
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.controller.controller import SweepController
from sweeps.controller.earlier_sweeps import gather, suite_of
from sweeps.controller.earlier_trials import gather_points
from sweeps.controller.request_handler import RequestHandler
from sweeps.controller.strategies import history_of
from sweeps.errors import InputError, StorageError
from sweeps.executors.local import Evaluate, InProcess, Train
from sweeps.executors.local import Progress as Say
from sweeps.executors.own_function import OwnFunction
from sweeps.journal.lease import driver_state
from sweeps.journal.notes import read_notes
from sweeps.journal.rows import Row, TierRow
from sweeps.journal.state import SweepState
from sweeps.journal.writer import SweepJournal, is_sweep, read_rows
from sweeps.output import droppable
from sweeps.planning.progress import Progress, progress_subscriber
from sweeps.plugins import RULES, SFT
from sweeps.report.console import EventFormatter
from sweeps.results import Results
from sweeps.stopping.base import StopRule
from sweeps.stopping.promotion import PromoteByOdds
from sweeps.stopping.registry import make_rule
from sweeps.storage.base import FOREVER, Store, Where, inside, is_url, join
from sweeps.storage.factory import open_store
from sweeps.storage.probe import VerifyStorageBefore, write_marker

if TYPE_CHECKING:
    from sweeps.controller.searcher import Searcher
    from sweeps.report import Summary

Backend = Literal["ray", "in-process"]


class RayOptions(NamedTuple):
    """Which Ray to run on: one that is started here, or the one at an address."""

    cpus: int | None
    dashboard: bool
    address: str | None


def run(
    sweep: Sweep,
    *,
    storage: Where | None = None,
    backend: Backend = "ray",
    cpus: int | None = None,
    dashboard: bool = False,
    address: str | None = None,
    say: Say = print,
    train: Train | None = None,
    evaluate: Evaluate | None = None,
    rule: StopRule | None = None,
    searcher: Searcher | None = None,
    tiers: Iterable[TierRow] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Results:
    """Runs a sweep to its end, or resumes it where an earlier run stopped; writes its report.

    Args:
        sweep: what to run. storage: root folder or s3://bucket/prefix; default is the sweep's own `storage`.
        backend: `ray` (Tune holds the machines of a trial, Train runs trials of several workers) or `in-process` (one trial
            at a time, no Ray).
        cpus: CPUs of a Ray started here; default all. dashboard: start Ray's dashboard too.
        address: a running Ray cluster whose nodes all see `storage`.
        say: takes one line of progress at a time.
        train, evaluate: stand-ins for `trainers.loop.train` and `evaluators.evaluate`, for tests and own loops.
        rule: a stop rule of your own (`sweeps.stopping.StopRule`) instead of the one that the sweep names; a fresh one.
        searcher: a search of your own (`sweeps.controller.searcher.Searcher`) instead of the sweep's; a fresh one. Give both
            anew when the sweep goes on: they are rebuilt from the journal, nothing of them is stored.
        tiers: what each tier is for each model, of a sweep that was checked before (`cluster.preflight.checks.preflight`);
            by default it is checked here, as far as it trains and evaluates by the functions that ship.
        on_progress: takes where the sweep stands, at most once a second, when there is news.

    Returns:
        Its results, as `sweeps.load` returns them; `.report` is the page, and `/` and `str` are those of its folder.

    Raises:
        SpecError: something of it would fail later; all of it is named, and nothing has started.
        InputError: data, weights or templates are not those that the sweep began with; the evaluators' interpreter will not do.
        StrategyError: the stop rule or the search raised an error, or gave an answer that is none; mended, it goes on.
        SweepBusy: another driver runs this sweep. LimitError, Interrupted: ended early, can be resumed.
    """
    _check_options(backend, cpus, dashboard, address)
    say = droppable(say)
    for line in in_process_notes(sweep) if backend == "in-process" else ():
        say(line)
    plan = Plan(sweep)
    plan.check_limits()
    rule = stop_rule(sweep) if rule is None else rule
    history = history_of(rule)
    root = _root(storage or sweep.storage, say)
    home = root / plan.sweep_id
    in_process, here = backend == "in-process", runs_here(backend, address)
    check = partial(_checked, sweep, root, train, evaluate, here=here, in_process=in_process, say=say)
    if tiers is None and not is_sweep(home):
        tiers = check()  # before anything is written: of a sweep that is refused nothing is left
    with SweepJournal(home, say=say) as journal:
        write_spec(sweep, home)  # first, so that one that ends here can be listed; anew, since limits may have changed
        state = SweepState(history=history)
        formatter = EventFormatter(plan, state)
        controller = SweepController(
            plan,
            journal,
            rule,
            searcher,
            home=home.root,
            subscribers=[lambda row: _tell(formatter, row, say)],
            state=state,
            predict=lambda: predicted(
                plan, root, in_process=backend == "in-process", nodes=_cpus_here(sweep, backend, cpus, address)
            ),
            experience=lambda: _experience(sweep, say),
            points=lambda: _points(plan, root, say),
        )
        if on_progress is not None:
            controller.subscribe(progress_subscriber(plan, journal.rows(), state, on_progress, say))
        steer = RequestHandler(controller, root, lambda: write_spec(controller.plan.sweep, home))
        steer()  # what was asked while nobody drove, such as a longer run of a trial of a finished sweep
        controller.raise_if_broken()
        if controller.finish_if_done():
            say(f"{plan.sweep_id} is finished already; nothing to run")
        else:
            tiers = check() if tiers is None else tiers
            check_inputs(controller.plan.sweep, home)
            if sweep.evaluation.python is not None:
                _check_evaluator_python(sweep, evaluate, backend)
            controller.describe_tiers(tiers)
            keep = sweep.evaluation.keep_replies
            scored = (
                OwnFunction("evaluation", evaluate)
                if evaluate
                else partial(
                    score_job,
                    scores=f"{root}/.scores",
                    home=home.root,
                    keep=keep,
                    keep_network=backend == "ray",
                    beside_training=backend == "in-process" and sweep.trains_on_gpus,
                )
            )
            ray = RayOptions(cpus, dashboard, address) if backend == "ray" else None
            own = OwnFunction("training function", train) if train else train_function(sweep)
            trained = _on_workers(own, root, home, verify=train is None)
            _execute(controller, root, trained, scored, ray=ray, say=say, steer=steer)
        write_report(home)
    if backend == "ray":
        from cluster.connect.environment import cache_folder

        shutil.rmtree(cache_folder(root.root, plan.sweep_id), ignore_errors=True)
    return Results(home)


def runs_here(backend: Backend, address: str | None) -> bool:
    """True where all of a sweep runs on this machine, and not on a Ray that somebody names or that the caller connected to."""
    ray = sys.modules.get("ray")
    elsewhere = address or os.environ.get("RAY_ADDRESS") or (ray is not None and ray.is_initialized())
    return backend == "in-process" or not elsewhere


def _cpus_here(sweep: Sweep, backend: Backend, cpus: int | None, address: str | None) -> list[float]:
    """Returns the CPUs of the Ray that is started here, for a sweep that trains on them; none where other devices count."""
    if backend == "in-process" or sweep.trains_on_gpus or not runs_here(backend, address):
        return []
    return [float(cpus or os.cpu_count() or 1)]


def _checked(
    sweep: Sweep,
    storage: Store,
    train: Train | None,
    evaluate: Evaluate | None,
    *,
    here: bool,
    in_process: bool,
    say: Say,
) -> list[TierRow]:
    """Looks at all that commands look at before a sweep starts, and returns what its tiers are.

    Functions of the caller's own take what they like: what they are for is not looked at.

    Raises:
        SpecError: something of it would fail later.
    """
    if train is not None:
        return []
    from cluster.preflight.checks import preflight

    found = preflight(sweep, storage, here=here, builtin=True, scores=evaluate is None, in_process=in_process)
    for line in found.notes:
        say(line)
    return found.tiers


def _root(storage: Where, say: Say) -> Store:
    """Opens the storage as a driver does: an outage is reported and waited for, as long as it takes."""
    if is_url(storage) or isinstance(storage, Store):
        return open_store(storage, patience_s=FOREVER, say=say)
    return open_store(Path(storage).expanduser().resolve(), patience_s=FOREVER, say=say)


def _on_workers(train: Train, root: Store, home: Store, *, verify: bool) -> Train:
    """Returns a training function as attempts call it: with `verify` what it trains from is looked at first, before a checkpoint
    is copied."""
    train = RemoteStorageTrainFn(train, root.root) if is_url(root.root) else train
    return VerifyInputsBefore(train, home.root) if verify else train


def _execute(
    controller: SweepController,
    root: Store,
    train: Train,
    evaluate: Evaluate,
    *,
    ray: RayOptions | None,
    say: Say,
    steer: Callable[[], None],
) -> None:
    """Runs the sweep on its executor: this process, or Ray as `ray` says."""
    home = root / controller.plan.sweep_id
    keep = _keeper(controller, home)
    if is_url(root.root):
        evaluate = RemoteStorageEvalFn(evaluate)
    if ray is None:
        InProcess(controller, train, evaluate, root.root, keep=keep, say=say, steer=steer).run()
        return
    token = write_marker(home)
    if not is_url(root.root):
        train, evaluate = VerifyStorageBefore(train, home.root, token), VerifyStorageBefore(evaluate, home.root, token)
    from cluster.connect.environment import prepare

    prepare(ray.address)
    from cluster.connect.session import local_ray
    from cluster.driver.loop import RayLoop
    from cluster.observe.exporter import exported
    from cluster.train.storage_visibility import check_nodes

    shared = bool(ray.address or os.environ.get("RAY_ADDRESS"))
    with local_ray(ray.cpus, dashboard=ray.dashboard, address=ray.address), exported(controller):
        check_nodes(home.root, token)
        RayLoop(controller, train, evaluate, root.root, say=say, keep=keep, steer=steer, shared=shared).run()


def _check_options(backend: Backend, cpus: int | None, dashboard: bool, address: str | None) -> None:
    if backend == "in-process":
        for option, value in (("cpus", cpus), ("dashboard", dashboard), ("address", address)):
            if value:
                raise InputError(
                    f"{option}: got {value}, but a run in this process starts and joins no Ray; leave it out"
                )
    elif address and (cpus or dashboard):
        option = "cpus" if cpus else "dashboard"
        raise InputError(f"got {option} beside address {address}; expected it only for a Ray started here")


def _check_evaluator_python(sweep: Sweep, evaluate: Evaluate | None, backend: Backend) -> None:
    from cluster.evals.interpreter import check_evaluator_python

    assert sweep.evaluation.python is not None
    # An evaluation function of the caller's own asks what it likes, whatever suite the sweep names.
    asked = sweep.evaluation.spec if evaluate is None else None
    check_evaluator_python(
        sweep.evaluation.python, asked, on_ray=backend == "ray", types=_model_types(sweep) if evaluate is None else ()
    )


def _model_types(sweep: Sweep) -> list[str]:
    """Returns which of transformers' own architectures a sweep's models have, as far as that can be seen from here."""
    from cluster.preflight.cost import model_shape
    from trainers.model.recurrent.recurrence import RECURRENT_QWEN3

    found = set()
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        with contextlib.suppress(InputError):  # it lies where this machine cannot look
            found.add(str(model_shape(name, sweep.model_source(name)).get("model_type")))
    return sorted(found - {RECURRENT_QWEN3})


def _experience(sweep: Sweep, say: Say) -> dict[str, Any]:
    """Returns what finished sweeps of the storage that the sweep names say of it; empty where it names none."""
    where = sweep.stopping.experience
    return gather(where, sweep.goal, suite_of(sweep.to_json()), without=[sweep.id], say=say) if where else {}


def _points(plan: Plan, root: Store, say: Say) -> dict[str, Any]:
    """Returns what the search is to know of the earlier sweeps that it names; empty where it names none."""
    places = plan.sweep.search.points_from
    return gather_points(plan, places, root, say) if places else {}


def _tell(formatter: EventFormatter, row: Row, say: Say) -> None:
    line = formatter.format(row)
    if line:
        say(line)


def stop_rule(sweep: Sweep) -> StopRule:
    """Returns the sweep's stop rule."""
    block = sweep.stopping
    settings = block.rule_settings
    if block.rule == "dip-aware":
        settings["trials"] = Plan(sweep).total
    elif block.rule in RULES.built_in:
        settings.pop("protect", None)  # early definitions had it for every rule
    if block.rule == "patient" and block.patience is not None:
        settings["patience"] = int(block.patience)
    if sweep.search.promote:
        return PromoteByOdds(sweep.goal, **settings)
    return make_rule(block.rule, sweep.goal, **settings)


def train_function(sweep: Sweep) -> Train:
    """Returns the sweep's training function."""
    return train_model if sweep.trainer.loop == SFT else PluginTrain(sweep.trainer.loop)


def _keeper(controller: SweepController, home: Store) -> Callable[[], None]:
    """Returns a function that deletes checkpoints that are no longer needed: all but a trial's last two and its best."""

    def keep() -> None:
        for trial, checkpoint in controller.checkpoints_to_delete():
            key = inside(checkpoint.path, home.root)
            if key is not None:  # a journal is data: it cannot name what lies elsewhere for deletion
                with contextlib.suppress(StorageError):
                    drop_checkpoint(home, key)
            controller.checkpoint_deleted(trial, checkpoint)

    return keep


def write_spec(sweep: Sweep, home: Where) -> None:
    """Writes the sweep's definition beside its log, as YAML that `dipsweep resume` and people can read."""
    import yaml

    open_store(home).write("spec.yaml", yaml.safe_dump(sweep.to_json(), sort_keys=False).encode())


def summary_of(home: Where) -> Summary:
    """Returns the summary of a journal with users' notes, and with a note where an unfinished sweep has no driver."""
    from sweeps.report import summarize
    from sweeps.report.analysis.summarize import with_driver_note, with_notes

    store = open_store(home)
    driver = driver_state(store)  # before the journal: one that ends in between has ended the sweep by then
    rows = read_rows(store)
    summary = with_notes(summarize(rows), read_notes(store))
    if not any(row.kind == "end" and not row.trial for row in rows) and (hint := driver.message(store.name)):
        return with_driver_note(summary, hint)
    return summary


def write_report(home: Where) -> str:
    """Writes `report/index.html` and `report/report.json` from the journal, and a sample of kept replies into the page.

    Returns the page's path or address.
    """
    from sweeps.report import render_html
    from sweeps.report.html.reply_data import embedded

    store = open_store(home)
    summary = summary_of(store)
    store.write(
        "report/report.json", (json.dumps(summary.to_json(), allow_nan=False, separators=(",", ":")) + "\n").encode()
    )
    store.write("report/index.html", render_html(summary, embedded(store, summary)).encode())
    return join(store.root, "report/index.html")
