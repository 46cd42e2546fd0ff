"""The journal's rows, version 1: the one vocabulary that every part of dipsweep reads and writes.

A row is one fact about a sweep, and each kind of fact is a type. Scores, verdicts, ends of trials are all rows; the
report, the stop rule and a resumed driver see nothing else. Two rules keep rows honest: what was not measured is absent
(never 0), and a number that is not finite stands in `invalid` as text, never in `metrics`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, Self, get_args

from sweeps.errors import JournalError
from sweeps.failures import FailureKind
from sweeps.journal.vocabulary import DRIVER, Action, ControlAction, EndOf, EndStatus, EvalStatus, Phase

VERSION: Final = 1
Kind = Literal[
    "sweep", "tier", "trial", "attempt", "report", "eval", "verdict", "control", "commit", "end", "lease", "note"
]
KINDS: Final = frozenset(get_args(Kind))
BASE_PREFIX: Final = "base-"


@dataclass(frozen=True, slots=True)
class Row:
    """What all kinds of rows have.

    Attributes:
        kind: what sort of fact this is; a constant of each type.
        sweep, trial: ids. Step 0 of a model has the trial id `base-<model>`.
        attempt: which run of the trial on machines, from 1.
        step: the trainer's own optimizer step, never Ray's `training_iteration`.
        budget: optimizer steps that the trial is meant to run.
        config: the trial's resolved hyperparameters.
        extra: keys that this version does not know, kept as they came.
        seq: position in the driver's log; -1 before it is written.
    """

    kind: ClassVar[Kind]
    always: ClassVar[frozenset[str]] = frozenset()
    """Fields that are written when they are empty too."""

    sweep: str
    trial: str = ""
    attempt: int = 0
    step: int | None = None
    _: KW_ONLY
    budget: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    seq: int = -1

    def to_json(self) -> dict[str, Any]:
        """Returns the row as plain JSON: its own keys, then those of all rows; without what is empty."""
        own, shared = _KEYS.get(type(self)) or _keys(type(self))
        out: dict[str, Any] = dict(self.extra)
        self._write(out, own)
        out |= {"v": VERSION, "seq": self.seq, "kind": self.kind, "sweep": self.sweep}
        self._write(out, shared)
        return out

    def _write(self, out: dict[str, Any], keys: Sequence[tuple[str, str, Any]]) -> None:
        for name, key, default in keys:
            value = getattr(self, name)
            if value != default or isinstance(value, StrEnum) or name in self.always:
                out[key] = _plain(value)

    def line(self) -> str:
        """Returns the row as one line of strict JSON (no NaN), newline included.

        Raises:
            JournalError: a number in the row is not finite.
        """
        try:
            return json.dumps(self.to_json(), allow_nan=False, separators=(",", ":"), sort_keys=False) + "\n"
        except ValueError as e:
            raise JournalError(f"row of kind {self.kind!r}, trial {self.trial!r}: {e}; use split_finite") from e

    def at(self, seq: int) -> Self:
        """Returns the same row with its place in the driver's log."""
        return replace(self, seq=seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow(Row):
    """The sweep begins: its name and definition, the number of trials it plans, the version that wrote it.

    `predicted` is what the plan expected it to cost when it began (`cluster.preflight.cost`); empty where nothing was.
    `experience` is what earlier sweeps said of it (`sweeps.controller.earlier_sweeps`); empty where none was asked for.
    `points` is what its search began with of earlier sweeps (`sweeps.controller.earlier_trials`); empty likewise.
    `rule` holds the settings of its stop rule that the definition leaves to their defaults, as far as these may change.
    """

    kind: ClassVar[Kind] = "sweep"
    name: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    trials: int | None = None
    version: int | None = None
    dipsweep: str = ""
    predicted: Mapping[str, Any] = field(default_factory=dict)
    experience: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[str, Any] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRow(Row):
    """What a data tier is for a model, before anything trains: the numbers that `dipsweep preview` shows.

    Attributes:
        model, tier: by the sweep's names. row_limit: longest row in tokens. long_rows: what happens to longer ones.
        replay: the tier's replay pool is among them.
        counts: `conversations` in the file, of which `measured` were tokenised; `bad` and `refused` ones, `duplicates`; of
            the rows that are trained on `rows`, `tokens`, `label_tokens`, `unknown` (tokens that stand for text which the
            tokenizer cannot write); `long` rows, above the limit.
        shares: of the conversations with a thought (`reasoning`), and of the tokens that stand in long rows (`long_tokens`).
        lengths, labels: tokens and learnt tokens of a row by decile, `0` the shortest, `100` the longest.
        ends: tokens that end a reply, and how many rows end so.
        evaluation: of the suite's `prompts` those `seen` in the tier, in `touched` conversations; empty where nobody looked.
    """

    kind: ClassVar[Kind] = "tier"
    model: str
    tier: str
    row_limit: int = 0
    long_rows: str = ""
    replay: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    evaluation: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, str, bool]:
        """What distinguishes two tier rows of a sweep."""
        return self.model, self.tier, self.row_limit, self.long_rows, self.replay


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow(Row):
    """A trial exists.

    Attributes:
        parent, fork_step: the trial that it begins from, at its last checkpoint not beyond that step.
        number, search: the search's number of the suggestion, and what rebuilds the search; None where a person (`by`)
            added the trial.
    """

    kind: ClassVar[Kind] = "trial"
    parent: str = ""
    fork_step: int | None = None
    number: int | None = None
    search: Mapping[str, Any] | None = None
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow(Row):
    """An attempt starts from the checkpoint at `step` (0: from scratch), on `workers` processes.

    `parent` is named where that checkpoint is another trial's; `fork_step` is its step then.
    `gpus` is what all of its workers hold: shares of GPUs too, of a process without Ray whole ones. None where they hold none,
    and in rows of early journals, whose reports count each worker's wall clock as a whole GPU's (`sweeps.journal.state`).
    """

    kind: ClassVar[Kind] = "attempt"
    workers: int | None = None
    gpus: float | None = None
    parent: str = ""
    fork_step: int | None = None

    @property
    def gpus_each(self) -> float:
        """GPUs of each worker, by which its wall clock is multiplied; 1 where the row names none."""
        return self.gpus / (self.workers or 1) if self.gpus else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow(Row):
    """Numbers were measured at a step: by the trainer (no `suite`), or by an evaluation.

    Attributes:
        metrics: finite numbers by name (`role/name`); absent means not measured.
        se: standard error of a metric, in the metric's own unit. n: items behind it.
        invalid: metrics that came out not finite, as text (`"nan"`, `"inf"`).
        suite: version of the evaluation suite; scores of two suites are never put on one curve.
        checkpoint: digest or path of the weights that were scored.
        progress: `tokens, label_tokens, rows, epoch` so far. cost: `gpu_s, cpu_s`, cumulative per attempt, of all its workers;
            `gpu_s` is wall clock times the GPUs that they hold (`sweeps.journal.state.reserved`).
        inherited: the parent trial that measured this, at a step that both share.
        items, parts: right or wrong, item by item, of each task; the tasks behind each metric.
    """

    kind: ClassVar[Kind] = "report"
    metrics: Mapping[str, float] = field(default_factory=dict)
    se: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    suite: str = ""
    checkpoint: str = ""
    progress: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    inherited: str = ""
    items: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRow(Row):
    """What became of the evaluation of a checkpoint, and what it cost.

    Attributes:
        reason: a sentence. failure: of one that failed: its kind; None in rows of early journals.
        tries: how often it was tried. given_up: it will have no scores; None where the row does not say.
        asked: of one that ended before all items were asked: how many `items`, `of` how many, and why.
        cost: `cpu_s` of the evaluator, and `gpu_s`, its wall clock times the share of a GPU that it holds.
        seconds: wall clock of one that answered on a GPU; None of others, and in early journals, whose `gpu_s` was that.
        cached: True where its scores were looked up; None where they were measured, and in early journals, which do not say it.
    """

    kind: ClassVar[Kind] = "eval"
    status: EvalStatus = EvalStatus.DONE
    reason: str = ""
    failure: FailureKind | None = None
    tries: int | None = field(default=None, metadata={"key": "try"})
    given_up: bool | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    suite: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    cached: bool | None = None

    @property
    def tells_duration(self) -> bool:
        """True where its cost is that of asking a model: not of an evaluation that failed, nor of scores that were looked up."""
        return self.status is EvalStatus.DONE and not self.cached and bool(self.cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow(Row):
    """What the stop rule decided, from the rows up to `seen`: one sentence, and the numbers behind it."""

    kind: ClassVar[Kind] = "verdict"
    always: ClassVar[frozenset[str]] = frozenset({"reason", "evidence"})
    action: Action
    phase: Phase = Phase.UNKNOWN
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seen: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRow(Row):
    """Somebody asked for something, or the driver did something with an attempt on its own account (`who: driver`).

    Attributes:
        refused: it cannot be done; `reason` says why. Else `reason` says what is done.
        failure: of a retry: what kind of failure broke the attempt. `preempted`: of a retry in early journals, which had
            no `failure`: the machine was taken away.
        request, when, args: the request's id, the asker's clock as text, and the arguments.
        asked: it was done in the course of a request that has a row of its own.
    """

    kind: ClassVar[Kind] = "control"
    who: str = ""
    action: ControlAction
    refused: bool = False
    reason: str = ""
    detail: str = ""
    failure: FailureKind | None = None
    preempted: bool = False
    request: str = ""
    when: str = ""
    args: Mapping[str, Any] | None = None
    asked: bool = False

    @property
    def is_asked(self) -> bool:
        """True for what somebody asked for, whatever their name; else the driver did it on its own account.

        A retry of the driver's names what broke. In early journals it did not: there the name alone tells.
        """
        own = self.failure is not None or self.preempted or self.who == DRIVER
        return bool(self.request) or self.asked or not own

    def to_json(self) -> dict[str, Any]:
        """As for all rows; a refused action is written as `extend refused`."""
        out = Row.to_json(self)
        if out.pop("refused", False):
            out["action"] = f"{self.action}{REFUSED}"
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRow(Row):
    """A checkpoint is whole; or its files were deleted (`dropped`), or cannot be used (`damaged`, with the reason).

    Attributes:
        path: where it lies, inside the sweep's folder where it can.
        checkpoint: digest of its weights.
    """

    kind: ClassVar[Kind] = "commit"
    path: str
    dropped: bool = False
    damaged: bool = False
    reason: str = ""
    checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRow(Row):
    """The end of a trial's training, of a trial with its last score, or of the sweep.

    `reason` is a sentence, or of a failure a word (`oom`, `diverged`, …), with more in `detail` and its kind in `failure`.
    """

    kind: ClassVar[Kind] = "end"
    of: EndOf = EndOf.SCORING
    status: EndStatus = EndStatus.COMPLETED
    reason: str | None = None
    detail: str = ""
    failure: FailureKind | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow(Row):
    """A driver took the sweep: host, process, user, its clock as text, number and token of its lease.

    `user` is who runs it, or who submitted the job that does; empty where nobody knows, and in early journals.
    """

    kind: ClassVar[Kind] = "lease"
    host: str = ""
    pid: int | None = None
    since: str = ""
    lease: int | None = None
    token: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRow(Row):
    """A person wrote something on the sweep, or on a trial: a text, tags, or both (`sweeps.journal.notes`).

    Attributes:
        who, when: the person's name, and their clock as text.
        tags: True for a tag that is set from here on, False for one that is taken away.
    """

    kind: ClassVar[Kind] = "note"
    who: str = ""
    when: str = ""
    text: str = ""
    tags: Mapping[str, bool] = field(default_factory=dict)


ROW_TYPES: Final[Mapping[str, type[Row]]] = {
    row.kind: row
    for row in (
        SweepRow,
        TierRow,
        TrialRow,
        AttemptRow,
        ReportRow,
        EvalRow,
        VerdictRow,
        ControlRow,
        CommitRow,
        EndRow,
        LeaseRow,
        NoteRow,
    )
}
REFUSED: Final = " refused"
_FIRST: Final = ("sweep", "extra", "seq")  # written by themselves
_SHARED: Final = ("trial", "attempt", "step", "budget", "metrics", "se", "n", "invalid", "suite", "checkpoint",
                  "progress", "cost", "config")  # fmt: skip
_KEYS: Final[dict[type[Row], tuple[list[tuple[str, str, Any]], list[tuple[str, str, Any]]]]] = {}


def json_key(f: Field[Any]) -> str:
    """Returns the key under which a field of a row is written."""
    return str(f.metadata.get("key", f.name))


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    return dict(value) if isinstance(value, Mapping) else value


def _keys(row: type[Row]) -> tuple[list[tuple[str, str, Any]], list[tuple[str, str, Any]]]:
    """Returns (field, key, what counts as empty) of a row's own fields, and of those that stand in all kinds alike."""
    keys = {f.name: (f.name, json_key(f), _empty(f)) for f in fields(row) if f.name not in _FIRST}
    own = [key for name, key in keys.items() if name not in _SHARED]
    return _KEYS.setdefault(row, (own, [keys[name] for name in _SHARED if name in keys]))


def _empty(f: Field[Any]) -> Any:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return None if f.default is MISSING else f.default


def split_finite(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Splits measured numbers into (finite metrics, invalid as text)."""
    good = {k: float(v) for k, v in values.items() if math.isfinite(v)}
    bad = {k: str(float(v)) for k, v in values.items() if not math.isfinite(v)}
    return good, bad


def base_trial(model: str) -> str:
    """Returns the trial id under which a model's step-0 scores are written, once for all its trials."""
    return BASE_PREFIX + model
