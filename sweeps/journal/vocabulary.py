"""The fixed words of journal rows: actions of a rule, statuses, what users may request.

Each is a `TextEnum`: its value is the text in the journal, and it compares equal to it.
"""

from __future__ import annotations

from typing import Final

from sweeps.text_enum import TextEnum


class Action(TextEnum):
    """What is to be done with a running trial."""

    CONTINUE = "CONTINUE"
    PAUSE = "PAUSE"  # give the machines back, keep the checkpoint; may be resumed; paused at the end means pruned
    STOP = "STOP"


OLD_ACTIONS: Final = {"PARK": Action.PAUSE}
"""What early journals call an action."""


class Phase(TextEnum):
    """Where a trial stands on its curve."""

    BEFORE = "before"
    DIP = "dip"
    RECOVERY = "recovery"
    PLATEAU = "plateau"
    COLLAPSE = "collapse"
    LATE_DECLINE = "late-decline"
    DIVERGED = "diverged"
    UNKNOWN = "unknown"


class TrialStatus(TextEnum):
    """A trial's status. It changes by a journal row or not at all (`sweeps.journal.history`)."""

    WAITING = "waiting"  # for machines: not started yet, or to go on after its attempt ended early
    RUNNING = "running"
    PAUSED = "paused"
    SCORING = "scoring"  # trained to its budget; scores are missing
    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"


ENDED: Final = frozenset({TrialStatus.COMPLETED, TrialStatus.PRUNED, TrialStatus.FAILED})


class EndStatus(TextEnum):
    """How training, a trial or a sweep ended."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"
    DONE = "done"  # the sweep


class EndOf(TextEnum):
    """What ended: the training of a trial, the trial as a whole with its last score, or the sweep."""

    TRAINING = "training"
    SCORING = "scoring"
    SWEEP = "sweep"


class EvalStatus(TextEnum):
    """What became of the evaluation of a checkpoint."""

    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # overtaken: a later checkpoint of the trial has scores


class ControlAction(TextEnum):
    """What a person asked for, or what the driver did with an attempt on its own account."""

    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    EXTEND = "extend"
    CLONE = "clone"
    ADD = "add"
    LIMITS = "limits"
    RETRY = (
        "retry"  # the driver's own: the attempt was lost, the trial goes on; asked for: a failed trial is tried again
    )
    YIELD = "yield"  # an attempt gave its machines back before its end; the trial goes on later
    WAIT = "wait"  # an attempt cannot go on for now, such as for a full disk; its next checkpoint ends that
    INTERRUPT = "interrupt"  # the driver saves its trials and ends; the sweep can be resumed


DRIVER: Final = "driver"
"""`who` of a control row that nobody asked for. Somebody may have that name too: `ControlRow.is_asked` tells them apart."""
SOMEBODY: Final = "somebody"
"""`who` of somebody who gave no name."""


class SweepStatus(TextEnum):
    """A sweep's status by its journal alone; whether its driver is alive only the lease says."""

    RUNNING = "running"
    PAUSING = "pausing"  # trials save and give their machines back
    PAUSED = "paused"
    STOPPING = "stopping"  # trials save, then the driver ends
    STOPPED = "stopped"  # no driver; resume goes on from the last checkpoints
    DONE = "done"
