"""The paper's claims, one by one, beside what examples/paper_mini*.yaml found: numbers, errors, and whether they hold here.

    dipsweep run examples/paper_mini.yaml
    dipsweep run examples/paper_mini_exposure.yaml
    python -m benchmarks.report.paper_mini runs/paper-mini-… runs/paper-mini-exposure-… [--write docs/paper_mini.md]

Prints Markdown, or puts it between the marks of a page. A claim compares settings of one sweep. An error joins that of the
items (all seeds are asked the same ones, so it does not fall with their number) and that of the seeds, whose variance is pooled
over all settings of a budget: of three seeds alone it would be poorly known. A claim holds, or is contradicted, where a
difference is larger than two of its errors; else it is open. Settings that have not been run are said to be so.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sweeps import load
from sweeps.config.sweep_file.reference import between
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import ReportRow

BEGIN, END = "<!-- python -m benchmarks.report.paper_mini -->", "<!-- end of the claims -->"
STUDY, EXPOSURE = "paper-mini", "paper-mini-exposure"
METRICS = ("math/in_domain", "transfer/score", "general/score", "safety/refusal")


class Arm(NamedTuple):
    """What is changed around the centre."""

    model: str = "tiny-s"
    data: str = "verified-long-cot"
    replay: float = 0.2
    rate: float = 3e-3

    def __str__(self) -> str:
        changed = [f"{v:g}" if isinstance(v, float) else v for v, usual in zip(self, Arm(), strict=True) if v != usual]
        names = [n for n, v, usual in zip(("", "", "replay ", "rate "), self, Arm(), strict=True) if v != usual]
        return ", ".join(map("".join, zip(names, changed, strict=True))) or "centre"


class Number(NamedTuple):
    """A mean over seeds with its error."""

    value: float
    se: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.se:.2f}"


Scores = list[tuple[float, float]]
"""A score and its standard error over items, a seed each."""


def mean(values: Scores, between_seeds: float) -> Number:
    """The mean over seeds; `between_seeds` is the variance of one seed's score."""
    items = statistics.fmean(se * se for _, se in values)
    return Number(statistics.fmean(v for v, _ in values), math.sqrt(items + between_seeds / len(values)), len(values))


def pooled(groups: Iterable[Scores]) -> float:
    """Variance between seeds, over all settings that have two or more; 0 where none has."""
    repeated = [[v for v, _ in group] for group in groups if len(group) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    return sum(statistics.variance(values) * (len(values) - 1) for values in repeated) / freedom if freedom else 0.0


class Found:
    """The scores of a sweep by arm, budget, metric and step, and how often each run saw the rows of its tier."""

    def __init__(self, folder: str) -> None:
        results = load(folder)
        self.sweep = results.summary.name
        seen = {
            (row.trial, row.step): row.progress["epoch"]
            for row in read_rows(folder)
            if isinstance(row, ReportRow) and "epoch" in row.progress
        }
        self.epochs: dict[tuple[Arm, int], list[float]] = {}
        self.raw: dict[tuple[Arm, int, str, int], Scores] = {}
        self.base: dict[tuple[str, str], Number] = {}
        for trial in results.summary.trials:
            c = trial.config
            arm = Arm(str(c["model"]), str(c["data"]), float(c["replay"]), float(c["learning_rate"]))
            if trial.state == "completed":
                self.epochs.setdefault((arm, int(c["steps"])), []).append(seen[trial.id, int(c["steps"])])
            for metric, points in trial.curves.items():
                if metric in METRICS and trial.state == "completed":
                    for p in points:
                        key = (arm, int(c["steps"]), metric, p.step)
                        self.raw.setdefault(key, []).append((p.value, p.se or 0.0))
        for model, scores in results.summary.bases.items():
            self.base |= {(str(model), metric): Number(p.value, p.se or 0.0, 1) for metric, p in scores.items()}
        ends: dict[tuple[int, str], list[Scores]] = {}
        for (_, budget, metric, step), values in self.raw.items():
            if step == budget:
                ends.setdefault((budget, metric), []).append(values)
        self.between_seeds = {of: pooled(groups) for of, groups in ends.items()}

    @property
    def arms(self) -> list[tuple[Arm, int]]:
        return sorted({(arm, budget) for arm, budget, _, step in self.raw if step == budget}, key=str)

    def passes(self, arm: Arm, budget: int) -> float:
        """How often a run has seen the rows of its tier at the end of its budget; the mean over seeds."""
        return statistics.fmean(self.epochs[arm, budget])

    def end(self, arm: Arm, budget: int, metric: str) -> Number | None:
        values = self.raw.get((arm, budget, metric, budget))
        return mean(values, self.between_seeds[budget, metric]) if values else None

    def lowest(self, arm: Arm, budget: int, metric: str) -> tuple[int, Number] | None:
        """The lowest point of the curve of a budget."""
        curve = {step: v for (a, b, m, step), v in self.raw.items() if (a, b, m) == (arm, budget, metric)}
        points = {step: mean(v, self.between_seeds.get((budget, metric), 0.0)) for step, v in curve.items()}
        return min(points.items(), key=lambda item: item[1].value) if points else None


def table(found: Found) -> Iterator[str]:
    yield "| setting | budget | seeds | passes | in-domain | transfer | general | refusal |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for arm, budget in found.arms:
        numbers = [found.end(arm, budget, metric) for metric in METRICS]
        seeds, passes = numbers[0].seeds if numbers[0] else 0, found.passes(arm, budget)
        yield f"| {arm} | {budget} | {seeds} | {passes:.1f} | {' | '.join(map(str, numbers))} |"


def compared(found: Found, claim: str, more: tuple[Arm, int], less: tuple[Arm, int], metric: str) -> str:
    """A claim that one setting ends above another: its line of the table."""
    a, b = found.end(*more, metric), found.end(*less, metric)
    if a is None or b is None:
        return f"| {claim} | {metric} | not run | |"
    return line(claim, metric, (f"{more[0]} at {more[1]}", a), (f"{less[0]} at {less[1]}", b))


def line(claim: str, metric: str, more: tuple[str, Number], less: tuple[str, Number]) -> str:
    """A line of the table: that the first is above the second."""
    (name, a), (other, b) = more, less
    difference, error = a.value - b.value, math.hypot(a.se, b.se)
    verdict = "open" if abs(difference) <= 2 * error else "holds" if difference > 0 else "contradicted"
    return f"| {claim} | {metric} | {name}: {a}; {other}: {b}; {difference:+.2f} ± {error:.2f} | {verdict} |"


def dip(found: Found, centre: Arm, budget: int, metric: str) -> Iterator[str]:
    """The dip in three claims: it falls, it rises again, it comes back to the base (within 5 % of it)."""
    low, end, base = (
        found.lowest(centre, budget, metric),
        found.end(centre, budget, metric),
        found.base.get((centre.model, metric)),
    )
    if low is None or end is None or base is None:
        return
    bottom = (f"lowest, at step {low[0]}", low[1])
    yield line("scores outside the domain fall first", metric, ("base", base), bottom)
    yield line("and rise again", metric, (f"end, at step {budget}", end), bottom)
    share, error = end.value / base.value, math.hypot(end.se, base.se) / base.value
    back = "holds" if share - 2 * error >= 0.95 else "contradicted" if share + 2 * error < 0.95 else "open"
    yield f"| and come back to their base | {metric} | base: {base}; end: {end}; {share:.0%} ± {error:.0%} of it | {back} |"


def claims(found: Found) -> Iterator[str]:
    centre, longest = Arm(), 320
    yield "| the paper | here, on | numbers | verdict |"
    yield "| --- | --- | --- | --- |"
    for metric in ("transfer/score", "general/score"):
        yield from dip(found, centre, longest, metric)
        yield compared(found, "recovery grows with the budget", (centre, longest), (centre, 80), metric)
    corrupted, answers = Arm(data="corrupted-cot"), Arm(data="answer-only")
    yield compared(
        found,
        "verified traces teach the task, corrupted ones do not",
        (centre, longest),
        (corrupted, longest),
        METRICS[0],
    )
    yield compared(
        found,
        "verified traces transfer better than corrupted ones",
        (centre, longest),
        (corrupted, longest),
        METRICS[1],
    )
    yield compared(
        found, "long CoT teaches the task better than answers alone", (centre, longest), (answers, longest), METRICS[0]
    )
    yield compared(
        found, "long CoT transfers better than answers alone", (centre, longest), (answers, longest), METRICS[1]
    )
    yield compared(
        found, "answers alone keep refusal better than long CoT", (answers, longest), (centre, longest), METRICS[3]
    )
    refusing, base = found.end(centre, longest, METRICS[3]), found.base.get((centre.model, METRICS[3]))
    if refusing and base:
        yield line(
            "long CoT costs refusal of harmful prompts", METRICS[3], ("base", base), (f"centre at {longest}", refusing)
        )
    large, small = Arm(model="tiny-m"), Arm(model="tiny-xs")
    yield compared(found, "larger models recover more (m against s)", (large, longest), (centre, longest), METRICS[1])
    yield compared(found, "larger models recover more (s against xs)", (centre, longest), (small, longest), METRICS[1])
    gentle, steep = Arm(rate=1e-3), Arm(rate=1.2e-2)
    yield compared(
        found, "a high rate needs budget: its gain from 80 to 320", (steep, longest), (steep, 80), METRICS[1]
    )
    yield compared(found, "the aggressive corner falls behind", (centre, longest), (steep, longest), METRICS[1])
    yield compared(found, "the aggressive corner loses the task too", (centre, longest), (steep, longest), METRICS[0])
    yield compared(found, "a low rate ends higher (not in the paper)", (gentle, longest), (centre, longest), METRICS[1])
    yield compared(
        found,
        "replay is what recovers here (not in the paper)",
        (centre, longest),
        (Arm(replay=0.0), longest),
        METRICS[2],
    )


def exposure_claims(found: Found) -> Iterator[str]:
    """Few rows often against many rows seldom, and long traces against concise ones."""
    centre, few, concise, longest = Arm(), Arm(data="few-long-cot"), Arm(data="concise-cot"), 320
    for budget in (160, longest):
        for metric in METRICS[:2]:
            yield compared(found, "few rows often beat many rows seldom", (few, budget), (centre, budget), metric)
    for verb, metric in (("teaches the task", METRICS[0]), ("transfers", METRICS[1])):
        claim = f"long CoT {verb} better than concise CoT (not in the paper)"
        yield compared(found, claim, (centre, longest), (concise, longest), metric)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the folder of examples/paper_mini.yaml")
    parser.add_argument("exposure", help="the folder of examples/paper_mini_exposure.yaml")
    parser.add_argument("--write", type=Path)
    a = parser.parse_args()
    study, exposure = Found(a.study), Found(a.exposure)
    for folder, found, expected in ((a.study, study, STUDY), (a.exposure, exposure, EXPOSURE)):
        if found.sweep != expected:
            parser.error(f"{folder} is a sweep of the name {found.sweep}; expected one of the name {expected}")
    made = "\n".join([*claims(study), *exposure_claims(exposure)])
    for found in (study, exposure):
        made += "\n".join(["", "", f"Sweep `{found.sweep}`:", "", *table(found)])
    if a.write is None:
        print(made)
        return
    try:
        page = between(a.write.read_text(encoding="utf-8"), BEGIN, END, made)
    except ValueError as e:
        parser.error(f"{a.write}: {e}")
    a.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
