"""A sweep on a simulated clock: the product's own controller, and checkpoints and scores that a world makes up."""

from __future__ import annotations

import heapq

from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.launch import Launch
from sweeps.planning.recorded import Scores


class SimulatedSweep:
    """A heap of (time, order, launch, checkpoints ahead), one entry a busy machine. A world says what things cost and score."""

    def __init__(self, controller: SweepController, machines: int) -> None:
        self.controller, self.free = controller, machines
        self.spent = 0.0
        self.heap: list[tuple[float, int, Launch, tuple[int, ...]]] = []
        self.order, self.now = 0, 0.0

    def start_up(self, trial: str) -> float:
        """Returns what an attempt takes before its first step."""
        return 0.0

    def step(self, trial: str) -> float:
        """Returns what a step of a trial takes."""
        return 1.0

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        """Returns what an evaluation takes, and what it finds."""
        raise NotImplementedError

    def advance(self) -> bool:
        """Goes on to the next checkpoint; False once the sweep has ended.

        Raises:
            StrategyError: its stop rule or its search cannot go on.
        """
        self.controller.raise_if_broken()
        self.fill()
        self._score()  # what an earlier driver left, where nothing starts
        if self.heap:
            self._arrive()
            return True
        return not self.controller.finish_if_done()

    def fill(self) -> None:
        """Starts what waits on the machines that are free."""
        while self.free and (launch := self.controller.next()) is not None:
            begin = launch.resume.step if launch.resume else 0
            self.spent += self.start_up(launch.spec.id)
            self.free -= 1
            self._score()
            self._go(launch, begin, tuple(s for s in sorted(launch.spec.saves) if s > begin))

    def _go(self, launch: Launch, step: int, ahead: tuple[int, ...]) -> None:
        took = self.step(launch.spec.id) * (ahead[0] - step if ahead else 0)
        self.spent += took
        self.order += 1
        heapq.heappush(self.heap, (self.now + took, self.order, launch, ahead))

    def _arrive(self) -> None:
        self.now, _, launch, ahead = heapq.heappop(self.heap)
        trial, attempt = launch.spec.id, launch.attempt
        if ahead:
            self.controller.saved(trial, attempt, Saved(ahead[0], f"memory://{trial}/{ahead[0]}"))
        if len(ahead) <= 1:
            self.controller.trained(trial, attempt)
        self._score()
        if len(ahead) > 1 and self.controller.is_current_attempt(trial, attempt):
            self._go(launch, ahead[0], ahead[1:])
        else:
            self.free += 1

    def _score(self) -> None:
        while (job := self.controller.next_eval()) is not None:
            took, found = self.scores(job)
            self.spent += took
            metrics = {m: value for m, (value, _) in found.items()}
            errors = {m: se for m, (_, se) in found.items() if se is not None}
            self.controller.scored(
                job, metrics, se=errors, n={}, suite="recorded", cost={"cpu_s": took} if took else {}
            )
