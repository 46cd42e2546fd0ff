"""Which trials are to be started, in which order, and which of them have to wait for the trial that they branch off from."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from itertools import islice

from sweeps.config.trial import TrialSpec
from sweeps.controller.branches import given_up_trunk, has_begun, trunk_to_judge_by
from sweeps.journal.rows import ControlRow, EndRow, Row, TrialRow, VerdictRow
from sweeps.journal.state import Checkpoint, SweepState, TrialState
from sweeps.journal.vocabulary import Action, ControlAction, EndOf, TrialStatus


class LaunchQueue:
    """The trials of one sweep that are to be started. It follows from the rows; nothing here is written down.

    Args:
        state: what is known of the sweep. specs: its trials by id.
        trunks_first: a shorter budget begins when all configurations have begun, and not while its trunk is given up.

    Attributes:
        exhausted: the search has no more to propose, so nobody waits for a parent that it has yet to name.
    """

    def __init__(self, state: SweepState, specs: Mapping[str, TrialSpec], *, trunks_first: bool = False) -> None:
        self.state, self.specs, self.trunks_first = state, specs, trunks_first
        self.exhausted = False
        self._trials: deque[str] = deque()

    def restore(self) -> None:
        """Queues what an earlier driver left open."""
        open_ = self.state.with_status(TrialStatus.WAITING, TrialStatus.RUNNING)
        self._trials.extend(trial.id for trial in open_)

    def apply(self, row: Row) -> None:
        """Takes in a row that was just applied to the state."""
        match row:
            case TrialRow():
                self._trials.append(row.trial)
            case ControlRow(action=ControlAction.RETRY | ControlAction.YIELD, refused=False) if row.trial:
                self.discard(row.trial)  # the rule may have chosen it already, which is no row
                self._trials.appendleft(row.trial)
            case VerdictRow(action=Action.PAUSE) | EndRow(of=EndOf.SCORING):
                self.discard(row.trial)

    def ready(self, limit: int) -> list[str]:
        """Returns the first trials that can start now, at most `limit`."""
        return list(islice(self._ready(), limit))

    def branches_of(self, parents: Collection[str]) -> list[str]:
        """Returns the trials that can start now and begin from a checkpoint of one of these parents."""
        trials = self.state.trials
        begin = (t for t in self._ready() if trials[t].parent in parents and not has_begun(trials[t]))
        return [trial for trial in begin if not self.has_trained(trial) and self.trunk_to_judge_by(trial) is None]

    def trunk_to_judge_by(self, trial: str) -> TrialState | None:
        """Returns the trunk of a branch about which the rule is to be asked before it begins."""
        return trunk_to_judge_by(self.state, self.state.trials[trial])

    def append(self, trial: str) -> None:
        """Puts a trial at the end."""
        self._trials.append(trial)

    def promote(self, trial: str) -> None:
        """Puts a trial before the first that the search has named and that has not begun."""
        place = next((i for i, other in enumerate(self._trials) if self._is_new(other)), len(self._trials))
        self._trials.insert(place, trial)

    def begun(self) -> int:
        """Returns how many trials can start now before which none is promoted: they have begun, or a user added them."""
        return sum(not self._is_new(trial) for trial in self._ready())

    def _is_new(self, trial: str) -> bool:
        known = self.state.trials[trial]
        return not has_begun(known) and not known.asked_for

    def remove(self, trial: str) -> None:
        """Takes a trial out, which is to be there."""
        self._trials.remove(trial)

    def discard(self, trial: str) -> None:
        """Removes a trial if it is in the queue."""
        if trial in self._trials:
            self._trials.remove(trial)

    def has_trained(self, trial: str) -> bool:
        """True when only scores are missing: a trial, or its parent for it, has a checkpoint at its budget."""
        own = self.state.trials[trial].checkpoints
        return self.specs[trial].steps in own or self.whole_at_parent(trial) is not None

    def whole_at_parent(self, trial: str) -> Checkpoint | None:
        """Returns the parent's checkpoint at the budget of a trial that has not begun, where that is all it needs."""
        known, steps = self.state.trials[trial], self.specs[trial].steps
        parent = self.state.trials.get(known.parent)
        if parent is None or known.fork_step != steps or has_begun(known):
            return None
        return parent.checkpoints.get(steps)

    def is_idle(self) -> bool:
        """True when nothing is left to be started but branches of trunks that are given up."""
        return len(self._trials) == len(self.given_up())

    def given_up(self) -> list[tuple[str, TrialState]]:
        """Returns the branches that do not begin while their trunk is given up, each with its trunk (`trunks_first`)."""
        waiting = self._trials if self.trunks_first else ()
        return [(trial, trunk) for trial in waiting if (trunk := self._given_up_trunk(trial)) is not None]

    def _ready(self) -> Iterator[str]:
        last = self.trunks_first and (not self.exhausted or any(map(self._is_new_trunk, self._trials)))
        return (t for t in self._trials if not self.waits_for_parent(t) and not self._comes_last(t, last))

    def _comes_last(self, trial: str, last: bool) -> bool:
        """True for a branch while configurations are to begin (`last`), and while its trunk is given up."""
        if not self.trunks_first:
            return False
        is_branch = self._is_new(trial) and self.state.trials[trial].parent in self.state.trials
        return (last and is_branch) or self._given_up_trunk(trial) is not None

    def _is_new_trunk(self, trial: str) -> bool:
        return self._is_new(trial) and not self.state.trials[trial].parent

    def _given_up_trunk(self, trial: str) -> TrialState | None:
        trunk = given_up_trunk(self.state, self.state.trials[trial])
        return None if trunk is None or trunk.id in self._trials else trunk  # one in the queue is about to go on

    def waits_for_parent(self, trial: str) -> bool:
        """True while the parent that a trial branches off from may still leave a later checkpoint for it."""
        known = self.state.trials[trial]
        if not known.parent or has_begun(known):
            return False
        parent = self.state.trials.get(known.parent)
        if parent is None:
            return not self.exhausted  # the search has yet to name it
        last = parent.last()
        on_its_way = parent.status in (TrialStatus.WAITING, TrialStatus.RUNNING) or parent.id in self._trials
        return on_its_way and (last is None or last.step < known.fork_step)

    def __contains__(self, trial: str) -> bool:
        return trial in self._trials

    def __len__(self) -> int:
        return len(self._trials)
