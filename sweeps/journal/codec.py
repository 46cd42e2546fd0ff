"""From JSON to rows: every shape is checked, and what is wrong is said with what was got and what was expected.

A journal has 100,000 rows of a dozen shapes. So the keys and types of a row are looked at once for each shape, and after
that only what the types do not tell: 2.5-3 us a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import StrEnum
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from pydantic_core import from_json

from sweeps.errors import JournalError
from sweeps.journal.rows import KINDS, REFUSED, ROW_TYPES, VERSION, ControlRow, Row, json_key
from sweeps.journal.vocabulary import OLD_ACTIONS, Action, ControlAction

Check = Callable[[Any], Any]
_MOST_SHAPES: Final = 1000
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "tier": ("model", "tier"),
    "trial": ("trial",),
    "attempt": ("trial",),
    "report": ("trial",),
    "eval": ("trial",),
    "verdict": ("trial", "action"),
    "control": ("action",),
    "commit": ("trial", "step", "path"),
}
"""Keys without which a row of that kind says nothing."""


class NewerRow(JournalError):
    """A row of a journal version that this dipsweep does not know."""


class _Field(NamedTuple):
    """How a key becomes a field: the types that JSON may give it, and a check of its value where types do not tell."""

    name: str
    key: str
    put: Callable[[Row, Any], None]
    default: Any
    types: tuple[type, ...]
    expected: str
    check: Check | None


class _Shape(NamedTuple):
    """What to do with rows of the same kind, keys and types: all was looked at once but the values of `checks`."""

    row: type[Row]
    puts: tuple[Callable[[Row, Any], None], ...]
    keys: tuple[str, ...]
    defaults: tuple[Any, ...]
    checks: tuple[tuple[Callable[[Row, Any], None], str, Check], ...]
    unknown: tuple[str, ...]


_SHAPES: Final[dict[tuple[Any, ...], _Shape]] = {}
_EMPTY: Final[Mapping[str, Any]] = {}


def decode(line: bytes | str) -> Row:
    """Builds a row from one line of JSON.

    Raises:
        JournalError: the line is no JSON, or no row.
    """
    return parse(_json(line))


def _json(line: bytes | str) -> Any:
    try:  # pydantic's own reader takes a third of the time of json.loads
        return from_json(line, allow_inf_nan=False, cache_strings="keys")
    except ValueError as e:
        if "recursion limit" in str(e):
            raise JournalError(f"got JSON nested too deeply ({e}); expected an object of a few levels") from e
    try:  # it does not know half a surrogate pair, which a path in an error's text may hold
        return json.loads(line, parse_constant=_not_json)
    except (ValueError, RecursionError) as e:
        raise JournalError(f"got no JSON ({e}); expected one object a line") from e


def _not_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def parse(data: Any) -> Row:
    """Builds a row from JSON; keys that this version does not know go to `extra`.

    Raises:
        JournalError: no object, a kind that is unknown, a key of the wrong type, a value out of its range, a key that is
            missing, or a row that a newer version wrote.
    """
    try:
        key = (data["kind"], *data, *map(type, data.values()))
        shape = _SHAPES.get(key) or _look(data, key)
    except (TypeError, KeyError, AttributeError):
        shape = _look(data, ())
    row = shape.row.__new__(shape.row)  # a frozen dataclass sets its fields one by one anyway, and slower
    for put, value in zip(shape.puts, map(data.get, shape.keys, shape.defaults), strict=True):
        put(row, value)
    try:
        for put, name, check in shape.checks:
            put(row, check(data[name]))
    except _WRONG:
        raise _wrong(shape.row, data) from None
    _EXTRA(row, _extra(shape.row, data, shape.unknown) if shape.unknown else _EMPTY)
    if data.get("v", VERSION) != VERSION:
        raise _version(data["v"])
    if shape.row is ControlRow and data["action"].endswith(REFUSED):
        _REFUSED(row, True)
    return row


_EXTRA: Final[Callable[[Row, Any], None]] = vars(Row)["extra"].__set__
_REFUSED: Final[Callable[[Row, Any], None]] = vars(ControlRow)["refused"].__set__


def _extra(row: type[Row], data: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        if not _is_finite(data[name]):
            raise JournalError(f"{row.kind} row: got {name} {_shown(data[name])}; expected finite numbers")
    return {name: data[name] for name in names}


def _version(v: Any) -> JournalError:
    if isinstance(v, int) and not isinstance(v, bool) and v > VERSION:
        return NewerRow(f"written by a newer dipsweep (journal version {v}; this one reads {VERSION})")
    return JournalError(f"got journal version {_shown(v)}; expected {VERSION}")


def _look(data: Any, key: tuple[Any, ...]) -> _Shape:
    """Looks at all keys and types of a row, and remembers the outcome under `key` where there is one."""
    if not isinstance(data, dict):
        raise JournalError(f"got {_shown(data)}; expected a row, which is an object")
    if data.get("v", VERSION) != VERSION:
        raise _version(data["v"])
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise JournalError(f"got row kind {_shown(kind)}; expected one of {', '.join(sorted(KINDS))}")
    known = _fields(ROW_TYPES[kind])
    for f in known:
        value = data.get(f.key)
        if value is not None and type(value) not in f.types:
            raise JournalError(f"{kind} row: got {f.key} {_shown(value)}; expected {f.expected}")
    for name in _NEEDED.get(kind, ()):
        if data.get(name) in (None, ""):
            raise JournalError(f"{kind} row: got no {name}; expected one")
    keys = {f.key for f in known} | {"v", "kind"}
    given = tuple(f for f in known if data.get(f.key) is not None)
    absent = tuple(f for f in known if f not in given)
    plain = tuple(f for f in given if f.check is None)
    shape = _Shape(
        ROW_TYPES[kind],
        tuple(f.put for f in (*plain, *absent)),
        tuple(f.key for f in plain) + ("",) * len(absent),  # no row has a key "": the default is taken
        tuple(f.default for f in (*plain, *absent)),
        tuple((f.put, f.key, f.check) for f in given if f.check is not None),
        tuple(name for name in data if name not in keys),
    )
    if key and "" not in data and len(_SHAPES) < _MOST_SHAPES:
        _SHAPES[key] = shape
    return shape


def _wrong(row: type[Row], data: Mapping[str, Any]) -> JournalError:
    """Returns what is wrong with the first value that its check refuses."""
    for f in _fields(row):
        if f.check is None or data.get(f.key) is None:
            continue
        try:
            f.check(data[f.key])
        except _WRONG:
            return JournalError(f"{row.kind} row: got {f.key} {_shown(data[f.key])}; expected {f.expected}")
    raise AssertionError("a check refused a value and then took it")


_FIELDS: Final[dict[type[Row], tuple[_Field, ...]]] = {}


def _fields(row: type[Row]) -> tuple[_Field, ...]:
    if row in _FIELDS:
        return _FIELDS[row]
    hints = get_type_hints(row)
    out = list[_Field]()
    for f in fields(row):
        if f.name == "extra":
            continue
        types, expected, check = _rule(hints[f.name])
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        default = {"sweep": ""}.get(f.name, None if default is MISSING else default)
        out.append(_Field(f.name, json_key(f), getattr(row, f.name).__set__, default, types, expected, check))
    return _FIELDS.setdefault(row, tuple(out))


def _rule(hint: Any) -> tuple[tuple[type, ...], str, Check | None]:
    """Returns the JSON types of a field, a description of them, and a check of its value where types do not tell."""
    if get_origin(hint) is UnionType:
        [hint] = [arg for arg in get_args(hint) if arg is not NoneType]
    if get_origin(hint) is Mapping:
        item = get_args(hint)[1]
        if item is float:
            return (dict,), "finite numbers by name", _numbers
        if item is bool:
            return (dict,), "true or false by name", _flags
        if item is int:
            return (dict,), "whole numbers by name", _counts
        if item is str:
            return (dict,), "texts by name", _texts
        return (dict,), "an object without numbers that are not finite", _object
    if hint is ControlAction:
        return (str,), f"one of {', '.join(hint)}", _control_action
    if issubclass(hint, StrEnum):
        old = OLD_ACTIONS if hint is Action else {}
        return (str,), f"one of {', '.join(hint)}", {**hint._value2member_map_, **old}.__getitem__
    if hint is float:
        return (int, float), "a finite number, 0 or more", _amount
    names = {int: "a whole number", bool: "true or false", str: "text"}
    return (hint,), names[hint], None


def _control_action(text: str) -> ControlAction:
    """`extend refused` is an action too, which was refused."""
    return ControlAction(text.removesuffix(REFUSED))


def _numbers(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isfinite(sum(value.values())) and not all(map(isfinite, value.values())):  # text has no sum: a TypeError
        raise ValueError
    return value


def _amount(value: float) -> float:
    if not isfinite(value) or value < 0:
        raise ValueError
    return float(value)


_WRONG: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def _counts(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if type(sum(value.values())) is int:
        return value
    if any(int(v) != v for v in value.values()):
        raise ValueError
    return {name: int(v) for name, v in value.items()}


def _flags(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not all(type(v) is bool for v in value.values()):
        raise TypeError
    return value


def _texts(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not all(type(v) is str for v in value.values()):
        raise TypeError
    return value


def _object(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not _is_finite(value):
        raise ValueError
    return value


def _is_finite(value: Any) -> bool:
    """False where a number is not finite: JSON has none, but 1e400 is read as one."""
    if type(value) is float:
        return isfinite(value)
    if type(value) is dict:
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if type(value) is list else True


def _shown(value: Any) -> str:
    """Returns a value as an error shows it: not longer than a line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
