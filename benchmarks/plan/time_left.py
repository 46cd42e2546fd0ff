"""The time left that a sweep says of itself, against the time that it then took.

    python -m benchmarks.plan.time_left [--only grid heavy] [--ray 2]
    python -m benchmarks.plan.time_left --simulated 200

Runs the sweeps of `benchmarks.plan.actual` one after the other, in this process or on a Ray of so many CPUs, and asks at
25, 50 and 75 % of each one's time how long it takes yet. Writes left / truth, and in how many answers the 80 % range holds
the truth: it is to be 80 % of them or more. On a machine that others use too the pace changes while a sweep runs, and the
range has to cover that.

`--simulated` runs so many sweeps on a clock of their own instead, one machine each: trials differ in speed by a tenth, steps by a
fifth, evaluations by a third, and a machine becomes faster or slower once by a factor of about 1.3 (all log-normal). Loading
takes up to a fifth of the time, of which no row says a cost; the base's evaluation costs 1 to 6 times another one, and one in
twelve of the others 3 to 6 times (as in real journals). They are asked in the middle of a step or an evaluation, too.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.plan.actual import sweeps
from cluster.run_sweep import run, stop_rule
from sweeps import Sweep, grid
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.launch import Launch
from sweeps.journal.state import SweepState, is_base
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.progress import Progress, ProgressMeter
from sweeps.planning.recorded import Scores
from sweeps.planning.simulated_sweep import SimulatedSweep
from sweeps.stopping.base import NeverStop

ASKED = (0.25, 0.5, 0.75)
BAR = 0.8
EPOCH = 1e9


def simulated(seed: int) -> tuple[list[tuple[float, Progress]], float]:
    """Runs a sweep on a simulated clock; returns where it said it stood, by time, and when it ended."""
    draw = random.Random(seed)
    trials, steps, score = draw.randint(2, 10), draw.choice((80, 200, 400)), draw.uniform(2, 60)
    space = {"replay": grid(*[i / 20 for i in range(trials)])}
    plan = Plan(Sweep(name="s", space=space, trainer={"steps": steps}, evaluation={"items": 10}))
    rule = NeverStop(plan.sweep.goal)
    state = SweepState(history=rule.history)
    meter, now = ProgressMeter(plan, state), 1e9
    controller = SweepController(
        plan, MemoryJournal(), rule, state=state, subscribers=[lambda row: meter.apply(row, now)]
    )
    turn, turned, done = draw.random() * trials, math.exp(draw.gauss(0, 0.26)), 0.0
    told: list[tuple[float, Progress]] = []

    def spend(seconds: float) -> None:
        nonlocal now
        for _ in range(2):
            now += seconds / 2 * (turned if done > turn else 1.0)
            if told:
                told.append((now, meter.progress(now)))

    def scored() -> None:
        while (job := controller.next_eval()) is not None:
            slow = draw.uniform(1, 6) if is_base(job.trial) else draw.choice((*[1.0] * 11, draw.uniform(3, 6)))
            seconds = score * slow * math.exp(draw.gauss(0, 0.3))
            spend(seconds)
            scores = {"transfer/score": 0.5}
            controller.scored(job, scores, se={}, n={}, suite="s", cost={"cpu_s": seconds})
            told.append((now, meter.progress(now)))

    loading = draw.random() * 0.2 * trials * steps
    while (launch := controller.next()) is not None:
        now, loading = now + loading, 0.0
        spec, cost, pace = launch.spec, 0.0, math.exp(draw.gauss(0, 0.1))
        scored()
        for step in sorted({*range(10, steps + 1, 10), *spec.snapshots}):
            seconds = pace * 10 * math.exp(draw.gauss(0, 0.2))
            spend(seconds)
            cost, done = cost + seconds, done + 10 / steps
            controller.report(spec.id, launch.attempt, step, {"train/loss": 1 / step}, cost={"cpu_s": cost})
            if step in spec.snapshots:
                controller.saved(spec.id, launch.attempt, Saved(step, f"{spec.id}/{step}"))
                scored()
            told.append((now, meter.progress(now)))
        controller.trained(spec.id, launch.attempt)
    return told, now


class SeveralMachines(SimulatedSweep):
    """A sweep of 2 to 6 machines with the dip-aware rule, which pauses trials and takes them up again; scores are made up.

    Trials differ in speed by a tenth, each span between two checkpoints by a fifth; evaluations, on machines of their own, by a
    third. Where `ask` is given, it notes where the sweep says that it stands when those times have come.
    """

    def __init__(self, seed: int, ask: Sequence[float] = ()) -> None:
        draw = self.draw = random.Random(seed)
        space = {"replay": grid(*[i / 50 for i in range(draw.randint(8, 24))])}
        rule = {"rule": "dip-aware", "top": 2}
        trainer = {"steps": draw.choice((80, 200, 400))}
        plan = Plan(Sweep(name="s", space=space, stopping=rule, trainer=trainer, evaluation={"items": 10}))
        stop = stop_rule(plan.sweep)
        state = SweepState(history=stop.history)
        self.meter = ProgressMeter(plan, state)
        self.now = 0.0
        controller = SweepController(
            plan, MemoryJournal(), stop, state=state, subscribers=[lambda row: self.meter.apply(row, EPOCH + self.now)]
        )
        super().__init__(controller, draw.randint(2, 6))
        self.pace, self.cost = dict[str, float](), defaultdict[tuple[str, int], float](float)
        self.good = {trial.id: draw.gauss(0, 0.1) for trial in plan.known_trials()}
        self.score_s = draw.uniform(0.02, 0.2) * trainer["steps"] / 13
        self.ask, self.told = list(ask), list[tuple[float, Progress]]()

    def step(self, trial: str) -> float:
        pace = self.pace.setdefault(trial, math.exp(self.draw.gauss(0, 0.1)))
        return pace * math.exp(self.draw.gauss(0, 0.2))

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        took = (
            self.score_s * math.exp(self.draw.gauss(0, 0.3)) * (self.draw.uniform(1, 6) if is_base(job.trial) else 1.0)
        )
        way = job.step / self.controller.specs[job.trial].steps if not is_base(job.trial) else 0.0
        gain = self.good[job.trial] * way if way else 0.0
        return took, {"transfer/score": (0.5 + gain + self.draw.gauss(0, 0.02), 0.02)}

    def _go(self, launch: Launch, step: int, ahead: tuple[int, ...]) -> None:
        before = self.spent
        super()._go(launch, step, ahead)
        self.cost[launch.spec.id, launch.attempt] += self.spent - before

    def _arrive(self) -> None:
        at, _, launch, ahead = self.heap[0]
        while self.ask and self.ask[0] <= at:
            self.told.append((self.ask[0], self.meter.progress(EPOCH + self.ask.pop(0))))
        self.now = at
        if ahead:
            cost = {"cpu_s": self.cost[launch.spec.id, launch.attempt]}
            self.controller.report(launch.spec.id, launch.attempt, ahead[0], {"train/loss": 1.0}, cost=cost)
        super()._arrive()

    def run(self) -> float:
        """Runs to the end; returns when that is."""
        while self.advance():
            pass
        return self.now


def on_several_machines(seed: int) -> list[tuple[float, Progress]]:
    """Returns the seconds that were left at each of `ASKED`, and what the sweep said then."""
    end = SeveralMachines(seed).run()
    world = SeveralMachines(seed, [share * end for share in ASKED])
    assert world.run() == end
    return [(end - at, progress) for at, progress in world.told]


def held_on_several_machines(runs: int) -> list[int]:
    """Writes, and returns, in how many answers of simulated sweeps the range held the truth, at each of `ASKED`."""
    answers = [on_several_machines(seed) for seed in range(runs)]
    held = []
    for i, share in enumerate(ASKED):
        known = [(truth, p.left) for truth, p in (one[i] for one in answers) if p.left is not None]
        held.append(sum(left.low <= truth <= left.high for truth, left in known))
        off = sorted(left.value / truth for truth, left in known)
        low, middle, high = off[len(off) // 10], off[len(off) // 2], off[-1 - len(off) // 10]
        spread = f"{low:.2f} to {high:.2f} in 80 % of them, median {middle:.2f}"
        print(f"at {share:.0%}: held {held[-1]} of {runs}; left / truth {spread}")
    return held


def held_in(runs: int) -> None:
    """Writes in how many answers of simulated sweeps the range held the truth."""
    for share in ASKED:
        held, off = 0, list[float]()
        for seed in range(runs):
            told, end = simulated(seed)
            begin = told[0][0]
            at, progress = min(told, key=lambda one, b=begin, e=end: abs(one[0] - b - share * (e - b)))
            if progress.left is not None:
                held += progress.left.low <= end - at <= progress.left.high
                off.append(progress.left.value / (end - at))
        off.sort()
        print(f"at {share:.0%}: held {held} of {runs}; left / truth {off[len(off) // 10]:.2f} to {off[-1 - len(off) // 10]:.2f} "
              f"in 80 % of them, median {off[len(off) // 2]:.2f}")  # fmt: skip


def only_good(line: str) -> None:
    """Fails on a sweep that no longer tells where it stands: its last answers would be taken for those asked for."""
    if "progress is unknown" in line:
        raise SystemExit(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of sweeps; default all")
    parser.add_argument("--ray", type=int, default=0, help="CPUs of a Ray to run on; default is this process")
    parser.add_argument("--simulated", type=int, default=0, help="so many sweeps on a clock of their own instead")
    args = parser.parse_args()
    if args.simulated:
        print("one machine")
        held_in(args.simulated)
        print("several machines, stop rule")
        held_on_several_machines(args.simulated)
        return
    held = asked = 0
    print(f"{'sweep':18} {'seconds':>8}   " + "   ".join(f"at {share:.0%}: left / truth, range" for share in ASKED))
    for name, sweep in sweeps().items():
        if args.only and name not in args.only:
            continue
        told: list[tuple[float, Progress]] = []
        with tempfile.TemporaryDirectory() as folder:
            run(
                sweep,
                storage=folder,
                backend="ray" if args.ray else "in-process",
                cpus=args.ray or None,
                say=only_good,
                on_progress=lambda progress, told=told: told.append((time.monotonic(), progress)),
            )
            end = time.monotonic()
        began, cells = told[0][0], []
        for share in ASKED:
            at, progress = min(told, key=lambda one, share=share: abs(one[0] - began - share * (end - began)))
            truth, left = end - at, progress.left
            asked += 1
            if left is None:
                cells.append(f"nothing said of {truth:.0f} s")
                continue
            within = left.low <= truth <= left.high
            held += within
            cells.append(
                f"{left.value / truth:.2f} ({left.low / truth:.2f} to {left.high / truth:.2f}){'' if within else ' !'}"
            )
        print(f"{name:18} {end - began:7.0f}s   " + "   ".join(cells), flush=True)
    reached = "reached" if held >= BAR * asked else "missed"
    print(
        f"the range held the truth in {held} of {asked} answers ({held / max(asked, 1):.0%}): the bar of {BAR:.0%} is {reached}"
    )


if __name__ == "__main__":
    main()
