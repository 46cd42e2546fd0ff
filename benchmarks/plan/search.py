"""A search with budgets as fidelity against random search and against the longest budget alone, on recorded curves.

    python -m benchmarks.plan.search [--seeds 20] [--trials 24] [--worlds 4] [--out search.json]

Each world is a recorded sweep of fine-tunes with several budgets, crossed over rate, replay and data
(`benchmarks/stopping/recorded_more.jsonl.gz`). Between its recorded settings a curve is the mean of the nearest recorded ones,
weighted by the distance in log rate and in replay; every score is drawn anew around it with its recorded standard error. The
sweep runs on a simulated clock of four machines with the product's own controller, search and stop rule; budgets share their
trunk as they would. Every way has as many steps as random search takes for `--trials` configurations run to the longest budget.

Told is, for each way to search: the share of random search's steps after which it holds something as good as random search's
final best (all of them where it never does), the median and the range of all but the outer tenths over seeds and
worlds; and how much better the true score of what it holds is than that of TPE on the longest budget alone, at equal steps, the
mean with its standard error, over the seeds and worlds where both hold something by then.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.run_sweep import stop_rule
from sweeps import Sweep, choice, grid, loguniform, uniform
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.shared_prefix import TIED
from sweeps.config.trial import trial_id
from sweeps.controller.controller import SweepController
from sweeps.journal.history import History
from sweeps.journal.state import is_base
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.recorded import Scores
from sweeps.planning.simulated_sweep import SimulatedSweep
from sweeps.report.replay import read_rows
from sweeps.setting_names import current_names

RECORDED = Path("benchmarks/stopping/recorded_more.jsonl.gz")
METRIC = "transfer/score"
SLOTS = 4
AT = (0.3, 0.5, 0.7, 1.0)
"""Shares of random search's steps at which searches are compared."""
ALONE = "tpe, longest budget"
WAYS = {
    "random": ("random", False, "none", False),
    ALONE: ("optuna-tpe", False, "none", False),
    "tpe, longest budget, stop rule": ("optuna-tpe", False, "dip-aware", False),
    "tpe, longest budget, promoted": ("optuna-tpe", False, "dip-aware", True),
    "tpe, budgets, stop rule": ("optuna-tpe", True, "dip-aware", False),
    "tpe, budgets, promoted": ("optuna-tpe", True, "dip-aware", True),
}
"""Algorithm, whether all budgets are tried, the stop rule, and whether runs are promoted by its odds, by the way's name."""


@dataclass(frozen=True)
class World:
    """Recorded curves by (budget, data), each with its rate and replay; base score with its error."""

    name: str
    curves: Mapping[tuple[int, str], Sequence[tuple[float, float, Mapping[int, tuple[float, float]]]]]
    base: tuple[float, float]
    schedule: str

    @property
    def budgets(self) -> list[int]:
        return sorted({budget for budget, _ in self.curves})

    @property
    def tiers(self) -> list[str]:
        return sorted({data for _, data in self.curves})

    def settings(self) -> tuple[list[float], list[float]]:
        """Recorded rates and replays, ascending."""
        points = [(rate, replay) for found in self.curves.values() for rate, replay, _ in found]
        return sorted({r for r, _ in points}), sorted({p for _, p in points})

    def at(self, config: Mapping[str, Any], budget: int, step: int) -> tuple[float, float]:
        """True score and its standard error at a step: bilinear in log rate and replay, linear between recorded steps."""
        rates, replays = self.settings()
        u = _place(math.log(config["learning_rate"]), [math.log(r) for r in rates])
        v = _place(float(config["replay"]), replays)
        value = error = total = 0.0
        for rate, replay, curve in self.curves[budget, config["data"]]:
            weight = u.get(rates.index(rate), 0.0) * v.get(replays.index(replay), 0.0)
            if weight:
                score, se = _between(curve, step)
                value, error, total = value + weight * score, error + weight * se, total + weight
        return value / total, error / total


def _place(x: float, at: Sequence[float]) -> dict[int, float]:
    """Weights of the two neighbours of `x`."""
    right = min(max(next((i for i, a in enumerate(at) if a >= x), len(at) - 1), 1), len(at) - 1)
    share = min(max((x - at[right - 1]) / (at[right] - at[right - 1]), 0.0), 1.0)
    return {right - 1: 1 - share, right: share}


def _between(curve: Mapping[int, tuple[float, float]], step: int) -> tuple[float, float]:
    steps = sorted(curve)
    if step <= steps[0] or step >= steps[-1]:
        return curve[steps[0] if step <= steps[0] else steps[-1]]
    right = next(s for s in steps if s >= step)
    left = max(s for s in steps if s <= step)
    share = (step - left) / (right - left) if right > left else 0.0
    return curve[left][0] * (1 - share) + curve[right][0] * share, curve[left][1]


def worlds() -> list[World]:
    """The recorded sweeps with budgets that can share a trunk, whose rates and replays are crossed in full."""
    by_sweep: dict[str, list[Any]] = defaultdict(list)
    for row in read_rows(RECORDED):
        by_sweep[row.sweep].append(row)
    found = []
    for name, rows in by_sweep.items():
        history = History(rows)
        curves: dict[tuple[int, str], list[Any]] = defaultdict(list)
        seeds, schedule = set(), ""
        for curve in history.trials():
            config = current_names(curve.config)
            seeds.add(config.get("seed"))
            schedule = str(config["lr_scheduler_type"])
            scores = {
                s: (curve.points[s].metrics[METRIC], curve.points[s].se.get(METRIC, 0.0))
                for s in curve.steps(METRIC)
                if s
            }
            key = int(config["steps"]), str(config["data"])
            curves[key].append((float(config["learning_rate"]), float(config["replay"]), scores))
        base = next((c.points[0] for c in history.base.values() if 0 in c.points), None)
        one = World(name, curves, (base.metrics[METRIC], base.se.get(METRIC, 0.0)) if base else (0.0, 0.0), schedule)
        rates, replays = one.settings()
        whole = all(len(found) == len(rates) * len(replays) for found in curves.values())
        if (
            schedule not in TIED
            and len(one.budgets) > 1
            and len(seeds) == 1
            and len(rates) > 1
            and len(replays) > 1
            and whole
            and base
        ):
            found.append(one)
    return found


def sweep_of(world: World, way: str, configurations: int, seed: int) -> Sweep:
    algorithm, all_budgets, rule, promote = WAYS[way]
    configurations *= 1 if rule == "none" else 3  # what stopping saves goes into more of them
    rates, replays = world.settings()
    budgets = world.budgets if all_budgets else world.budgets[-1:]
    return Sweep(
        name="search",
        seed=seed,
        space={
            "steps": grid(*budgets),
            "data": choice(*world.tiers),
            "learning_rate": loguniform(rates[0], rates[-1]),
            "replay": uniform(replays[0], replays[-1]),
        },
        search={"algorithm": algorithm, "trials": configurations * len(budgets), "promote": promote},
        stopping={"rule": rule, "top": 3},
        trainer={"lr_scheduler_type": world.schedule, "warmup_steps": 5},
    )


class Simulated(SimulatedSweep):
    """One sweep in a world. `held` is what it holds for best, (steps spent, true score), whenever that changes."""

    def __init__(self, world: World, sweep: Sweep) -> None:
        super().__init__(SweepController(Plan(sweep), MemoryJournal(), stop_rule(sweep), home="memory://"), SLOTS)
        self.world, self.noise = world, random.Random(sweep.seed)
        self.best, self.held = -math.inf, list[tuple[float, float]]()

    def run(self, most: float = math.inf) -> Simulated:
        """Runs it to its end, or until so many steps are spent."""
        while True:
            self.fill()
            if self.spent >= most or not self.advance():
                return self

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        if is_base(job.trial):
            return 0.0, {METRIC: self.world.base}
        spec = self.controller.specs[job.trial]
        true, error = self.world.at(spec.config, spec.steps, job.step)
        score = true + error * self.noise.gauss(0.0, 1.0)
        if job.step == spec.steps == self.world.budgets[-1] and score > self.best:
            self.best = score
            self.held.append((self.spent, true))
        return 0.0, {METRIC: (score, error)}


def held_at(held: Sequence[tuple[float, float]], spent: float) -> float:
    """The true score of what a search holds for best after so many steps; not a number before it holds anything."""
    return next((true for steps, true in reversed(held) if steps <= spent), math.nan)


def _told(values: Sequence[float], digits: int = 3) -> str:
    order = sorted(values)
    outer = len(order) // 10
    middle, low, high = (f"{v:.{digits}f}" for v in (statistics.median(order), order[outer], order[-1 - outer]))
    return f"{middle} ({low} to {high})"


def _mean(values: Sequence[float]) -> str:
    known = [v for v in values if math.isfinite(v)]
    if len(known) < 2:
        return "–"
    return f"{statistics.fmean(known):+.3f} +- {statistics.stdev(known) / math.sqrt(len(known)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24, help="configurations of each search")
    parser.add_argument("--worlds", type=int, default=99, help="at most so many recorded sweeps")
    parser.add_argument("--out", type=Path, help="write every number here, as JSON")
    chosen = parser.parse_args()
    shares: dict[str, list[float]] = defaultdict(list)
    ahead: dict[str, list[list[float]]] = defaultdict(list)
    tried: dict[str, list[float]] = defaultdict(list)
    for world in worlds()[: chosen.worlds]:
        for seed in range(chosen.seeds):
            runs = {way: Simulated(world, sweep_of(world, way, chosen.trials, seed)) for way in WAYS}
            whole = runs["random"].run().spent
            for run in runs.values():
                run.run(whole)
            final = runs["random"].held[-1][1]
            for way, run in runs.items():
                reached = next((steps for steps, true in run.held if true >= final - 1e-9), None)
                shares[way].append(math.inf if reached is None else reached / whole)
                ahead[way].append([held_at(run.held, a * whole) - held_at(runs[ALONE].held, a * whole) for a in AT])
                tried[way].append(len({trial_id({**s.config, "steps": 0}) for s in run.controller.specs.values()}))
        print(f"{world.name}: budgets {world.budgets}, {len(world.tiers)} tiers, {chosen.seeds} seeds", flush=True)
    heads = "".join(f"{f'at {a:.0%}':>18}" for a in AT)
    print(f"\n{'way':32} {'configurations':>24} {'as good as random after':>28} {'never':>6}{heads}")
    for way in WAYS:
        after = [min(s, 1.0) for s in shares[way]]
        never = sum(not math.isfinite(s) for s in shares[way])
        better = "".join(f"{_mean(column):>18}" for column in zip(*ahead[way], strict=True))
        print(f"{way:32} {_told(tried[way], 0):>24} {_told(after):>28} {never:6}{better}")
    if chosen.out:
        data = {
            "shares": {w: [s if math.isfinite(s) else None for s in v] for w, v in shares.items()},
            "ahead": ahead,
            "tried": tried,
        }
        chosen.out.write_text(json.dumps(data) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
