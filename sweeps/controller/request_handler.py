"""Carries out users' requests to a running sweep (`sweeps.controller.requests`): rows, and changed plans.

A request that cannot be carried out is refused in one sentence, which stands in the journal like all others. Each is
carried out once: a driver that dies between the act and taking the request away finds it in the journal afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sweeps.config.blocks import LimitsBlock, checked_block
from sweeps.config.checks.whole_sweep import MAX_TRIALS, checked_settings
from sweeps.config.shared_prefix import shared_steps, why_not
from sweeps.config.space import sampled
from sweeps.controller import requests as control
from sweeps.controller.branches import has_begun
from sweeps.controller.controller import SweepController
from sweeps.controller.requests import Request
from sweeps.errors import InputError, StorageDenied, StorageError, nearest
from sweeps.journal.state import TrialState
from sweeps.journal.vocabulary import ControlAction, TrialStatus
from sweeps.storage.base import Store

log = logging.getLogger(__name__)
POLL_S = 2.0  # how long a request may go unnoticed; one listing of an (almost always empty) folder


class RequestHandler:
    """The driver's side of `sweeps.controller.requests`; call it in every turn of a run loop.

    Args:
        controller: carries out. store: where requests wait.
        changed: called when limits have changed, to write the sweep's definition anew.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        controller: SweepController,
        store: Store,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.controller, self.store, self.changed, self.clock = controller, store, changed, clock
        self.next_look = float("-inf")
        self._unreadable = set[str]()

    def __call__(self) -> None:
        """Looks for requests when it is time, and carries them out in order."""
        if self.clock() < self.next_look:
            return
        self.next_look = self.clock() + POLL_S
        sweep = self.controller.plan.sweep_id
        for request in self._pending(sweep):
            if request.id not in self.controller.state.requests:
                self.take(request)
            with contextlib.suppress(StorageDenied):  # another user's: it stays, and is known by its id
                control.discard(self.store, sweep, request)

    def _pending(self, sweep: str) -> list[Request]:
        try:
            return control.pending(self.store, sweep, self._say_unreadable)
        except StorageDenied as e:  # whoever asked first may have closed the folder to others
            self._say_unreadable(sweep, e)
            return []

    def _say_unreadable(self, place: str, why: StorageError) -> None:
        """Says once of a request, or of all of them, that it cannot be read and waits."""
        if place not in self._unreadable:
            log.warning("what was asked in %s cannot be read, and is not done: %s", place, why)
        self._unreadable.add(place)

    def take(self, request: Request) -> None:
        """Carries out one request, or writes down why not."""
        row = {"request": request.id, "when": request.when, "args": dict(request.args)}
        try:
            said = carry_out(self.controller, request)
        except InputError as e:
            known = request.trial if self.controller.spec(request.trial) else ""  # a row with a trial makes it one
            self.controller.control(request.action, request.who, known, refused=True, reason=str(e), **row)
            return
        self.controller.control(request.action, request.who, request.trial, reason=said, **row)
        if request.action == ControlAction.LIMITS:
            self.changed()


def carry_out(controller: SweepController, request: Request) -> str:
    """Does what is asked and returns one sentence on it.

    Raises:
        InputError: it cannot be done: no such trial, a budget that is not longer, a setting that is unknown.
    """
    if request.trial and controller.spec(request.trial) is None:
        raise InputError(f"there is no trial {request.trial}{nearest(request.trial, controller.history.curves)}")
    if request.action in (ControlAction.EXTEND, ControlAction.CLONE) and not request.trial:
        raise InputError(f"{request.action} needs a trial; `dipsweep status` lists them")
    return _DO[ControlAction(request.action)](controller, request)


def _stop(controller: SweepController, request: Request) -> str:
    if request.trial:
        controller.stop(request.trial, request.who)
        return "stopped"
    return "the sweep saves its trials and ends; `dipsweep resume` goes on with it"


def _pause(controller: SweepController, request: Request) -> str:
    return "running trials save and give their machines back; nothing starts until `dipsweep resume`"


def _resume(controller: SweepController, request: Request) -> str:
    if controller.ending or controller.stopping:
        raise InputError("it is saving its trials and ending, as it was asked to; resume it when it has ended")
    return "the sweep goes on" if controller.is_paused else "the sweep was not paused"


def _extend(controller: SweepController, request: Request) -> str:
    spec = controller.spec(request.trial)
    assert spec is not None
    steps = _whole(request, "steps")
    if steps <= spec.steps:
        raise InputError(
            f"{request.trial} has a budget of {spec.steps} steps already; extend it to more, not to {steps}"
        )
    checked_settings(controller.plan.sweep, {**spec.config, "steps": steps})
    shared = shared_steps(spec.config)
    start = controller.checkpoint(request.trial, shared or None)
    exact = start is not None and 0 < start.step <= shared
    start = start or controller.checkpoint(request.trial)
    if start is None:
        raise InputError(f"{request.trial} has no checkpoint yet to go on from; wait for its first, or add a new trial")
    config = {**spec.config, "steps": steps}
    new, there = _added(controller, config, parent=request.trial, fork_step=start.step, by=request.who)
    if there:
        return there
    how = "as one run of that budget" if exact else f"not the same as one run of that budget: {_why(spec.config)}"
    return f"{new} goes on from {request.trial} at step {start.step} to step {steps}, {how}"


def _why(config: Mapping[str, Any]) -> str:
    return why_not(config) or "the checkpoint from before its rate fell is gone"


def _clone(controller: SweepController, request: Request) -> str:
    spec = controller.spec(request.trial)
    assert spec is not None
    config = {**spec.config, **_settings(request)}
    if config == dict(spec.config):
        raise InputError(f"a clone of {request.trial} needs at least one other setting, such as learning_rate=1e-4")
    checked_settings(controller.plan.sweep, config)
    start = controller.checkpoint(request.trial, int(config["steps"]) - 1) if request.args.get("warm") else None
    if request.args.get("warm") and start is None:
        raise InputError(f"{request.trial} has no checkpoint below step {config['steps']} to start warm from")
    if start is not None and config["model"] != spec.config["model"]:
        raise InputError(f"a warm clone keeps the model of {request.trial} ({spec.config['model']})")
    new, there = _added(
        controller, config, parent=request.trial if start else "", fork_step=start.step if start else 0, by=request.who
    )
    if there:
        return there
    where = f"from {request.trial} at step {start.step}" if start else "from the base model"
    return f"{new} starts {where} with {', '.join(f'{k}={v}' for k, v in _settings(request).items())}"


def _add(controller: SweepController, request: Request) -> str:
    plan = controller.plan
    if "trials" in request.args:
        more = _whole(request, "trials")
        if not sampled(plan.sweep.space) or plan.sweep.search.repeats > 1:
            raise InputError("the search has no more trials: its space is a grid or repeated; add one by its settings")
        if plan.total + more > MAX_TRIALS:
            raise InputError(f"{plan.total:,} trials and {more:,} more are more than {MAX_TRIALS:,}")
        added = replace(plan, more=plan.more + more).total - plan.total
        whole = "" if added == more else f" ({more} asked for; each configuration is tried with every budget)"
        return f"the search may propose {added} more trial{'s' if added > 1 else ''}{whole}"
    axes = {name: axis.samples()[0] for name, axis in plan.sweep.axes.items() if not axis.when}
    settings = _settings(request)
    if missing := [name for name in axes if name not in settings and len(plan.sweep.axes[name].samples()) > 1]:
        raise InputError(f"a new trial needs a value for {', '.join(missing)} too")
    config = plan.config({**axes, **settings}, {}, 0)
    checked_settings(plan.sweep, config)
    new, there = _added(controller, config, by=request.who)
    if there:
        return there
    return f"{new} starts with {', '.join(f'{k}={v}' for k, v in settings.items())}"


def _limits(controller: SweepController, request: Request) -> str:
    before = controller.plan.sweep.limits
    changes = dict(request.args.get("set", {}))
    limits = checked_block(LimitsBlock, {**before.model_dump(), **changes}, "limits")
    controller.set_limits(limits)
    return ", ".join(f"{name} {getattr(before, name)} -> {getattr(limits, name)}" for name in changes) or "no change"


def _retry(controller: SweepController, request: Request) -> str:
    if request.trial:  # the row of the request puts it back in the queue
        trial = controller.state.trials[request.trial]
        if _was_given_up_unbegun(trial):
            return f"{trial.id} begins {_from_trunk(controller, trial)}; before: {trial.curve.reason}"
        if trial.status is not TrialStatus.FAILED:
            raise InputError(
                f"{trial.id} is {trial.status}; only a trial that failed can be tried again, or a branch that was given up "
                "before it began"
            )
        return f"{trial.id} is tried again {_from(controller, trial.id)}; it had failed: {trial.curve.reason}"
    failed = controller.state.with_status(TrialStatus.FAILED)
    if not failed:
        raise InputError("no trial has failed")
    for trial in failed:
        reason = _from(controller, trial.id)
        controller.control(ControlAction.RETRY, request.who, trial.id, reason=reason, asked=True)
    return f"{len(failed)} trial{'s are' if len(failed) > 1 else ' is'} tried again: {', '.join(t.id for t in failed)}"


def _from(controller: SweepController, trial: str) -> str:
    last = controller.checkpoint(trial)
    return f"from step {last.step}" if last is not None else "from the start"


def _added(controller: SweepController, config: Mapping[str, Any], **keys: Any) -> tuple[str, str]:
    """Adds a trial; returns its id, and a sentence where it was there already, else "".

    Raises:
        InputError: it has failed, and can be tried again; or it would begin elsewhere than the plan has it begin.
    """
    new = controller.plan.trial(config).id
    known = controller.state.trials.get(new)
    if known is None and keys.get("parent") and any(trial.id == new for trial in controller.plan.known_trials()):
        raise InputError(
            f"{new} is a trial of the plan with these settings and has yet to start: it would stand for both, and not begin as "
            "planned; wait for it, or give other settings"
        )
    if known is not None and known.status is TrialStatus.FAILED:
        raise InputError(
            f"{known.id} has these settings and has failed ({known.curve.reason}); try it again: "
            f"dipsweep retry {controller.plan.sweep_id} --trial {known.id}"
        )
    if known is not None and _was_given_up_unbegun(known):
        begins = _from_trunk(controller, known)
        controller.control(
            ControlAction.RETRY,
            str(keys.get("by", "")),
            known.id,
            reason=f"asked for; it begins {begins}",
            asked=True,
        )
        return known.id, f"{known.id} begins {begins}"
    return controller.add(config, **keys), f"{known.id} has these settings already: {known.status}" if known else ""


def _was_given_up_unbegun(trial: TrialState) -> bool:
    return bool(trial.parent) and not has_begun(trial) and trial.status in (TrialStatus.PAUSED, TrialStatus.PRUNED)


def _from_trunk(controller: SweepController, trial: TrialState) -> str:
    start = controller.checkpoint(trial.parent, trial.fork_step)
    if controller.waits_for_parent(trial.id):
        return f"where {trial.parent} reaches step {trial.fork_step}"
    return f"at step {start.step} of {trial.parent}" if start is not None else "from the base model"


_DO: dict[ControlAction, Callable[[SweepController, Request], str]] = {
    ControlAction.STOP: _stop, ControlAction.PAUSE: _pause, ControlAction.RESUME: _resume,
    ControlAction.EXTEND: _extend, ControlAction.CLONE: _clone, ControlAction.ADD: _add,
    ControlAction.LIMITS: _limits, ControlAction.RETRY: _retry,
}  # fmt: skip


def _whole(request: Request, name: str) -> int:
    value = request.args.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{request.action} needs {name} as a whole number of 1 or more, not {value!r}")
    return value


def _settings(request: Request) -> dict[str, Any]:
    settings = dict(request.args.get("set", {}))
    if not settings:
        raise InputError(f"{request.action} needs settings, such as learning_rate=1e-4")
    return settings
