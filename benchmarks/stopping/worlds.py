"""Generated sweeps with known truth: four worlds of fine-tuning curves.

The forms here (half-cosines, rational functions, broken lines) are not those of the rule's prior (Weibull and gamma
bumps, power laws, logistic steps), and the third world's are not those of the first two. A sweep has a temper of its
own: a mix of families and one dip time that its trials scatter around.

* `published`: troughs at 1.5-9 % of the budget, back at base after a log-normal multiple of the trough step, median 4,
  sigma 0.75, between 2 and 24: the timing of the published tables.
* `broad`: troughs at 6-22 % of the budget, back at base after 2 to 4 times that.
* `shifted`: other families (double dips, stairs, slow sags, late jumps), no shared dip time, heavy-tailed noise.
* `second-order`: answers of damped second-order systems to steps (they overshoot and ring), reported at log-spaced steps.

Scores are shares in [0, 1]. A report's noise is the sampling error of the evaluation plus the checkpoint's own wiggle
(half as large, AR(1)); only the sampling error, and the items that would give it, is told to the rule. "True" is without
sampling error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeps.config.objective import Goal
from sweeps.executors.simulated import Recording
from sweeps.journal.rows import ReportRow, Row, TrialRow, base_trial

METRIC = "transfer/score"
STEPS_PER_REPORT = 20
Array = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True)
class Generated:
    """One sweep: what a rule sees (`recordings`, `shared`), and what it does not (`truth`: final score, `family`)."""

    recordings: list[Recording]
    shared: list[Row]
    truth: dict[str, float]
    family: dict[str, str]
    last_scores: dict[str, float]  # mean of a completed trial's last three reports: what a user would pick by

    def winners(self, top: int) -> list[str]:
        """Trials with the best true finals, best first."""
        return sorted(self.truth, key=lambda t: -self.truth[t])[:top]


def goal(top: int = 3) -> Goal:
    return Goal(METRIC, top=top)


# --- forms ------------------------------------------------------------------------------------------------------------


def swing(x: Array, start: float, end: float) -> Array:
    """Half-cosine from 0 at `start` to 1 at `end`."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((x - start) / max(end - start, 1e-9), 0, 1))


def approach(x: Array, start: float, end: float) -> Array:
    """Rational approach from 0 at `start` to 1 at `end`, steepest at the start."""
    u = np.clip((x - start) / max(end - start, 1e-9), 0, 1)
    return u / (u + 0.35 * (1 - u))


def steady(x: Array, rng: Rng) -> Array:
    gain, bend = rng.uniform(0.0, 0.09), np.exp(rng.uniform(np.log(0.06), np.log(0.8)))
    return gain * (x / (x + bend)) * (1 + bend) if rng.random() < 0.5 else gain * np.sqrt(np.clip(x, 0, 1))


def dip(x: Array, rng: Rng, trough: float, back: float) -> Array:
    """Falls to -depth at `trough`, is back at 0 at `back`, then gains."""
    depth, gain = rng.uniform(0.03, 0.25), rng.uniform(-0.03, 0.14)
    rise = (swing if rng.random() < 0.5 else approach)(x, trough, back)
    late = swing(x, 0.5 * (trough + back), back + max(0.15, rng.uniform(0.5, 1.2) * (back - trough)))
    return depth * (rise - swing(x, 0.0, trough)) + gain * late


def collapse(x: Array, rng: Rng, trough: float) -> Array:
    depth = rng.uniform(0.05, 0.35)
    if rng.random() < 0.5:
        after = depth * rng.uniform(0, 0.7) * approach(x, trough, trough + rng.uniform(0.3, 1.0))
    else:
        after = -rng.uniform(0, 0.08) * np.clip(x - trough, 0, None)
    return -depth * swing(x, 0.0, trough) + after


def overfit(x: Array, rng: Rng) -> Array:
    peak = rng.uniform(0.2, 0.6)
    return rng.uniform(0.02, 0.12) * swing(x, 0, peak) - rng.uniform(0.03, 0.16) * swing(x, peak, 1.05)


def plateau(x: Array, rng: Rng) -> Array:
    return rng.uniform(-0.03, 0.04) * approach(x, 0, rng.uniform(0.05, 0.3))


def double_dip(x: Array, rng: Rng) -> Array:
    a, b = sorted(rng.uniform(0.04, 0.6, 2))
    wide = rng.uniform(0.04, 0.16, 2)
    first = rng.uniform(0.03, 0.15) * np.maximum(0, 1 - np.abs(x - a) / wide[0])
    second = rng.uniform(0.02, 0.12) * np.maximum(0, 1 - np.abs(x - b) / wide[1])
    return rng.uniform(-0.02, 0.11) * x - first - second


def stairs(x: Array, rng: Rng) -> Array:
    """A fall, then a few sudden rises."""
    edges = np.sort(rng.uniform(0.1, 0.9, rng.integers(2, 5)))
    total, fall = rng.uniform(0.02, 0.25), rng.uniform(0.02, 0.18)
    return total * sum(swing(x, e, e + 0.04) for e in edges) / len(edges) - fall * swing(x, 0, rng.uniform(0.03, 0.2))


def sag(x: Array, rng: Rng) -> Array:
    """A slow broken line: down to a low anywhere, partly or fully back."""
    low = rng.uniform(0.15, 0.55)
    depth = rng.uniform(0.02, 0.15)
    end = depth * rng.uniform(-0.3, 1.5)
    return np.interp(x, [0, low, 1], [0, -depth, -depth + end])


def jump(x: Array, rng: Rng) -> Array:
    at = rng.uniform(0.2, 0.8)
    return rng.uniform(-0.05, 0.02) * approach(x, 0, 0.2) + rng.uniform(0.02, 0.14) * swing(
        x, at, at + rng.uniform(0.05, 0.3)
    )


def fade(x: Array, rng: Rng) -> Array:
    return rng.uniform(0.0, 0.1) * approach(x, 0, 0.15) - rng.uniform(0.02, 0.2) * x ** rng.uniform(0.7, 2)


def response(x: Array, start: float, pace: float, damping: float) -> Array:
    """Answer of a second-order system to a step at `start`: from 0 to 1, over it and back where `damping` is below 1."""
    t = np.clip(x - start, 0, None) * pace
    if damping < 1:
        swings = np.sqrt(1 - damping**2)
        return 1 - np.exp(-damping * t) * (np.cos(swings * t) + damping / swings * np.sin(swings * t))
    return 1 - (1 + t) * np.exp(-t)


# --- worlds -----------------------------------------------------------------------------------------------------------

Draw = Callable[[str, Array, Rng, float], Array]


@dataclass(frozen=True)
class World:
    name: str
    families: dict[str, float]
    center: tuple[float, float]  # range of the sweep's dip time
    draw: Draw
    heavy: bool = False
    log_spaced: bool = False


def _timed(ratio: Callable[[Rng], float], earliest: float) -> Draw:
    def draw(family: str, x: Array, rng: Rng, center: float) -> Array:
        trough = float(np.clip(center * np.exp(0.35 * rng.normal()), earliest, 0.4))
        if family == "steady":
            return steady(x, rng)
        if family == "dip":
            return dip(x, rng, trough, trough * ratio(rng))
        if family == "collapse":
            return collapse(x, rng, trough)
        if family == "overfit":
            return overfit(x, rng)
        if family == "plateau":
            return plateau(x, rng)
        at = rng.uniform(0.05, 0.7)  # diverges
        before = draw("steady" if rng.random() < 0.5 else "dip", x, rng, center)
        gone = swing(x, at, at + 0.06)
        return before * (1 - gone) - rng.uniform(0.25, 0.45) * gone

    return draw


def _shifted(family: str, x: Array, rng: Rng, center: float) -> Array:
    forms = {"double": double_dip, "stairs": stairs, "sag": sag, "jump": jump, "fade": fade}
    return forms[family](x, rng)


def _second_order(family: str, x: Array, rng: Rng, center: float) -> Array:
    pace, damping = np.exp(rng.uniform(np.log(8), np.log(60))), rng.uniform(0.3, 1.3)
    gain, depth = rng.uniform(0.0, 0.12), rng.uniform(0.03, 0.2)
    if family == "rise":
        return gain * response(x, 0, pace, damping)
    if family == "dip":
        begin = float(np.clip(center * np.exp(0.35 * rng.normal()), 0.02, 0.4))
        return (depth + gain - 0.03) * response(x, begin, 0.3 * pace, damping) - depth * response(x, 0, 60, 1)
    if family == "fall":
        return -depth * response(x, 0, pace, damping)
    if family == "late":
        return gain * response(x, rng.uniform(0.2, 0.7), pace, damping)
    return gain * response(x, 0, pace, damping) - depth * response(x, rng.uniform(0.2, 0.7), pace, 1)  # overfit


_USUAL = {"steady": 1.2, "dip": 2.4, "collapse": 1.6, "overfit": 0.8, "plateau": 0.8, "diverge": 0.5}
WORLDS = {
    "published": World(
        "published", _USUAL, (0.02, 0.08), _timed(lambda r: float(np.clip(4 * np.exp(0.75 * r.normal()), 2, 24)), 0.015)
    ),
    "broad": World("broad", _USUAL, (0.06, 0.22), _timed(lambda r: r.uniform(2, 4), 0.04)),
    "shifted": World(
        "shifted", {"double": 1, "stairs": 1.2, "sag": 1.2, "jump": 0.8, "fade": 1.2}, (0, 0), _shifted, True
    ),
    "second-order": World(
        "second-order",
        {"rise": 1, "dip": 2, "fall": 1.2, "late": 0.8, "overfit": 0.8},
        (0.04, 0.2),
        _second_order,
        log_spaced=True,
    ),
}


def generate(world: str, seed: int, *, trials: int = 32, reports: int = 32, noise: float = 1.0) -> Generated:
    """Draws one sweep of a world; equal arguments give equal sweeps, and another `noise` the same curves with another
    standard error (the checkpoints' own wiggle stays)."""
    w = WORLDS[world]
    rng = np.random.default_rng([len(world), seed])
    names = list(w.families)
    mix = rng.dirichlet([1.5 * v for v in w.families.values()])
    center, se = rng.uniform(*w.center), rng.uniform(0.006, 0.022)
    models = [("small", rng.uniform(0.3, 0.5), 1.0)]
    if rng.random() < 0.5:
        models.append(("large", models[0][1] + rng.uniform(0.02, 0.07), 2.0))
    wiggle, se = 0.5 * se, noise * se
    base_error = {name: 0.5 * se * rng.normal() for name, _, _ in models}  # four times the items
    shared = [_score_row(base_trial(n), 0, None, b + base_error[n], 0.5 * se) for n, b, _ in models]
    made = Generated([], shared, {}, {}, {})
    at_end = reports * STEPS_PER_REPORT
    for i in range(trials):
        trial, family = f"t-{i:04d}", names[rng.choice(len(names), p=mix)]
        name, base, cost = models[int(rng.integers(len(models)))]
        length = reports if rng.random() < 0.75 else reports // 2
        at = _steps(reports, length, w.log_spaced)
        true = np.clip(base + w.draw(family, at / at_end, rng, center) + _wiggle(rng, len(at), wiggle), 0, 1)
        error = rng.standard_t(4, len(at)) / np.sqrt(2) if w.heavy else rng.normal(size=len(at))
        seen = np.clip(true + se * error, 0, 1)
        budget = length * STEPS_PER_REPORT
        last = int(np.searchsorted(at, budget))
        config = {"model": name, "data": family, "steps": budget, "seed": i}
        start = TrialRow("generated", trial, budget=budget, config=config)
        rows = tuple(_score_row(trial, int(at[t]), budget, seen[t], se) for t in range(1, last + 1))
        pace = cost * rng.uniform(0.9, 1.1)
        durations = pace * (np.diff(at[: last + 1]) / STEPS_PER_REPORT)
        made.recordings.append(Recording(trial, start, rows, tuple(durations.tolist())))
        made.truth[trial], made.family[trial] = float(true[last]), family
        made.last_scores[trial] = float(seen[max(1, last - 2) : last + 1].mean())
    return made


def _steps(reports: int, length: int, log_spaced: bool) -> Array:
    """The steps of a trial's reports, 0 first; where they are evenly spaced those of the longest budget."""
    if not log_spaced:
        return np.arange(reports + 1) * STEPS_PER_REPORT
    end = length * STEPS_PER_REPORT
    return np.unique(np.concatenate([[0], np.geomspace(4, end, 2 + round(2 * np.log2(end / 4))).round()])).astype(int)


def _wiggle(rng: Rng, n: int, sd: float) -> Array:
    """AR(1) with coefficient 0.6 and stationary standard deviation `sd`, 0 at the start."""
    out = np.zeros(n)
    for t in range(1, n):
        out[t] = 0.6 * out[t - 1] + 0.8 * sd * rng.normal()
    return out


def _score_row(trial: str, step: int, budget: int | None, value: float, se: float) -> Row:
    items = {METRIC: round(0.25 / se**2)}
    scores = {METRIC: float(value)}
    return ReportRow("generated", trial, step=step, budget=budget, metrics=scores, se={METRIC: se}, n=items)
