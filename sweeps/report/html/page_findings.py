"""The page's tables of what was found: the best setting, verdicts, effects of the axes, the stop rule's own verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.report.analysis.findings.axes import Effect, Importance
from sweeps.report.analysis.findings.settings import Setting, SettingMetric
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.wording import number, percent, plural, score
from sweeps.report.html.page_tables import Cell


@dataclass(frozen=True, slots=True)
class BestRow:
    metric: str
    base: str
    end: str
    change: str
    real: str


@dataclass(frozen=True, slots=True)
class VerdictRow:
    label: str
    runs: str
    kind: str
    confidence: str
    sentence: str
    settle: str


@dataclass(frozen=True, slots=True)
class DecisionRow:
    label: str
    step: str
    action: str
    phase: str
    reason: str


@dataclass(frozen=True, slots=True)
class AxisRow:
    axis: str
    contrast: str
    cells: list[Cell]


def best_rows(summary: Summary) -> list[BestRow]:
    """The best setting's metrics before and after; empty without a best."""
    best = next(iter(summary.ranked()), None)
    return [] if best is None else [_best_row(m) for m in best.metrics.values()]


def _best_row(m: SettingMetric) -> BestRow:
    seeds = "" if m.seeds_se is None else f"; seeds ± {number(m.seeds_se)}"
    end = number(m.value) + ("" if m.items_se is None else f" ± {number(m.items_se)}") + seeds
    if m.change is None:
        plain = "–" if m.base is None else number(m.value - m.base.value, signed=True)
        return BestRow(m.metric, score(m.base), end, plain, "no standard errors")
    word = "yes" if m.change.real else "no"
    d = m.change
    change = f"{number(d.value, signed=True)} ({number(d.low, signed=True)} to {number(d.high, signed=True)})"
    return BestRow(m.metric, score(m.base), end, change, word)


def verdict_rows(summary: Summary) -> list[VerdictRow]:
    """Every verdict on every setting, ranked settings first."""
    order = sorted(summary.settings, key=lambda s: s.rank or len(summary.settings) + 1)
    return [
        VerdictRow(
            s.label if i == 0 else "",
            _runs(s) if i == 0 else "",
            v.kind.value,
            "–" if v.confidence is None else _confidence(v.confidence),
            v.sentence,
            v.settle,
        )
        for s in order
        for i, v in enumerate(s.verdicts)
    ]


def _runs(s: Setting) -> str:
    rank = "" if s.rank is None else f"rank {s.rank}, "
    rank = f"same checkpoint as {s.shares}, " if s.shares else rank
    return f"{rank}{len(s.counted)} of {plural(len(s.trials), 'run')} counted"


def _confidence(value: float) -> str:
    return "> 99.9 %" if value > 0.999 else f"{100 * value:.1f} %"


def decision_rows(summary: Summary) -> list[DecisionRow]:
    """The stop rule's verdicts that stopped or paused a trial, in the order of the journal.

    The others stand with their trial when it is in focus, and in `report.json`.
    """
    found = [(d, t.label) for t in summary.trials for d in t.decisions if d.action != "CONTINUE"]
    return [
        DecisionRow(label, "" if d.step is None else f"{d.step:,}", d.action, d.phase, d.reason)
        for d, label in sorted(found, key=lambda pair: pair[0].seq)
    ]


def effect_heads(summary: Summary) -> list[str]:
    fitted = {e.metric for e in summary.effects}
    return [m for m in summary.panels if m in fitted]


def effect_rows(summary: Summary) -> list[AxisRow]:
    """One row for each contrast of an axis, a cell for each metric."""
    found: dict[tuple[str, str], dict[str, Effect]] = {}
    for e in summary.effects:
        found.setdefault((e.axis, e.contrast), {})[e.metric] = e
    heads = effect_heads(summary)
    return [
        AxisRow(axis, contrast, [_effect_cell(by_metric.get(m), summary.sign(m)) for m in heads])
        for (axis, contrast), by_metric in found.items()
    ]


def _effect_cell(e: Effect | None, sign: float) -> Cell:
    if e is None:
        return Cell("–")
    d = e.difference
    tone = "" if not d.real else "up" if sign * d.value > 0 else "down"
    more = f"{number(d.low, signed=True)} to {number(d.high, signed=True)}" + ("" if d.real else "; not told from none")
    return Cell(number(d.value, signed=True), more=more, tone=tone, num=True)


def importance_rows(summary: Summary) -> list[AxisRow]:
    """One row for each axis, and for each pair of axes whose interplay could be looked at."""
    found: dict[tuple[str, ...], dict[str, Importance]] = {}
    for i in summary.importances:
        found.setdefault(i.axes, {})[i.metric] = i
    heads = effect_heads(summary)
    return [
        AxisRow(" and ".join(axes), "", [_share_cell(by_metric.get(m)) for m in heads])
        for axes, by_metric in found.items()
    ]


def _share_cell(i: Importance | None) -> Cell:
    if i is None:
        return Cell("–")
    return Cell(percent(i.share), more="" if i.real else "not told from none", num=True)
