"""Branches whose trunk is given up short of their fork: how many end with it, and whether a winner is among them.

    python -m benchmarks.plan.given_up_trunks [--seeds 6] [--trials 24] [--promote]

Random searches with every budget, on the recorded worlds of `benchmarks.plan.search`, under the dip-aware rule (strict) and the
product's own controller; with --promote runs go on by their odds (`search.promote`). A winner is one of the three trials with the
best true score at the end of its own budget. One line of JSON: sweeps and trials, `unbegun` branches, winners, those of them that
were given up before and after they began, and the steps that were run.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter

from benchmarks.plan.search import Simulated, World, worlds
from sweeps import Sweep, choice, grid, loguniform, uniform
from sweeps.journal.vocabulary import TrialStatus

TOP = 3


def sweep_of(world: World, configurations: int, seed: int, *, promote: bool) -> Sweep:
    """Returns a random search with all budgets of a world."""
    rates, replays = world.settings()
    return Sweep(
        name="given-up",
        seed=seed,
        space={
            "steps": grid(*world.budgets),
            "data": choice(*world.tiers),
            "learning_rate": loguniform(rates[0], rates[-1]),
            "replay": uniform(replays[0], replays[-1]),
        },
        search={"algorithm": "random", "trials": configurations * len(world.budgets), "promote": promote},
        stopping={"rule": "dip-aware", "top": TOP},
        trainer={"lr_scheduler_type": world.schedule, "warmup_steps": 5},
    )


def counted(world: World, configurations: int, seed: int, *, promote: bool = False) -> Counter[str]:
    """Runs one sweep to its end, and counts."""
    run = Simulated(world, sweep_of(world, configurations, seed, promote=promote)).run()
    specs, trials = run.controller.specs, run.controller.state.trials
    true = {t: world.at(spec.config, spec.steps, spec.steps)[0] for t, spec in specs.items()}
    winners = [trials[t] for t in sorted(true, key=true.__getitem__)[-TOP:]]
    lost = [t for t in winners if t.status is not TrialStatus.COMPLETED]
    return Counter(
        sweeps=1,
        trials=len(trials),
        unbegun=sum(not t.attempt for t in trials.values()),
        winners=len(winners),
        lost_unbegun=sum(not t.attempt for t in lost),
        lost_begun=sum(bool(t.attempt) for t in lost),
        steps=round(run.spent),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--trials", type=int, default=24, help="configurations of each sweep")
    parser.add_argument("--promote", action="store_true", help="with search.promote")
    chosen = parser.parse_args()
    total = Counter[str]()
    for world in worlds():
        for seed in range(chosen.seeds):
            total += counted(world, chosen.trials, seed, promote=chosen.promote)
    names = ("sweeps", "trials", "unbegun", "winners", "lost_unbegun", "lost_begun", "steps")
    print(json.dumps({name: total[name] for name in names}))


if __name__ == "__main__":
    main()
