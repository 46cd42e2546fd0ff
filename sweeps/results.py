"""A sweep's results in Python, finished or still running: typed rows, and the same as pandas DataFrames.

    from sweeps import load

    r = load("runs/first-1a2b3c4d")          # or an s3:// address
    print(r)                                 # the answer, in sentences
    r.best.metrics["transfer/score"].change  # the best setting's change from the base, with its 95 % range
    r.curves().to_pandas()                   # every score, one a row

Everything comes from the journal alone, through the same analysis as the report (`sweeps.report`), so both always agree.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from sweeps.errors import InputError
from sweeps.journal.notes import NoteReader
from sweeps.journal.reader import LogReader
from sweeps.journal.writer import is_sweep, sweeps_in
from sweeps.replies import KeptReply, read_replies
from sweeps.report.analysis.findings.settings import Setting, SettingMetric
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Trial, UserNote
from sweeps.report.analysis.summarize import summarize, with_notes
from sweeps.report.analysis.wording import compact, number
from sweeps.storage.base import Store, Where, is_url, join
from sweeps.storage.factory import open_store

if TYPE_CHECKING:
    import pandas

    from sweeps.replies import KeptReply

R = TypeVar("R")
SHOWN = 20
"""Rows of a table that a notebook shows."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One score of one trial; step 0 is its base model's. `se`, `n`: standard error, and the items behind it."""

    trial: str
    label: str
    metric: str
    step: int
    value: float
    se: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The last score of a setting on one metric, the mean over its seeds, against its base.

    Attributes:
        setting: id of its first trial. config: its hyperparameters, without the seed.
        items_se, seeds_se: standard errors over items and over `runs` seeds.
        change, low, high: from the base, with its 95 % range. real: told from no change (`sweeps.report`).
    """

    setting: str
    label: str
    metric: str
    step: int
    value: float
    items_se: float | None
    seeds_se: float | None
    runs: int
    n: int | None
    base: float | None
    change: float | None
    low: float | None
    high: float | None
    real: bool | None
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial: its status, its last score on the objective, its hyperparameters.

    `shares` is the trial that is ranked for the same best checkpoint, so that this one has no rank; else empty.
    """

    trial: str
    label: str
    state: str
    rank: int | None
    shares: str
    steps_run: int
    budget: int | None
    objective: float | None
    se: float | None
    meets: bool | None
    reason: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """A conclusion on a setting. `confidence`: 1 less the share of calls so strong that are expected to be wrong."""

    setting: str
    label: str
    verdict: str
    metric: str
    sentence: str
    confidence: float | None
    settle: str


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One verdict of the stop rule on a trial, as the journal has it."""

    trial: str
    label: str
    seq: int
    step: int | None
    action: str
    phase: str
    reason: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one trial took, in seconds, all its attempts together. `steps_shared`: taken from a parent's checkpoint."""

    trial: str
    label: str
    state: str
    own_steps: int
    steps_shared: int
    training_cpu_s: float
    training_gpu_s: float
    scoring_cpu_s: float
    scoring_gpu_s: float


class Table(Sequence[R], Generic[R]):
    """Rows of one type, in order; a sequence, and a DataFrame when asked.

    Example:
        >>> curves = r.curves()
        >>> [p.value for p in curves if p.trial == "t-1a2b3c4d"]
        >>> curves.to_pandas().pivot(index="step", columns="label", values="value")
    """

    def __init__(self, kind: type[R], rows: Sequence[R]) -> None:
        self.kind, self._rows = kind, tuple(rows)

    @property
    def columns(self) -> list[str]:
        """The names of a row's fields."""
        return [f.name for f in fields(self.kind)]  # type: ignore[arg-type]

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Table[R]: ...
    def __getitem__(self, index: int | slice) -> R | Table[R]:
        return Table(self.kind, self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self._rows)

    def where(self, test: Callable[[R], bool]) -> Table[R]:
        """Returns the rows for which a function is true."""
        return Table(self.kind, [row for row in self._rows if test(row)])

    def records(self) -> list[dict[str, Any]]:
        """Returns the rows as plain dicts; a mapping becomes one key for each of its own, such as `config.learning_rate`."""
        return [_flat({name: getattr(row, name) for name in self.columns}) for row in self._rows]

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the rows as a DataFrame.

        Raises:
            InputError: pandas is not installed (it comes with `ray[tune]`).
        """
        try:
            import pandas
        except ImportError as e:
            raise InputError("a DataFrame needs pandas: pip install pandas; records() gives plain dicts") from e
        records = self.records()
        names = dict.fromkeys(name for record in records for name in record)
        return pandas.DataFrame(records, columns=list(names) or self.columns)

    def write(self, path: Path | str) -> Path:
        """Writes the rows to a file, CSV or Parquet by its suffix, and returns its path.

        Raises:
            InputError: another suffix.
        """
        path = Path(path)
        if path.suffix == ".csv":
            _write_csv(path, self.records(), self.columns)
        elif path.suffix == ".parquet":
            _write_parquet(path, self.records(), self.columns)
        else:
            raise InputError(f"{path.name}: got suffix {path.suffix!r}; expected .csv or .parquet")
        return path

    def __repr__(self) -> str:
        return f"{len(self)} x {self.kind.__name__}({', '.join(self.columns)})"

    def _repr_html_(self) -> str:
        records = self.records()[:SHOWN]
        names = list(dict.fromkeys(name for record in records for name in record)) or self.columns
        body = [[_shown(record.get(name)) for name in names] for record in records]
        more = f"<p>and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        return _table(names, body) + more


class Results:
    """A sweep's results as they are in its journal now; `refresh` reads what came since.

    Args:
        home: the sweep's folder or address. Use `load`, which checks it.

    Attributes:
        path: the sweep's folder; for a bucket, its store.
    """

    def __init__(self, home: Where) -> None:
        self._store = open_store(home)
        self._reader, self._notes = LogReader(self._store), NoteReader(self._store)
        self._summary: tuple[int, Summary] | None = None

    @property
    def path(self) -> Path | Store:
        return self._store.local() or self._store

    @property
    def report(self) -> str:
        """Path or address of its page, as text; `run` writes it, and so does `dipsweep report`."""
        return join(self._store.root, "report/index.html")

    @property
    def summary(self) -> Summary:
        """Everything that the report says, as plain objects."""
        if self._summary is None:
            self.refresh()
        assert self._summary is not None
        return self._summary[1]

    def refresh(self) -> Results:
        """Reads what the journal holds beyond what was read, and returns itself."""
        rows = self._reader.rows()
        if self._summary is None or self._summary[0] != len(rows):
            self._summary = len(rows), summarize(rows)
        self._summary = len(rows), with_notes(self._summary[1], self._notes.rows())
        return self

    @property
    def id(self) -> str:
        return self._store.name

    @property
    def answer(self) -> list[str]:
        """The first screen of the report, a sentence each."""
        return [finding.sentence for finding in self.summary.answer]

    @property
    def best(self) -> Setting | None:
        """The best setting: mean over seeds, among complete ones that meet every constraint; None while there is none."""
        return next(iter(self.summary.ranked()), None)

    @property
    def best_trial(self) -> Trial | None:
        """An example of the best setting: the seed nearest to its mean."""
        return self.trial(self.summary.best[0]) if self.summary.best else None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings in order of appearance: the trials of one configuration, whatever their seed."""
        return self.summary.settings

    @property
    def trials(self) -> Table[TrialRow]:
        return Table(TrialRow, [_trial_row(t) for t in self.summary.trials])

    def trial(self, id: str) -> Trial:
        """Returns all that is known of one trial.

        Raises:
            InputError: there is none of this id.
        """
        found = next((t for t in self.summary.trials if t.id == id), None)
        if found is None:
            raise InputError(f"no trial {id!r}; there are {', '.join(t.id for t in self.summary.trials[:8])}")
        return found

    def curves(self, *metrics: str) -> Table[CurvePoint]:
        """Returns every score of every trial, or those of the given metrics; a branch has its parent's before the fork."""
        points = [p for t in self.summary.trials for p in self._curve(t)]
        return Table(CurvePoint, [p for p in points if not metrics or p.metric in metrics])

    def _curve(self, t: Trial) -> Iterator[CurvePoint]:
        bases = self.summary.bases.get(str(t.config.get("model", "")), {})
        for metric, points in t.curves.items():
            base = [bases[metric]] if metric in bases else []
            for p in (*base, *points):
                yield CurvePoint(t.id, t.label, metric, p.step, p.value, p.se, p.n)

    def scores(self) -> Table[ScoreRow]:
        """Returns the last scores of every setting, a metric a row, with their errors and changes from the base."""
        rows = [_score_row(s, m) for s in self.summary.settings for m in s.metrics.values()]
        return Table(ScoreRow, rows)

    def verdicts(self) -> Table[VerdictRow]:
        """Returns what can be concluded on every setting."""
        found = [
            VerdictRow(s.id, s.label, v.kind.value, v.metric, v.sentence, v.confidence, v.settle)
            for s in self.summary.settings
            for v in s.verdicts
        ]
        return Table(VerdictRow, found)

    def decisions(self) -> Table[DecisionRow]:
        """Returns every verdict of the stop rule, in the order of the journal."""
        found = [
            DecisionRow(t.id, t.label, d.seq, d.step, d.action, d.phase, d.reason)
            for t in self.summary.trials
            for d in t.decisions
        ]
        return Table(DecisionRow, sorted(found, key=lambda d: d.seq))

    def notes(self) -> Table[UserNote]:
        """Returns what people wrote on the sweep and its trials, oldest first; `dipsweep note` writes more."""
        return Table(UserNote, self.summary.user_notes)

    @property
    def tags(self) -> tuple[str, ...]:
        """The sweep's tags; those of a trial are `trial(id).tags`."""
        return self.summary.tags

    def costs(self) -> Table[CostRow]:
        """Returns what every trial took; `summary.costs` adds up, the base models' scoring included."""
        return Table(CostRow, [_cost_row(t) for t in self.summary.trials])

    def replies(
        self, trial: str | None = None, step: int | None = None, *, role: str | None = None, task: str | None = None
    ) -> Table[KeptReply]:
        """Returns the kept replies behind the scores of a trial, by default of `best_trial`.

        Args:
            trial: its id, or `base-<model>` for a base model. step, role, task: only those.

        Raises:
            InputError: none were kept, or there is no best trial yet.
        """
        if trial is None and self.best_trial is None:
            raise InputError("there is no best trial yet; give the id of one")
        whose = trial if trial is not None or self.best_trial is None else self.best_trial.id
        assert whose is not None
        return Table(KeptReply, read_replies(self._store, whose, step, role=role, task=task))

    def __truediv__(self, part: str) -> Path | Store:
        """Returns a path, or a store, below the sweep's folder."""
        return self.path / part

    def __str__(self) -> str:
        return self._store.root

    def __repr__(self) -> str:
        return "\n".join([f"Results of {self._store.root}", *(f"  {sentence}" for sentence in self.answer)])

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.answer)
        body = [
            [_shown(v) for v in (s.rank, s.label, *self._of(s), ", ".join(v.kind.value for v in s.verdicts))]
            for s in sorted(self.settings, key=lambda s: s.rank or len(self.settings) + 1)[:SHOWN]
        ]
        heads = ["rank", "setting", self.summary.objective, "change", "verdicts"]
        return f"<p><b>{escape(self.id)}</b></p><ul>{said}</ul>{_table(heads, body)}"

    def _of(self, s: Setting) -> tuple[str, str]:
        m = s.metrics.get(self.summary.objective)
        if m is None:
            return "–", "–"
        return number(m.value), "–" if m.change is None else number(m.change.value, signed=True)


def load(where: Where) -> Results:
    """Returns the results of a sweep, finished or still running.

    Args:
        where: its folder, such as `runs/first-1a2b3c4d`, or its s3:// address.

    Raises:
        InputError: there is no sweep; it says which ones there are.
        JournalError: its journal is damaged.

    Example:
        >>> from sweeps import load
        >>> r = load("runs/first-1a2b3c4d")
        >>> r.best.label, r.answer[0]
    """
    if not is_url(where) and not isinstance(where, Store) and not Path(where).is_dir():
        raise InputError(f"{where}: no such folder; give a sweep's, such as runs/NAME-1a2b3c4d")
    home = open_store(where if is_url(where) or isinstance(where, Store) else Path(where).resolve())
    if not is_sweep(home):
        inside = [found.name for found in sweeps_in(home)]
        which = (
            f"; it holds {', '.join(inside[:8])}: give one of them" if inside else "; give a sweep's folder or address"
        )
        raise InputError(f"{where} is no sweep{which}")
    return Results(home).refresh()


def _trial_row(t: Trial) -> TrialRow:
    value, se = (None, None) if t.objective is None else (t.objective.value, t.objective.se)
    return TrialRow(
        t.id, t.label, t.state, t.rank, t.shares, t.steps_run, t.budget, value, se, t.meets, t.reason, t.config
    )


def _score_row(s: Setting, m: SettingMetric) -> ScoreRow:
    d = m.change
    return ScoreRow(
        setting=s.id,
        label=s.label,
        metric=m.metric,
        step=m.step,
        value=m.value,
        items_se=m.items_se,
        seeds_se=m.seeds_se,
        runs=m.runs,
        n=m.n,
        base=None if m.base is None else m.base.value,
        change=None if d is None else d.value,
        low=None if d is None else d.low,
        high=None if d is None else d.high,
        real=None if d is None else d.real,
        config=s.config,
    )


def _cost_row(t: Trial) -> CostRow:
    spent = (t.training.cpu_s, t.training.gpu_s, t.scoring.cpu_s, t.scoring.gpu_s)
    return CostRow(t.id, t.label, t.state, t.own_steps, t.fork_step or 0, *spent)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in record.items():
        out |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return out


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    names = list(dict.fromkeys(name for record in records for name in record)) or list(columns)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        writer.writerows(records)


def _write_parquet(path: Path, records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Writes a column of several types, such as a setting that is a number or a word, as text."""
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for record in records for name in record)) or list(columns)
    data = {name: _one_type([record.get(name) for record in records]) for name in names}
    pyarrow.parquet.write_table(pyarrow.table(data), path)


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(v) for v in values if v is not None}
    if len(kinds) <= 1:
        return values
    cast: Callable[[Any], Any] = float if kinds == {int, float} else str
    return [None if v is None else cast(v) for v in values]


def _shown(value: Any) -> str:
    return "–" if value is None else compact(value)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
