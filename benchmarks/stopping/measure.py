"""Measures stop rules in generated worlds: winners lost against compute saved, one line a rule.

    python -m benchmarks.stopping.measure --worlds published broad shifted --sweeps 300 \
        --rules dip-aware dip-aware:protect=soft asha median

Lost: share of the true top k that was not run to its budget. Material: those of them that truly beat rank k+1 by more
than one point. Regret: true score of the best trial minus that of the trial one would pick by the last three reports.
Saved: compute not spent, resumes charged. Trials a second are per second of CPU. Errors are over sweeps (trials of one
sweep share their fate). --processes shares out the sweeps; the figures are the same but for trials a second.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.stopping.lc_prior import rule_of
from benchmarks.stopping.worlds import METRIC, WORLDS, Generated, generate, goal
from sweeps.config.objective import Goal
from sweeps.executors.simulated import Outcome, simulate
from sweeps.stopping.base import Action, StopRule, Verdict

HELD_OUT = 100_000  # first held-out seed; everything below TUNING may be looked at while tuning
TUNING = 1_000
POINT = 0.01


class Fare(NamedTuple):
    """How one sweep fared under one rule; all but the last three are shares or points of the score's unit."""

    lost: float
    material: float
    best_lost: float
    dip_lost: float
    regret: float
    saved: float
    span: float
    expected: float  # sum of P(top k) over what was pruned, as a share of k: what the rule believed it lost
    seconds: float  # of CPU


def fare(sweep: Generated, outcome: Outcome, top: int, seconds: float) -> Fare:
    """Judges one simulated sweep against the truth."""
    winners = sweep.winners(top)
    fourth = sorted(sweep.truth.values(), reverse=True)[top] if len(sweep.truth) > top else -math.inf
    gone = [t for t in winners if not outcome.completed(t)]
    dips = [t for t in winners if sweep.family[t] == "dip"]
    done = [t for t in sweep.truth if outcome.completed(t)] or list(sweep.truth)
    picked = max(done, key=lambda t: sweep.last_scores[t])
    believed = [
        r.verdict.evidence.get("p_top", 0.0) for r in outcome.runs.values() if r.ended == "pruned" and r.verdict
    ]
    return Fare(
        len(gone) / top,
        sum(sweep.truth[t] > fourth + POINT for t in gone) / top,
        float(winners[0] in gone),
        sum(t in gone for t in dips) / len(dips) if dips else math.nan,
        sweep.truth[winners[0]] - sweep.truth[picked],
        outcome.saved,
        outcome.makespan,
        sum(believed) / top,
        seconds,
    )


class Oracle(StopRule):
    """Knows the winners and stops all others at their first report: how much could be saved at no loss."""

    name = "oracle"

    def __init__(self, goal: Goal, winners: Sequence[str]) -> None:
        super().__init__(goal)
        self.winners = frozenset(winners)

    def decide(self, trial: str) -> Verdict:
        return Verdict(Action.CONTINUE if trial in self.winners else Action.STOP, "the oracle knows")


def measure(
    world: str,
    text: str,
    seeds: Sequence[int],
    *,
    trials: int = 32,
    top: int = 3,
    workers: int = 8,
    noise: float = 1.0,
    pool: Executor,
) -> list[Fare]:
    """Runs a rule, as it stands on a command line, over the sweeps of a world; `oracle` is one more rule here.

    Args:
        pool: whose processes share the sweeps.
    """
    one = partial(measure_one, world, text, trials=trials, top=top, workers=workers, noise=noise)
    return list(pool.map(one, seeds))


def measure_one(world: str, text: str, seed: int, *, trials: int, top: int, workers: int, noise: float) -> Fare:
    """Runs a rule over one sweep of a world."""
    sweep = generate(world, seed, trials=trials, noise=noise)
    rule = Oracle(goal(top), sweep.winners(top)) if text == "oracle" else rule_of(text, goal(top))
    began = time.process_time()
    outcome = simulate(sweep.recordings, rule, workers=workers, shared=sweep.shared)
    return fare(sweep, outcome, top, time.process_time() - began)


def summary(fares: Sequence[Fare], trials: int) -> dict[str, float]:
    """Means over sweeps, in percent and points, with the standard error of `lost`."""
    table = np.array(fares)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a world without dips has no mean of them
        mean = dict(zip(Fare._fields, np.nanmean(table, axis=0), strict=True))
    out = {k: 100 * float(v) for k, v in mean.items() if k not in ("span", "seconds")}
    out["lost_se"] = 100 * float(np.std(table[:, 0])) / math.sqrt(len(table))
    out["trials_per_second"] = trials / float(mean["seconds"])
    return out


def line(name: str, s: dict[str, float]) -> str:
    return (
        f"{name:44s} lost {s['lost']:5.2f} +-{s['lost_se']:4.2f}  material {s['material']:5.2f}  best {s['best_lost']:5.1f}"
        f"  dips {s['dip_lost']:5.1f}  regret {s['regret']:6.3f}  saved {s['saved']:5.1f}"
        f"  believed {s['expected']:5.2f}  {s['trials_per_second']:5.0f} trials/s"
    )


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    p.add_argument("--rules", nargs="+", default=["none", "dip-aware", "dip-aware:protect=soft", "asha", "median"])
    p.add_argument("--sweeps", type=int, default=300)
    p.add_argument("--first-seed", type=int, default=HELD_OUT)
    p.add_argument("--trials", type=int, default=32)
    p.add_argument("--top", type=int, default=3)
    p.add_argument("--noise", type=float, default=1.0, help="multiplies the evaluation's standard error")
    p.add_argument("--json", default="")
    p.add_argument("--processes", type=int, default=1, help="that share the sweeps")
    a = p.parse_args(argv)
    seeds = range(a.first_seed, a.first_seed + a.sweeps)
    table: dict[str, dict[str, dict[str, float]]] = {}
    with ProcessPoolExecutor(a.processes) as pool:
        for world in a.worlds:
            print(
                f"{world}: {a.sweeps} sweeps of {a.trials} trials from seed {a.first_seed}, top {a.top}, metric {METRIC}"
            )
            for text in a.rules:
                fares = measure(world, text, seeds, trials=a.trials, top=a.top, noise=a.noise, pool=pool)
                table.setdefault(world, {})[text] = s = summary(fares, a.trials)
                print(line(text, s), flush=True)
    if a.json:
        with open(a.json, "w") as out:
            json.dump(table, out, indent=1)


if __name__ == "__main__":
    main()
