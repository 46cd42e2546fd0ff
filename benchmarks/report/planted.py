"""How often the report is right: sweeps with planted truths, summarised, and every claim compared with what was planted.

    python -m benchmarks.report.planted --sweeps 600 --json planted.json

Every score is its planted value plus a normal error of the size that it is reported with. An effect is planted in standard
errors of the difference that the report has to see, drawn between 3 and 8; a setting may have three seeds, whose training
luck is planted too. A quarter of the sweeps have no effect at all. A curve that fell and came back is planted with its fall,
one that is past its best with its gain and its loss, one that still rises with its distance and its slope, each at that size.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist, fmean, median
from typing import Any

from sweeps.config.trial import trial_id
from sweeps.journal.rows import Row, base_trial
from sweeps.report import Summary, summarize
from sweeps.report.analysis.findings.settings import Kind, Setting
from tests.support.rows import make_row

STEPS = (10, 20, 40, 80, 120, 160, 200, 240, 280, 320, 360, 400)
BUDGET = STEPS[-1]
METRIC, SAFETY, INSIDE = "transfer/score", "safety/refusal", "math/in_domain"
NO_CLAIM = (Kind.INCONCLUSIVE, Kind.UNCHANGED)
BINS = ((3, 4), (4, 6), (6, 8))
TRAJECTORIES = (
    Kind.RECOVERED, Kind.IMPROVED, Kind.UNDER_OPTIMISED, Kind.OVER_TRAINED, Kind.WORSE, Kind.COLLAPSED,
)  # fmt: skip


@dataclass
class Truth:
    """What was planted in one setting: the true curve, and the size of its effect in standard errors."""

    config: dict[str, Any]
    kind: Kind
    size: float
    curve: Callable[[float], float]
    seeds: int = 1
    refusal: float = 0.0  # change of it
    inside: float = 0.0
    slope_per_100: float | None = None
    reaches: float | None = None


@dataclass
class Planted:
    """One sweep: its rows, its truths, the error of its scores over items, and the spread between seeds."""

    rows: list[Row]
    truths: list[Truth]
    base: float
    se: float
    spread: float
    effects: dict[tuple[str, str], float] = field(default_factory=dict)


def _ramp(step: float, start: float, end: float) -> float:
    return min(max((step - start) / (end - start), 0.0), 1.0)


def truth(
    draw: random.Random, kind: Kind, config: dict[str, Any], base: float, se: float, seeds: int, luck: float
) -> Truth:
    """Plants one curve, as changes from the base by step.

    `size` standard errors of a difference from the base: items of both sides, and training luck where there are seeds.
    """
    size = draw.uniform(3, 8)
    unit = math.sqrt(se**2 + (se**2 + luck**2) / seeds)
    floor = 0.05 * base
    depth = max(size * unit, 1.3 * floor)
    if kind is Kind.RECOVERED:
        return Truth(config, kind, depth / unit, lambda s: -depth * _ramp(s, 0, 40) * (1 - _ramp(s, 80, 200)), seeds)
    if kind is Kind.IMPROVED:
        return Truth(config, kind, size, lambda s: size * unit * _ramp(s, 0, 160), seeds)
    if kind is Kind.OVER_TRAINED:
        top = max(size * unit, 1.3 * floor + 0.05 * base)
        return Truth(config, kind, top / unit, lambda s: top * _ramp(s, 0, 160) * (1 - _ramp(s, 200, 280)), seeds)
    if kind is Kind.WORSE:
        depth = min(depth, 0.45 * base)
        return Truth(config, kind, depth / unit, lambda s: -depth * _ramp(s, 0, 80), seeds)
    if kind is Kind.COLLAPSED:
        lost = draw.uniform(0.6, 0.95) * base
        return Truth(config, kind, lost / unit, lambda s: -lost * _ramp(s, 0, 80), seeds)
    if kind is Kind.UNDER_OPTIMISED:
        late = [s for s in STEPS if s >= BUDGET / 2]
        wide = math.sqrt(sum((s - sum(late) / len(late)) ** 2 for s in late))
        slope = size * se / seeds**0.5 / wide
        left = depth
        start = min(left + slope * (BUDGET - 80), 0.95 * base)
        slope = (start - left) / (BUDGET - 80)
        curve = lambda s: -start * _ramp(s, 0, 80) + max(s - 80, 0) * slope  # noqa: E731
        size = min(left / unit, slope * wide * seeds**0.5 / se)
        return Truth(config, kind, size, curve, seeds, slope_per_100=100 * slope, reaches=BUDGET + left / slope)
    return Truth(config, Kind.INCONCLUSIVE, 0.0, lambda s: 0.0, seeds, slope_per_100=0.0)


def rows_of(
    draw: random.Random,
    truths: Sequence[Truth],
    base: float,
    se: float,
    luck: float,
    space: dict[str, Any],
    pruned: float,
) -> list[Row]:
    """Writes the journal of a sweep: three metrics a score, every one with its error."""
    items = max(round(base * (1 - base) / se**2), 10)
    spec = {
        "name": "planted", "space": space, "objective": {"metric": METRIC, "goal": "maximize"}, "constraints": [],
        "stopping": {"rule": "none", "top": 3},
    }  # fmt: skip
    rows = [
        make_row("sweep", "planted", extra={"name": "planted", "spec": spec, "trials": sum(t.seeds for t in truths)})
    ]

    def scores(changes: dict[str, float]) -> dict[str, Any]:
        values = {m: {METRIC: base, SAFETY: 0.8, INSIDE: 0.3}[m] + c + draw.gauss(0, se) for m, c in changes.items()}
        return {"metrics": values, "se": dict.fromkeys(values, se), "n": dict.fromkeys(values, items), "suite": "p@1"}

    for model in sorted({t.config["model"] for t in truths}):
        rows.append(
            make_row(
                "report", "planted", base_trial(model), 0, 0, **scores(dict.fromkeys((METRIC, SAFETY, INSIDE), 0.0))
            )
        )
    for t in truths:
        for seed in range(t.seeds):
            config = {**t.config, "seed": seed}
            id, shift = trial_id(config), draw.gauss(0, luck)
            rows.append(make_row("trial", "planted", id, config=config, budget=BUDGET))
            rows.append(make_row("attempt", "planted", id, 1, 0))
            cut = draw.random() < pruned
            for step in STEPS[: 4 if cut else None]:
                share = step / BUDGET
                changes = {METRIC: t.curve(step) + shift, SAFETY: t.refusal * share, INSIDE: t.inside * share}
                rows.append(make_row("report", "planted", id, 1, step, **scores(changes)))
            end = {"of": "scoring", "status": "pruned" if cut else "completed"}
            rows.append(make_row("end", "planted", id, 1, 80 if cut else BUDGET, extra=end))
    return [row.at(i) for i, row in enumerate(rows)]


def sweep_of_trajectories(draw: random.Random) -> Planted:
    """Four to ten settings, each with a trajectory of its own; one in five does nothing."""
    se, base = draw.uniform(0.008, 0.02), draw.uniform(0.5, 0.8)
    seeds = draw.choice((1, 1, 3))
    luck = draw.uniform(0.3, 1.0) * se if seeds > 1 else 0.0
    count = draw.randint(4, 10)
    kinds = [Kind.INCONCLUSIVE if draw.random() < 0.2 else draw.choice(TRAJECTORIES) for _ in range(count)]
    configs = [
        {"model": "m", "data": "d", "steps": BUDGET, "learning_rate": round(1e-4 * 1.3**i, 9)} for i in range(count)
    ]
    truths = [truth(draw, k, c, base, se, seeds, luck) for k, c in zip(kinds, configs, strict=True)]
    space = {"learning_rate": {"grid": [c["learning_rate"] for c in configs]}}
    return Planted(rows_of(draw, truths, base, se, luck, space, 0.0), truths, base, se, luck)


def sweep_without_effects(draw: random.Random) -> Planted:
    """Nothing but noise: listed or sampled axes, one seed or three, some trials stopped early."""
    se, base = draw.uniform(0.008, 0.03), draw.uniform(0.4, 0.9)
    seeds = draw.choice((1, 1, 3))
    luck = draw.uniform(0.0, 1.5) * se if seeds > 1 else 0.0
    if draw.random() < 0.5:
        levels = [(d, r) for d in ("a", "b", "c") for r in (0.0, 0.1)]
        configs = [{"model": "m", "data": d, "replay": r, "steps": BUDGET} for d, r in levels]
        space: dict[str, Any] = {"data": {"grid": ["a", "b", "c"]}, "replay": {"grid": [0.0, 0.1]}}
    else:
        configs = [
            {
                "model": "m",
                "data": "d",
                "steps": BUDGET,
                "learning_rate": 10 ** draw.uniform(-5, -3),
                "replay": draw.uniform(0, 0.2),
            }
            for _ in range(draw.randint(4, 16))
        ]
        space = {"learning_rate": {"loguniform": [1e-5, 1e-3]}, "replay": {"uniform": [0.0, 0.2]}}
    truths = [truth(draw, Kind.INCONCLUSIVE, c, base, se, seeds, luck) for c in configs]
    return Planted(rows_of(draw, truths, base, se, luck, space, draw.choice((0.0, 0.2))), truths, base, se, luck)


def sweep_of_axes(draw: random.Random) -> Planted:
    """An effect of a sampled axis, of a tier, and none of a third; every trial with its own training luck."""
    se, base = draw.uniform(0.008, 0.02), draw.uniform(0.5, 0.8)
    luck = draw.uniform(0.0, 1.5) * se
    count = draw.randint(12, 30)
    noise = math.hypot(se, luck)
    per_decade = draw.choice((-1, 1)) * draw.uniform(3, 8) * noise / (0.58 * count**0.5)
    tier = draw.choice((-1, 1)) * draw.uniform(3, 8) * noise / (0.5 * count**0.5)
    truths = []
    for i in range(count):
        lr, data = 10 ** draw.uniform(-5, -3), ("a", "b")[i % 2]
        gain = per_decade * (math.log10(lr) + 4) + tier * (data == "b") - 0.1 + draw.gauss(0, luck)
        config = {"model": "m", "data": data, "steps": BUDGET, "learning_rate": lr, "replay": draw.uniform(0, 0.2)}
        truths.append(Truth(config, Kind.WORSE, 0.0, lambda s, g=gain: g * _ramp(s, 0, 80)))
    space = {
        "data": {"grid": ["a", "b"]},
        "learning_rate": {"loguniform": [1e-5, 1e-3]},
        "replay": {"uniform": [0.0, 0.2]},
    }
    planted = Planted(rows_of(draw, truths, base, se, 0.0, space, 0.0), truths, base, se, luck)
    planted.effects = {("learning_rate", "x 10"): per_decade, ("data", "b against a"): tier, ("replay", "+ 1"): 0.0}
    return planted


def sweep_of_limits(draw: random.Random) -> Planted:
    """Two tiers or two models, the worse one flat and lower; and what it costs in refusal."""
    se, base = draw.uniform(0.008, 0.02), draw.uniform(0.5, 0.8)
    size = draw.uniform(3, 8)
    kind = draw.choice((Kind.DATA_LIMITED, Kind.CAPACITY_LIMITED, Kind.SAFETY_COST))
    two = math.sqrt(2) * se  # error of a difference; two models have a base each, so theirs is larger
    gap = {Kind.DATA_LIMITED: size * two, Kind.CAPACITY_LIMITED: size * math.sqrt(2) * two, Kind.SAFETY_COST: 0.0}[kind]
    differs: dict[Kind, tuple[str, Any, Any]] = {
        Kind.DATA_LIMITED: ("data", "poor", "good"),
        Kind.CAPACITY_LIMITED: ("model", "qwen3-1.7b", "qwen3-4b"),
        Kind.SAFETY_COST: ("replay", 0.0, 0.1),
    }
    axis, worse, better = differs[kind]
    shared = {"model": "m", "data": "d", "steps": BUDGET, "learning_rate": 1e-4}
    limited = Truth({**shared, axis: worse}, kind, size, lambda s: -gap * _ramp(s, 0, 80), inside=10 * se)
    other = Truth({**shared, axis: better}, Kind.INCONCLUSIVE, size, lambda s: 0.0, inside=10 * se)
    if kind is Kind.SAFETY_COST:
        limited.refusal, limited.inside, other.inside = -size * two, size * two, 0.0
    truths = [limited, other]
    return Planted(rows_of(draw, truths, base, se, 0.0, {}, 0.0), truths, base, se, 0.0)


class Score:
    """Counts what the report said against what was planted."""

    def __init__(self) -> None:
        self.matrix: dict[tuple[int, int], Counter[tuple[str, str]]] = defaultdict(Counter)
        self.limits: dict[tuple[int, int], Counter[tuple[str, bool]]] = defaultdict(Counter)
        self.covered: dict[str, list[bool]] = defaultdict(list)
        self.silent: list[list[str]] = []
        self.thresholds: list[float] = []

    def take_trajectories(self, planted: Planted) -> None:
        summary = summarize(planted.rows)
        self.thresholds.append(summary.threshold)
        for t, s in _settings(planted, summary):
            said = s.verdicts[0].kind
            told = Kind.INCONCLUSIVE if said in NO_CLAIM else said
            self.matrix[_bin(t.size)][t.kind.value, told.value] += 1
            m = s.metrics[METRIC]
            assert m.change is not None
            self.covered["change"].append(m.change.low <= t.curve(BUDGET) <= m.change.high)
            if t.slope_per_100 is not None and m.trend is not None:
                d = m.trend.per_100
                self.covered["slope"].append(d.low <= t.slope_per_100 <= d.high)
            if t.reaches is not None and m.trend is not None and m.trend.reaches is not None:
                _, low, high = m.trend.reaches
                self.covered["steps to the base"].append(low <= t.reaches <= high)
        self._best(planted, summary)

    def _best(self, planted: Planted, summary: Summary) -> None:
        best = next(iter(summary.ranked()), None)
        if best is not None and summary.corrected is not None:
            chosen = next(t for t, s in _settings(planted, summary) if s is best)
            value = planted.base + chosen.curve(BUDGET)
            self.covered["best, corrected"].append(summary.corrected.low <= value <= summary.corrected.high)

    def take_axes(self, planted: Planted) -> None:
        summary = summarize(planted.rows)
        for e in summary.effects:
            if e.metric == METRIC:
                value = planted.effects[e.axis, e.contrast]
                self.covered["effect of an axis"].append(e.difference.low <= value <= e.difference.high)

    def take_limits(self, planted: Planted) -> None:
        summary = summarize(planted.rows)
        for t, s in _settings(planted, summary):
            if t.kind is not Kind.INCONCLUSIVE:
                self.limits[_bin(t.size)][t.kind.value, t.kind in [v.kind for v in s.verdicts]] += 1

    def take_silence(self, planted: Planted) -> None:
        summary = summarize(planted.rows)
        self.silent.append(list(claims(summary)))

    def to_json(self) -> dict[str, Any]:
        by_size = {k: v for k, v in sorted(self.matrix.items()) if k[0] >= 3}
        every: Counter[tuple[str, str]] = sum(by_size.values(), Counter())
        kinds = sorted({p for p, _ in every} - {Kind.INCONCLUSIVE.value})
        return {
            "matrix": {_name(k): {f"{p} -> {s}": n for (p, s), n in sorted(c.items())} for k, c in self.matrix.items()},
            "diagonal": {_name(k): _diagonal(c) for k, c in by_size.items()} | {"all": _diagonal(every)},
            "by_kind": {k: _diagonal(Counter({ps: n for ps, n in every.items() if ps[0] == k})) for k in kinds},
            "wrongly_inconclusive": {_name(k): _open(c) for k, c in by_size.items()} | {"all": _open(every)},
            "limits_found": {_name(k): _found(c) for k, c in sorted(self.limits.items())},
            "power": power(median(self.thresholds)) if self.thresholds else {},
            "coverage": {name: sum(hits) / len(hits) for name, hits in self.covered.items()},
            "ranges": {name: len(hits) for name, hits in self.covered.items()},
            "sweeps_without_effects": len(self.silent),
            "false_claims": sum(bool(c) for c in self.silent) / max(len(self.silent), 1),
            "of_which": dict(Counter(one.split(":")[0] for c in self.silent for one in c)),
        }


def power(threshold: float) -> dict[str, Any]:
    """What tests can find at all: the share of effects of 3 and of 3 to 4 standard errors, and the size found in .9.

    Args:
        threshold: the p-value at which the sweeps' tests call a difference real (their median).
    """
    normal, sizes = NormalDist(), [3 + i / 100 for i in range(101)]
    found = {}
    for name, level, tests in (
        ("one test, 5 % to itself", 0.05, 1), ("two tests, 5 % each to itself", 0.05, 2),
        (f"one test at p <= {threshold:.3f}", threshold, 1), (f"two tests at p <= {threshold:.3f}", threshold, 2),
    ):  # fmt: skip
        limit = normal.inv_cdf(1 - level / 2)
        shares = [normal.cdf(size - limit) ** tests for size in sizes]
        needed = limit + normal.inv_cdf(0.9 ** (1 / tests))
        found[name] = {"at 3": shares[0], "3 to 4": fmean(shares), "found in .9 from": needed}
    return found


def _settings(planted: Planted, summary: Summary) -> Iterator[tuple[Truth, Setting]]:
    """Pairs truths and settings, which stand in one order."""
    yield from zip(planted.truths, summary.settings, strict=True)


def claims(summary: Summary) -> Iterator[str]:
    """Yields everything in a report that says there is something."""
    for s in summary.settings:
        yield from (f"verdict: {v.sentence}" for v in s.verdicts if v.kind not in NO_CLAIM)
        for one in s.metrics.values():
            if one.metric in summary.panels and one.change is not None and one.change.real:
                yield f"change: {one.metric}"
    yield from (
        f"trend: {s.label}"
        for s in summary.settings
        if (m := s.metrics.get(METRIC)) and m.trend and m.trend.per_100.real
    )
    yield from (f"effect: {e.sentence}" for e in summary.effects if e.difference.real)
    yield from (f"importance: {i.axes}" for i in summary.importances if i.real)
    yield from (f"rivalry: {r.other}" for r in summary.rivalries if r.difference.real)


def _bin(size: float) -> tuple[int, int]:
    return next(((a, b) for a, b in BINS if size < b), BINS[-1]) if size >= 3 else (0, 3)


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}-{size[1]}"


def _open(c: Counter[tuple[str, str]]) -> float:
    return _share(c, lambda p, s: s == Kind.INCONCLUSIVE.value)


def _found(c: Counter[tuple[str, bool]]) -> dict[str, float]:
    return {k: c[k, True] / (c[k, True] + c[k, False]) for k in sorted({k for k, _ in c})}


def _diagonal(c: Counter[tuple[str, str]]) -> float:
    return _share(c, lambda p, s: p == s)


def _share(c: Counter[tuple[str, str]], right: Callable[[str, str], bool]) -> float:
    planted = {k: n for k, n in c.items() if k[0] != Kind.INCONCLUSIVE.value}
    return sum(n for (p, s), n in planted.items() if right(p, s)) / max(sum(planted.values()), 1)


def measure(sweeps: int, seed: int = 0) -> dict[str, Any]:
    """Plants and reads this many sweeps, a quarter of each sort, and returns the counts."""
    draw, score = random.Random(seed), Score()
    sorts = (
        (sweep_of_trajectories, score.take_trajectories),
        (sweep_without_effects, score.take_silence),
        (sweep_of_axes, score.take_axes),
        (sweep_of_limits, score.take_limits),
    )
    for i in range(sweeps):
        plant, take = sorts[i % len(sorts)]
        take(plant(draw))
    return score.to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = measure(chosen.sweeps, chosen.seed)
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
