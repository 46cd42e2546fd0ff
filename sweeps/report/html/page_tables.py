"""The page's tables: trials, what was stopped or failed and why, groups by axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from sweeps.report.analysis.findings.axes import Contrast, Group, GroupMetric
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.analysis.shape import Reading, Shape
from sweeps.report.analysis.wording import compact, number, score, spent

WITHOUT_SHAPE = (Shape.NO_DIP, Shape.TOO_FEW)


@dataclass(frozen=True, slots=True)
class Head:
    text: str
    num: bool = False
    down: bool = False  # sorts downwards first


@dataclass(frozen=True, slots=True)
class Cell:
    """`sort` is what the column is ordered by; empty sorts last."""

    text: str
    sort: str | float = ""
    more: str = ""
    last: str = ""
    tone: str = ""
    num: bool = False
    state: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class TrialRow:
    id: str
    label: str
    parent: str
    cells: list[Cell]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairedRow:
    label: str
    at: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Reason:
    id: str
    label: str
    state: str
    what: str
    step: str
    why: str


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    counted: str
    cells: list[Cell]
    safety: str
    sentences: str


@dataclass(frozen=True, slots=True)
class PairRow:
    name: str
    count: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class AxisTable:
    name: str
    levels: list[Level]
    pairs: list[PairRow] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=list)


def trial_heads(summary: Summary) -> list[Head]:
    return [
        Head("Trial"),
        Head("Rank", num=True),
        Head("State"),
        Head("Steps", num=True, down=True),
        *(Head(m, num=True, down=True) for m in summary.panels),
        *([Head("Constraints")] if _constrained(summary) else []),
        Head("Cost", num=True, down=True),
    ]


def trial_rows(summary: Summary) -> list[TrialRow]:
    """Ranked trials first, then the others in order of appearance."""
    order = sorted(summary.trials, key=lambda t: summary.place(t) or len(summary.trials) + 1)
    return [TrialRow(t.id, t.label, t.parent or "", _cells(t, summary), t.tags) for t in order]


def _constrained(summary: Summary) -> bool:
    return any(t.checks for t in summary.trials)


def _cells(t: Trial, summary: Summary) -> list[Cell]:
    cost = t.training + t.scoring
    budget = "" if t.budget is None else f"of {t.budget:,}"
    return [
        _rank_cell(t, summary),
        Cell(t.state, t.state, state=t.state, more="" if t.phase in ("", "unknown") else t.phase),
        Cell(f"{t.steps_run:,}", t.steps_run, more=budget, num=True),
        *(_score_cell(t.readings.get(m), t, m) for m in summary.panels),
        *([_check_cell(t)] if _constrained(summary) else []),
        Cell(spent(cost), cost.cpu_s + cost.gpu_s, num=True),
    ]


def _rank_cell(t: Trial, summary: Summary) -> Cell:
    if t.shares:
        place = summary.place(t)
        return Cell(f"= {place}", place or "", num=True, more="same checkpoint")
    return Cell(
        "" if t.rank is None else str(t.rank), t.rank or "", num=True, more="tied" if t.id in summary.tied else ""
    )


def _score_cell(r: Reading | None, t: Trial, metric: str) -> Cell:
    if r is None or r.final is None:
        points = t.curves.get(metric)
        return Cell(score(points[-1] if points else None), points[-1].value if points else "", num=True)
    change = "" if r.change is None else number(r.change, signed=True)
    low = ""
    if r.shape not in WITHOUT_SHAPE and r.trough is not None:
        change += f" {r.shape.value}"
        low = f"low {number(r.trough.value)} at {r.trough.step:,}"
    tone = "up" if r.rose else "down" if r.held is False else ""
    return Cell(score(r.final), r.final.value, change, low, tone, num=True)


def _check_cell(t: Trial) -> Cell:
    failed = [c for c in t.checks if c.met is False]
    text = {True: "met", False: "not met", None: "not scored"}[t.meets]
    more = "; ".join(f"{c.metric} {number(c.value)}, wanted {c.rule}" for c in failed)
    return Cell(text, text, more, tone="down" if failed else "", wide=True)


def paired_rows(summary: Summary) -> list[PairedRow]:
    """Every trial whose answers were kept against its base, ranked ones first, a cell per panel."""
    order = sorted(summary.trials, key=lambda t: t.rank or len(summary.trials) + 1)
    signs = {m: summary.sign(m) for m in paired_heads(summary)}
    return [
        PairedRow(t.label, f"step {t.paired[0].step:,}", [_paired_cell(t, m, sign) for m, sign in signs.items()])
        for t in order
        if t.paired
    ]


def paired_heads(summary: Summary) -> list[str]:
    kept = {p.metric for t in summary.trials for p in t.paired}
    return [m for m in summary.panels if m in kept]


def _paired_cell(t: Trial, metric: str, sign: float) -> Cell:
    pair = next((p for p in t.paired if p.metric == metric), None)
    if pair is None:
        return Cell("–")
    found = f"{pair.lost} lost, {pair.gained} gained of {pair.items}"
    tone = "" if not pair.different else "down" if sign * pair.difference < 0 else "up"
    word = "different" if pair.different else "not told apart"
    seen = f"{word}; could see {100 * pair.visible:.1f}"
    return Cell(f"{100 * pair.difference:+.1f} ± {100 * pair.se:.1f}", more=seen, last=found, tone=tone, num=True)


def reason_rows(summary: Summary) -> list[Reason]:
    """One row for each trial that did not run to its budget, each evaluation that failed, each number not finite."""
    rows: list[Reason] = []
    for t in summary.trials:
        at = f"{t.steps_run:,}" + ("" if t.budget is None else f" of {t.budget:,}")
        if t.state in ("failed", "pruned", "paused"):
            rows.append(Reason(t.id, t.label, t.state, t.state, at, t.reason or "no reason was recorded"))
        for why in t.evals_failed:
            step, _, reason = why.partition(": ")
            rows.append(Reason(t.id, t.label, "failed", "evaluation failed", step.removeprefix("step "), reason))
        if t.invalid:
            rows.append(Reason(t.id, t.label, "failed", "not finite", "", "; ".join(t.invalid)))
    order = {"failed": 0, "pruned": 1, "paused": 2}
    return sorted(rows, key=lambda r: order[r.state])


def axis_tables(summary: Summary) -> list[AxisTable]:
    tables = []
    for axis, members in groupby(summary.groups, key=lambda g: g.axis):
        found = [c for c in summary.contrasts if c.axis == axis]
        pairs = [_pair_row(list(same), summary) for _, same in groupby(found, key=lambda c: repr(c.level))]
        levels = [_level(g, summary) for g in members]
        tables.append(AxisTable(axis, levels, pairs, [c.sentence for c in found]))
    return tables


def _pair_row(same: list[Contrast], summary: Summary) -> PairRow:
    by_name = {c.metric: c for c in same}
    cells = [_pair_cell(by_name.get(m)) for m in summary.panels]
    name = f"{compact(same[0].level)} against {compact(same[0].reference)}"
    return PairRow(name, str(max(c.pairs for c in same)), cells)


def _pair_cell(c: Contrast | None) -> Cell:
    if c is None:
        return Cell("–")
    return Cell(number(c.mean_change, signed=True), more=f"{c.higher} higher, {c.lower} lower")


def _level(g: Group, summary: Summary) -> Level:
    by_name = {m.metric: m for m in g.metrics}
    cells = [_group_cell(by_name.get(m)) for m in summary.panels]
    safety = f"{g.safety_cost} of {g.safety_known}" if g.safety_known else "–"
    return Level(compact(g.level), f"{g.completed} of {g.trials}", cells, safety, " ".join(g.sentences))


def _group_cell(m: GroupMetric | None) -> Cell:
    if m is None:
        return Cell("–")
    spread = "" if m.low == m.high else f"{number(m.low, signed=True)} to {number(m.high, signed=True)}; "
    held = f"held {m.held} of {m.of}" if m.of else "no s.e."
    return Cell(number(m.mean_change, signed=True), more=f"{spread}{held}")


@dataclass(frozen=True, slots=True)
class TierLine:
    """A data card: what one tier is for one model. `warn`: what a reader should look at; empty where there is nothing."""

    tier: str
    model: str
    conversations: str
    rows: str
    tokens: str
    learnt: str
    lengths: str
    warn: str


def tier_rows(summary: Summary) -> list[TierLine]:
    """One card for each tier and model that the journal describes."""
    return [
        TierLine(
            t.tier,
            t.model,
            f"{t.counts.get('conversations', 0):,}",
            f"{t.counts.get('rows', 0):,}",
            f"{t.counts.get('tokens', 0):,}",
            f"{t.counts.get('label_tokens', 0):,}",
            f"{t.lengths.get('50', 0):,}, at most {t.lengths.get('100', 0):,}" if t.lengths else "–",
            "; ".join(_tier_warnings(t.counts, t.evaluation, t.long_rows)) or "nothing",
        )
        for t in summary.tiers
    ]


def _tier_warnings(counts: Mapping[str, int], evaluation: Mapping[str, int], long_rows: str) -> Iterator[str]:
    for name, words in (
        ("bad", "bad"),
        ("refused", "refused"),
        ("duplicates", "said twice"),
        ("long", f"too long ({long_rows})"),
        ("unknown", "tokens for text the tokenizer cannot write"),
    ):
        if counts.get(name):
            yield f"{counts[name]:,} {words}"
    if evaluation.get("seen"):
        yield f"{evaluation['seen']:,} of {evaluation.get('prompts', 0):,} evaluation prompts stand in it"
