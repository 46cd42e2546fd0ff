"""Where a sweep's compute went: training, scoring, work that was done twice, and what stopping and sharing saved.

Everything is in seconds of devices, from the journal's own costs, over all attempts and drivers. What was saved never ran, so
it is an estimate: the steps that were not run, at the trial's own seconds a step (of a branch that ended with its trunk before
it began, at the trunk's).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sweeps.journal.rows import AttemptRow, ReportRow, Row
from sweeps.journal.start_ups import StartUps
from sweeps.report.analysis.costs.totals import STOPPED, step_cost
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Spent, Trial


@dataclass(frozen=True, slots=True)
class Line:
    """One trial's account, or the sum of all; seconds.

    Attributes:
        training: of all attempts, `repeated` included. scoring: of its evaluations; of a sum, those of the base models too.
        repeated: training beyond the checkpoint that the next attempt began from: it was done again.
        stopped: what the stop rule saved. shared: what a parent's first steps saved.
    """

    training: float = 0.0
    scoring: float = 0.0
    repeated: float = 0.0
    stopped: float = 0.0
    shared: float = 0.0

    def __add__(self, other: Line) -> Line:
        return Line(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Ledger:
    """A sweep's account by trial, in order of appearance, and in sum; `unit` is `gpu_s` where any GPU was used, else `cpu_s`.

    `starts` is beside it: seconds of wall clock before first steps, most of which no trial's training counts. So are CPU seconds
    where the unit is `gpu_s`.
    """

    trials: Mapping[str, Line]
    labels: Mapping[str, str]
    total: Line
    unit: str
    starts: StartUps = field(default_factory=StartUps)
    cpu_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the account as plain JSON."""
        each = {trial: asdict(line) for trial, line in self.trials.items()}
        return {
            "unit": self.unit,
            "total": asdict(self.total),
            "trials": each,
            "start_up": asdict(self.starts),
            "beside": {"cpu_s": self.cpu_s},
        }


def ledger(rows: Iterable[Row], summary: Summary) -> Ledger:
    """Returns the account of a sweep; `summary` is of the same rows."""
    rows = list(rows)
    unit = "gpu_s" if summary.costs.training.gpu_s or summary.costs.scoring.gpu_s else "cpu_s"
    repeated = repeated_work(rows, unit)
    by_id = {t.id: t for t in summary.trials}
    lines = {t.id: _line(t, unit, repeated.get(t.id, 0.0), step_cost(t, by_id)) for t in summary.trials}
    total = sum(lines.values(), Line())
    bases = getattr(summary.costs.scoring, unit) - total.scoring
    labels = {t.id: t.label for t in summary.trials}
    beside = (summary.costs.training + summary.costs.scoring).cpu_s if unit == "gpu_s" else 0.0
    return Ledger(lines, labels, total + Line(scoring=bases), unit, summary.costs.starts, beside)


def _line(trial: Trial, unit: str, repeated: float, step: Spent) -> Line:
    pace = getattr(step, unit)
    own = (trial.budget or 0) - (trial.fork_step or 0)
    missing = max(own - trial.own_steps, 0) if trial.state in STOPPED else 0
    return Line(
        training=getattr(trial.training, unit),
        scoring=getattr(trial.scoring, unit),
        repeated=repeated,
        stopped=missing * pace,
        shared=(trial.fork_step or 0) * pace if trial.attempts or trial.state in STOPPED else 0.0,
    )


def repeated_work(rows: Sequence[Row], unit: str) -> dict[str, float]:
    """Returns, by trial, the seconds of training beyond the step at which the next attempt began."""
    begun: dict[tuple[str, int], int] = {}
    costs: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in rows:
        if isinstance(row, AttemptRow):
            begun[row.trial, row.attempt] = row.step or 0
        elif isinstance(row, ReportRow) and row.step is not None and unit in row.cost:
            costs.setdefault((row.trial, row.attempt), []).append((row.step, row.cost[unit]))
    repeated: dict[str, float] = {}
    for (trial, attempt), found in costs.items():
        later = [start for (other, n), start in begun.items() if other == trial and n > attempt]
        if not later:
            continue
        kept = max((cost for step, cost in found if step <= min(later)), default=0.0)
        lost = max(cost for _, cost in found) - kept
        repeated[trial] = repeated.get(trial, 0.0) + max(0.0, lost)
    return repeated


def ledger_text(account: Ledger, usd_per_gpu_hour: float | None = None) -> str:
    """Returns the account as a table; with a price also the money."""
    names = [f.name for f in fields(Line)]
    head = ["trial", *names]
    rows = [[account.labels[t], *_cells(line)] for t, line in account.trials.items()]
    rows.append(["in all, base models included", *_cells(account.total)])
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = []
    for first, *numbers in [head, *rows]:
        cells = [first.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    device = "GPU" if account.unit == "gpu_s" else "CPU"
    lines.append(f"seconds of {device}s; training includes repeated; stopped and shared were saved, and are estimates")
    if account.cpu_s:
        lines.append(f"{account.cpu_s:,.1f} seconds of CPUs beside it, of what trained or was scored without a GPU")
    if account.starts.attempts:
        lines.append(f"starts of attempts: {account.starts}")
    if usd_per_gpu_hour is not None and device == "GPU":
        hours = (account.total.training + account.total.scoring) / 3600
        lines.append(f"{hours:.3g} GPU hours, {hours * usd_per_gpu_hour:,.2f} USD")
    return "\n".join(lines)


def _cells(line: Line) -> list[str]:
    return [f"{getattr(line, f.name):,.1f}" for f in fields(line)]
