"""The journal's rows, version 1: the one vocabulary that every part of dipsweep reads and writes.

A row is one fact about a sweep. Scores, verdicts, ends of trials are all rows; the report, the stop rule and a resumed
driver see nothing else. Two rules keep rows honest: what was not measured is absent (never 0), and a number that is not
finite stands in `invalid` as text, never in `metrics`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, get_args

from sweeps.config.names import JUDGED_ROLES
from sweeps.errors import JournalError

VERSION: Final = 1
Kind = Literal["sweep", "trial", "attempt", "report", "eval", "verdict", "control", "commit", "end", "lease"]
KINDS: Final = frozenset(get_args(Kind))
ROLES: Final = (*JUDGED_ROLES, "train", "length", "perf")
BASE_PREFIX: Final = "base-"

_EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """One journal row.

    Attributes:
        kind: what sort of fact this is.
        sweep, trial: ids. Step 0 of a model has the trial id `base-<model>`.
        attempt: which run of the trial on machines, from 1.
        step: the trainer's own optimizer step, never Ray's `training_iteration`.
        budget: optimizer steps that the trial is meant to run.
        metrics: finite numbers by name (`role/name`); absent means not measured.
        se: standard error of a metric, in the metric's own unit. n: items behind it.
        invalid: metrics that came out not finite, as text (`"nan"`, `"inf"`).
        suite: version of the evaluation suite; scores of two suites are never put on one curve.
        checkpoint: digest or path of the weights that were scored or saved.
        progress: `tokens, label_tokens, rows, epoch` so far. cost: `gpu_s, cpu_s`, cumulative per attempt.
        config: the trial's resolved hyperparameters.
        extra: keys of one kind only (`action`, `reason`, …), and keys this version does not know, kept as they came.
        seq: position in the driver's log; -1 before it is written.
    """

    kind: Kind
    sweep: str
    trial: str = ""
    attempt: int = 0
    step: int | None = None
    budget: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    se: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    suite: str = ""
    checkpoint: str = ""
    progress: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    seq: int = -1

    def to_json(self) -> dict[str, Any]:
        """Returns the row as plain JSON, without what is empty."""
        out: dict[str, Any] = {"v": VERSION, "seq": self.seq, "kind": self.kind, "sweep": self.sweep}
        for name in _FIELDS:
            value = getattr(self, name)
            if value is not None and value != "" and value != {} and not (name == "attempt" and not value):
                out[name] = dict(value) if isinstance(value, Mapping) else value
        return {**self.extra, **out}

    def line(self) -> str:
        """Returns the row as one line of strict JSON (no NaN), newline included.

        Raises:
            JournalError: a number in the row is not finite.
        """
        try:
            return json.dumps(self.to_json(), allow_nan=False, separators=(",", ":"), sort_keys=False) + "\n"
        except ValueError as e:
            raise JournalError(f"row of kind {self.kind!r}, trial {self.trial!r}: {e}; use split_finite") from e

    def at(self, seq: int) -> Row:
        """Returns the same row with its place in the driver's log."""
        return replace(self, seq=seq)


_SPECIAL: Final = {"kind", "sweep", "seq", "extra"}
_NAMES: Final = tuple(f.name for f in fields(Row))
_FIELDS: Final = tuple(name for name in _NAMES if name not in _SPECIAL)
_MAPPINGS: Final = frozenset({"metrics", "se", "n", "invalid", "progress", "cost", "config"})
_NUMBERS: Final = frozenset({"step", "budget", "attempt"})
_DEFAULTS: Final[tuple[Any, ...]] = tuple(
    {"attempt": 0, "step": None, "budget": None, "seq": -1}.get(n, _EMPTY if n in _MAPPINGS else "") for n in _NAMES
)
_SET: Final[tuple[Callable[[Row, Any], None], ...]] = tuple(getattr(Row, name).__set__ for name in _NAMES)
_SEEN: Final[dict[tuple[Any, ...], tuple[str, ...]]] = {}
"""Keys and types of rows that were found good -> which of the keys are no fields. A journal has a dozen of these."""
_MOST_SEEN: Final = 1000


def parse(data: Any) -> Row:
    """Builds a Row from JSON; keys that this version does not know go to `extra`.

    A journal has 100,000 rows of a dozen shapes, so a shape is looked at once: 2.5 us a row instead of 6.

    Raises:
        JournalError: `kind` is missing or unknown, or a field has the wrong shape.
    """
    shape = (*data, *map(type, data.values())) if type(data) is dict else ()
    others = _SEEN.get(shape)
    if others is None or data["kind"] not in KINDS:
        row, plain = _parse_with_care(data)
        if shape and plain and len(_SEEN) < _MOST_SEEN:
            _SEEN[shape] = tuple(name for name in data if name not in _NAMES and name != "v")
        return row
    row = Row.__new__(Row)  # a frozen dataclass sets its 17 fields one by one anyway, and slower
    for put, value in zip(_SET, map(data.get, _NAMES, _DEFAULTS), strict=True):
        put(row, value)
    _SET_EXTRA(row, {name: data[name] for name in others} if others else _EMPTY)
    return row


_SET_EXTRA: Final = _SET[_NAMES.index("extra")]


def _parse_with_care(data: Any) -> tuple[Row, bool]:
    """Returns the row, and whether another of the same keys and types may be taken over as it stands."""
    if not isinstance(data, Mapping):
        raise JournalError(f"a row is an object, not {type(data).__name__}")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise JournalError(f"row kind {kind!r} is unknown; known: {', '.join(sorted(KINDS))}")
    known = {name: _checked(name, data[name]) for name in _FIELDS if data.get(name) is not None}
    extra = {name: value for name, value in data.items() if name not in _NAMES and name != "v"}
    row = Row(kind, str(data.get("sweep", "")), seq=int(data.get("seq", -1)), extra=extra or _EMPTY, **known)  # type: ignore[arg-type]
    whole = all(data[name] is not None for name in _NAMES if name in data)
    return row, whole and type(data.get("sweep")) is str and type(data.get("seq")) is int and "extra" not in data


def _checked(name: str, value: Any) -> Any:
    if name in _MAPPINGS and not isinstance(value, Mapping):
        raise JournalError(f"row field {name!r} must be an object, not {type(value).__name__}")
    if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int)):
        raise JournalError(f"row field {name!r} must be a whole number, not {value!r}")
    if name not in _MAPPINGS and name not in _NUMBERS and not isinstance(value, str):
        raise JournalError(f"row field {name!r} must be text, not {value!r}")
    return value


def split_finite(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Splits measured numbers into (finite metrics, invalid as text)."""
    good = {k: float(v) for k, v in values.items() if math.isfinite(v)}
    bad = {k: str(float(v)) for k, v in values.items() if not math.isfinite(v)}
    return good, bad


def base_trial(model: str) -> str:
    """Returns the trial id under which a model's step-0 scores are written, once for all its trials."""
    return BASE_PREFIX + model
