"""DipAware in plain Optuna: your own objective, our pruner, nothing else of dipsweep.

    python examples/plain_optuna.py

The objective is scripted: a learning rate that is too high collapses, a middling one dips and recovers, a low one rises
slowly. It reports its score after each evaluation and asks `should_prune`, as with any pruner.
"""

from __future__ import annotations

import math
import random

import optuna

from sweeps.stopping.optuna_pruner import RulePruner

BUDGET = 640  # optimizer steps of a run
BASE = 0.40  # the base model's score
SE = 0.012  # standard error of one evaluation


def score(lr: float, number: int, step: int) -> float:
    """What an evaluation after `step` steps would give."""
    x = step / BUDGET
    heat = math.log10(lr) + 5.0  # 0 at 1e-5, 2 at 1e-3
    fall = -0.12 * heat * min(x / 0.06, 1.0)
    back = 0.0 if heat > 1.4 else (0.05 + 0.22 * heat) * (1 - math.exp(-4 * max(x - 0.06, 0.0)))
    return BASE + fall + back + random.Random(f"{number}-{step}").gauss(0.0, SE)


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 1e-3, log=True)
    trial.set_user_attr("se", SE)
    trial.report(BASE, 0)
    for step in range(20, BUDGET + 1, 20):
        value = score(lr, trial.number, step)
        trial.report(value, step)
        if step < BUDGET and trial.should_prune():
            raise optuna.TrialPruned
    return value


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = RulePruner(budget=BUDGET, top=2)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(objective, n_trials=16)
    for trial in study.trials:
        print(f"lr {trial.params['lr']:.1e}: {trial.state.name.lower()} at step {trial.last_step}, {trial.value:.3f}")
        if trial.state == optuna.trial.TrialState.PRUNED:
            print(f"    {pruner.verdicts[trial.number].reason}")
    print(f"best: lr {study.best_params['lr']:.1e}, {study.best_value:.3f}")


if __name__ == "__main__":
    main()
