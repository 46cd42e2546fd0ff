"""Has the rule an answer to every curve? Generated curves of all kinds through its three adapters; any exception is an error.

    python -m benchmarks.stopping.any_curves --curves 100000 [--part 0/2]

Sweeps of up to eight curves: on any scale, flat, tied, jumping, infinite, not a number, missing, told twice, out of order, with
errors that are right, absent, zero, negative, infinite or no number. Each goes through the rows of a journal, Optuna's pruner and
Ray Tune's scheduler. A verdict must have a reason of one line and evidence that is JSON, and odds must be probabilities; a number
that turns infinite or is none on the way (NumPy's warnings) counts as an exception.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np
import optuna

from sweeps.config.objective import Goal
from sweeps.journal.rows import AttemptRow, ReportRow, Row, TrialRow, split_finite
from sweeps.stopping.base import Action, Verdict
from sweeps.stopping.noise import as_number, standard_error
from sweeps.stopping.optuna_pruner import METRIC, RulePruner
from sweeps.stopping.registry import make_rule

BUDGET: Final = 100
MOST_CURVES, MOST_REPORTS = 8, 10
ODD: Final = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e300, -1e300, 1e308, 1e-320, 1e12, None)


class Told(NamedTuple):
    """One report: None as its score stands for one that is missing."""

    step: int
    score: float | None
    error: float | None


class Drawn(NamedTuple):
    """A sweep: its curves, and how the rule is set."""

    curves: list[list[Told]]
    settings: dict[str, Any]
    top: int
    maximize: bool
    base: float | None


def drawn(seed: int) -> Drawn:
    """Draws a sweep; the same one for the same seed."""
    rng = np.random.default_rng([seed, 11])
    scale = 10.0 ** (rng.uniform(-2, 2) if rng.random() < 0.6 else rng.uniform(-200, 200))
    offset = scale * rng.choice([0.0, 1.0, -1e3, 1e9])
    error = rng.choice(["right", "absent", "odd"])
    curves = [_curve(rng, scale, offset, str(error)) for _ in range(rng.integers(1, MOST_CURVES + 1))]
    settings: dict[str, Any] = {}
    if rng.random() < 0.3:
        settings["protect"] = "soft"
    if rng.random() < 0.3:
        settings["max_lost_winners"] = float(rng.uniform(0.01, 0.9))
    base = None if rng.random() < 0.5 else float(offset)
    return Drawn(curves, settings, int(rng.integers(1, 4)), bool(rng.random() < 0.7), base)


def _curve(rng: np.random.Generator, scale: float, offset: float, error: str) -> list[Told]:
    count = int(rng.integers(1, MOST_REPORTS + 1))
    steps = np.sort(rng.choice(np.arange(1, BUDGET + 1), count, replace=False))
    x = steps / BUDGET
    form = rng.choice(["flat", "rise", "dip", "fall", "jump", "noise", "tied", "steps"])
    low, late = rng.uniform(0.0, 1.0, 2)
    scores = {
        "flat": np.full(count, low),
        "rise": 1.0 - np.exp(-x / (0.05 + late)),
        "dip": -low * (x < 0.3) + late * x,
        "fall": -low * x,
        "jump": low * (x > late),
        "noise": rng.normal(size=count),
        "tied": np.round(rng.uniform(0, 0.3, count), 1),
        "steps": np.floor(4 * x) / 4,
    }[str(form)]
    values: list[float | None] = [float(v) for v in offset + scale * (scores + 0.02 * rng.normal(size=count))]
    if form in ("flat", "tied", "steps"):
        values = [float(v) for v in offset + scale * scores]
    for i in range(count):
        if rng.random() < 0.12:
            values[i] = ODD[rng.integers(len(ODD))]
    told = [Told(int(s), v, _error(rng, scale, error)) for s, v in zip(steps, values, strict=True)]
    if rng.random() < 0.2:
        told.append(told[int(rng.integers(count))])  # told twice
    if rng.random() < 0.15:
        told.append(told[0]._replace(score=float(offset)))  # and corrected
    if rng.random() < 0.2:
        told = [told[i] for i in rng.permutation(len(told))]
    return told


def _error(rng: np.random.Generator, scale: float, kind: str) -> float | None:
    if kind == "right":
        return float(0.02 * scale)
    return None if kind == "absent" else (0.0, -1.0, math.nan, math.inf, 1e-300, 1e200, None)[rng.integers(7)]


def order(sweep: Drawn, seed: int) -> list[int]:
    """Returns whose report comes next, curve by curve mixed."""
    turns = [i for i, curve in enumerate(sweep.curves) for _ in curve]
    return [turns[i] for i in np.random.default_rng([seed, 12]).permutation(len(turns))]


def check(verdict: Verdict) -> None:
    """Raises ValueError where a verdict is not one."""
    odds = [verdict.evidence[k] for k in ("p_top", "p_feasible", "p_halfway") if k in verdict.evidence]
    if not all(0.0 <= p <= 1.0 for p in odds):
        raise ValueError(f"odds {odds} are no probabilities")
    if not verdict.reason or "\n" in verdict.reason:
        raise ValueError(f"reason {verdict.reason!r} is not one line")
    json.dumps(dict(verdict.evidence), allow_nan=False)


def through_rows(sweep: Drawn, turns: Sequence[int]) -> None:
    """Tells a rule the rows of a journal, asks it after each, and lets paused trials come back."""
    rule = make_rule("dip-aware", Goal(METRIC, sweep.maximize, sweep.top), **sweep.settings)
    if sweep.base is not None:
        rule.observe(ReportRow("", "base-", step=0, metrics={METRIC: sweep.base}, se={METRIC: 0.02}))
    left, paused = [list(curve) for curve in sweep.curves], dict[str, None]()
    for i in range(len(left)):
        rule.observe(TrialRow("", str(i), budget=BUDGET, config={"model": ""}))
    for i in turns:
        told = left[i].pop(0)
        rule.observe(_report(str(i), told))
        verdict = rule.decide(str(i))
        check(verdict)
        if verdict.action is Action.PAUSE:
            paused[str(i)] = None
        if paused and (chosen := rule.choose_trial_to_resume(list(paused))) is not None:
            del paused[chosen]
            rule.observe(AttemptRow("", chosen, step=told.step))


def _report(trial: str, told: Told) -> Row:
    good, bad = split_finite({} if told.score is None else {METRIC: told.score})
    se = standard_error(as_number(told.error))
    return ReportRow("", trial, step=told.step, metrics=good, invalid=bad, se={METRIC: se} if se and good else {})


def through_optuna(sweep: Drawn, turns: Sequence[int]) -> None:
    """Reports to Optuna's trials, which cannot report what is missing, and asks whether to prune."""
    pruner = RulePruner(budget=BUDGET, top=sweep.top, **sweep.settings)
    study = optuna.create_study(direction="maximize" if sweep.maximize else "minimize", pruner=pruner)
    trials, left = [study.ask() for _ in sweep.curves], [list(curve) for curve in sweep.curves]
    open_trials = set(range(len(trials)))
    for i in turns:
        told = left[i].pop(0)
        if i not in open_trials or told.score is None:
            continue
        if told.error is not None:
            trials[i].set_user_attr("se", told.error)
        trials[i].report(told.score, told.step)
        if trials[i].should_prune():
            study.tell(trials[i], state=optuna.trial.TrialState.PRUNED)
            open_trials.discard(i)
        check(pruner.verdicts[i])


def through_ray(sweep: Drawn, turns: Sequence[int]) -> None:
    """Hands results to Ray Tune's scheduler as its controller does, and asks it whom to run."""
    from cluster.tune.rule_scheduler import RuleScheduler

    base = {} if sweep.base is None else {"": {METRIC: sweep.base}}
    mode = "max" if sweep.maximize else "min"
    scheduler = RuleScheduler(METRIC, mode, top=sweep.top, budget=BUDGET, base=base, pause=True, **sweep.settings)
    trials = [SimpleNamespace(trial_id=str(i), status="RUNNING", config={}) for i in range(len(sweep.curves))]
    control: Any = SimpleNamespace(get_trials=lambda: trials, stop_trial=lambda t: setattr(t, "status", "TERMINATED"))
    for trial in trials:
        scheduler.on_trial_add(control, trial)
    left = [list(curve) for curve in sweep.curves]
    for i in turns:
        told, trial = left[i].pop(0), trials[i]
        if trial.status != "RUNNING":
            continue
        result: dict[str, Any] = {"step": told.step, f"{METRIC}_se": told.error}
        if told.score is not None:
            result[METRIC] = told.score
        said = scheduler.on_trial_result(control, trial, result)
        trial.status = {"CONTINUE": "RUNNING", "PAUSE": "PAUSED", "STOP": "TERMINATED"}[said]
        if (chosen := scheduler.choose_trial_to_run(control)) is not None:
            chosen.status = "RUNNING"
    for trial in trials:
        scheduler.on_trial_complete(control, trial, {})


ADAPTERS: Final[dict[str, Callable[[Drawn, Sequence[int]], None]]] = {
    "rows": through_rows, "optuna": through_optuna, "ray": through_ray,
}  # fmt: skip


def faults(seeds: Sequence[int], least: int) -> tuple[int, list[str]]:
    """Runs sweeps until `least` curves have been through every adapter; returns how many, and what was raised, with its seed."""
    count, found = 0, []
    for seed in seeds:
        if count >= least:
            break
        sweep = drawn(seed)
        count += len(sweep.curves)
        for name, through in ADAPTERS.items():
            try:
                through(sweep, order(sweep, seed))
            except Exception:  # whatever it is, it is what is looked for
                found.append(f"seed {seed}, {name}: {traceback.format_exc()}")
    return count, found


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--curves", type=int, default=100_000)
    p.add_argument("--part", default="0/1", help="i/n: the i-th of n parts")
    a = p.parse_args(argv)
    part, parts = map(int, a.part.split("/"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("error", RuntimeWarning)  # NumPy's: a number that was not meant to be infinite
    warnings.filterwarnings("ignore", message="The reported value is ignored because this")  # told twice
    began = time.process_time()
    count, found = faults(range(part, sys.maxsize, parts), a.curves // parts)
    print("\n".join(found[:5]))
    print(
        f"{count:,} curves through {', '.join(ADAPTERS)}: {len(found)} exceptions, {time.process_time() - began:.0f} CPU s"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
