"""The axes of a search space, as small frozen objects.

`grid` axes are crossed in full; every other axis is sampled inside each cell of that grid by the search algorithm. An
axis that the algorithm itself should choose is a `choice`. Settings that belong together are columns of one `zip`, which is
crossed row by row; an axis with `when` is there only in trials whose other settings have the named values, and leaves its
setting at the default of `trainer` in all others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sweeps.errors import nearest

Scalar = str | int | float | bool
Conditions = Mapping[str, tuple[Scalar, ...]]
"""Settings to the values that they must have."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Base of all axes; `kind` is its name in YAML."""

    kind: ClassVar[str] = ""
    when: Conditions = field(default_factory=dict, kw_only=True)

    def is_active(self, settings: Mapping[str, Any]) -> bool:
        """True where the axis has a value in a trial with these other settings of the space."""
        return all(name in settings and settings[name] in values for name, values in self.when.items())

    def samples(self) -> tuple[Scalar, ...]:
        """Values that must be legal for the axis to be: all of a discrete axis, both ends of a range."""
        raise NotImplementedError

    def faults(self) -> Iterator[str]:
        """Yields one sentence for each thing wrong with the axis itself."""
        raise NotImplementedError

    def values_to_json(self) -> Any:
        return list(self.samples())

    def to_json(self) -> dict[str, Any]:
        """Returns the axis as a sweep file has it."""
        when = {name: list(values) for name, values in self.when.items()}
        return {self.kind: self.values_to_json(), **({"when": when} if when else {})}


@dataclass(frozen=True, slots=True)
class _Listed(Axis):
    values: tuple[Any, ...]

    def samples(self) -> tuple[Scalar, ...]:
        return self.values

    def faults(self) -> Iterator[str]:
        if not self.values:
            yield f"an empty {self.kind} gives no trials; list at least one value"
        yield from _value_faults(self.kind, self.values)
        seen = set()
        for value in self.values:
            if (key := (type(value), repr(value))) in seen:
                yield f"{self.kind} lists {value!r} twice; use search.repeats to run a cell more than once"
                return
            seen.add(key)


@dataclass(frozen=True, slots=True)
class Grid(_Listed):
    """All values, crossed with every other grid axis."""

    kind: ClassVar[str] = "grid"


@dataclass(frozen=True, slots=True)
class Choice(_Listed):
    """One of the values, picked by the search algorithm."""

    kind: ClassVar[str] = "choice"


@dataclass(frozen=True, slots=True)
class Zip(Axis):
    """Settings that change together: the first value of each column is one row, and rows are crossed with other grids."""

    kind: ClassVar[str] = "zip"
    columns: Mapping[str, tuple[Any, ...]]

    def values_to_json(self) -> Any:
        return {name: list(values) for name, values in self.columns.items()}

    def rows(self) -> list[dict[str, Scalar]]:
        """Returns the settings of each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=False)]

    def faults(self) -> Iterator[str]:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(self.columns) < 2:
            yield f"a zip pairs at least two settings, got {', '.join(self.columns) or 'none'}; use grid for one"
        elif len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            yield f"the columns of a zip must be equally long, but {listed} values"
        elif not any(lengths.values()):
            yield "an empty zip gives no trials; list at least one value in each column"
        else:
            for name, values in self.columns.items():
                yield from _value_faults(f"zip column {name}", values)
            rows = [tuple((type(v), repr(v)) for v in row.values()) for row in self.rows()]
            if len(set(rows)) < len(rows):
                yield "zip lists a row twice; use search.repeats to run a cell more than once"


def _value_faults(what: str, values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if not isinstance(value, str | int | float | bool):
            yield f"{what} value {_short(value)} must be a string, a number or true/false"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{what} value {value!r} is not finite"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True, slots=True)
class _Range(Axis):
    low: float
    high: float

    def samples(self) -> tuple[Scalar, ...]:
        return (self.low, self.high)

    def faults(self) -> Iterator[str]:
        ends = (self.low, self.high)
        if any(isinstance(x, bool) or not isinstance(x, int | float) for x in ends):
            yield f"{self.kind} takes two numbers [low, high], not {_short(list(ends))}"
        elif not all(abs(x) <= sys.float_info.max for x in ends):
            yield f"{self.kind} ends must be finite numbers, not {_short(list(ends))}"
        elif self.low >= self.high:
            yield f"{self.kind} [{self.low}, {self.high}] is empty or reversed; low must be below high"


@dataclass(frozen=True, slots=True)
class Uniform(_Range):
    """A float in [low, high]."""

    kind: ClassVar[str] = "uniform"


@dataclass(frozen=True, slots=True)
class LogUniform(_Range):
    """A float in [low, high], uniform in its logarithm."""

    kind: ClassVar[str] = "loguniform"

    def faults(self) -> Iterator[str]:
        faults = list(_Range.faults(self))
        yield from faults
        if not faults and self.low <= 0:
            yield f"loguniform needs low > 0, not {self.low}"


@dataclass(frozen=True, slots=True)
class RandInt(_Range):
    """A whole number in [low, high], both ends included."""

    kind: ClassVar[str] = "randint"

    def faults(self) -> Iterator[str]:
        faults = list(_Range.faults(self))
        yield from faults
        if not faults and not (isinstance(self.low, int) and isinstance(self.high, int)):
            yield f"randint takes whole numbers, not {[self.low, self.high]!r}"


AXES: Mapping[str, type[Axis]] = {a.kind: a for a in (Grid, Choice, Uniform, LogUniform, RandInt, Zip)}
When = Mapping[str, Scalar | Sequence[Scalar]]


def grid(*values: Scalar | Sequence[Scalar], when: When | None = None) -> Grid:
    """An axis whose values are all run: `grid(100, 200)` or `grid([100, 200])`."""
    return Grid(_flat(values), when=_conditions(when))


def choice(*values: Scalar | Sequence[Scalar], when: When | None = None) -> Choice:
    """An axis from whose values the search algorithm picks."""
    return Choice(_flat(values), when=_conditions(when))


def uniform(low: float, high: float, when: When | None = None) -> Uniform:
    """A float axis over [low, high]."""
    return Uniform(low, high, when=_conditions(when))


def loguniform(low: float, high: float, when: When | None = None) -> LogUniform:
    """A float axis over [low, high], uniform in its logarithm."""
    return LogUniform(low, high, when=_conditions(when))


def randint(low: int, high: int, when: When | None = None) -> RandInt:
    """A whole-number axis over [low, high], both ends included."""
    return RandInt(low, high, when=_conditions(when))


def zipped(when: When | None = None, **columns: Sequence[Scalar]) -> Zip:
    """Settings that change together: `zipped(model=["tiny-s", "tiny-m"], learning_rate=[3e-3, 1e-3])`."""
    return Zip({name: tuple(values) for name, values in columns.items()}, when=_conditions(when))


def _flat(values: Sequence[Any]) -> tuple[Scalar, ...]:
    if len(values) == 1 and isinstance(values[0], list | tuple):
        return tuple(values[0])
    return tuple(values)


def _conditions(when: Any) -> Conditions:
    """Reads `{name: value}` or `{name: [values]}`."""
    if when is None:
        return {}
    if not isinstance(when, Mapping):
        raise ValueError(f"got when: {_short(when)}; expected {{NAME: value}} or {{NAME: [values]}}")
    return {str(name): _flat((values,)) for name, values in when.items()}


def axis_from(data: Any) -> Axis:
    """Reads an axis from YAML (`{grid: [1, 2]}`, `{loguniform: [1e-5, 1e-3]}`), or returns the axis it was given.

    Raises:
        ValueError: `data` is no axis; the message says what is expected.
    """
    if isinstance(data, Axis):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(
            f"got {_short(data)}; expected an axis, one of {{grid: [...]}}, {{choice: [...]}}, {{zip: {{...}}}}, "
            "{uniform: [low, high]}, {loguniform: [low, high]}, {randint: [low, high]}"
        )
    kinds = [key for key in data if key != "when"]
    if len(kinds) != 1:
        listed = ", ".join(list(map(str, kinds))[:8]) or "none"
        raise ValueError(
            f"got the keys {listed}; expected exactly one of {', '.join(AXES)}, and when if it is conditional"
        )
    kind, values, when = kinds[0], data[kinds[0]], _conditions(data.get("when"))
    if kind not in AXES:
        raise ValueError(f"axis kind '{kind}' is unknown; known: {', '.join(AXES)}{nearest(str(kind), AXES)}")
    if kind == Zip.kind:
        return _zip_from(values, when)
    if not isinstance(values, list | tuple):
        raise ValueError(f"{kind} takes a list, not {_short(values)}")
    cls = AXES[kind]
    if issubclass(cls, _Range):
        if len(values) != 2:
            raise ValueError(f"{kind} takes exactly [low, high], not {len(values)} values")
        return cls(*values, when=when)
    assert issubclass(cls, _Listed)
    return cls(tuple(values), when=when)


def _zip_from(columns: Any, when: Conditions) -> Zip:
    lists = isinstance(columns, Mapping) and all(isinstance(v, list | tuple) for v in columns.values())
    if not lists:
        raise ValueError(
            f"zip takes a list for each setting, {{model: [...], learning_rate: [...]}}, not {_short(columns)}"
        )
    return Zip({str(name): tuple(values) for name, values in columns.items()}, when=when)


def by_setting(space: Mapping[str, Axis]) -> dict[str, Axis]:
    """Returns the axes by the setting that they give values to: a zip becomes one grid for each of its columns."""
    out: dict[str, Axis] = {}
    for name, axis in space.items():
        if isinstance(axis, Zip):
            out |= {column: Grid(tuple(dict.fromkeys(v)), when=axis.when) for column, v in axis.columns.items()}
        else:
            out[name] = axis
    return out


def in_order(space: Mapping[str, Axis]) -> dict[str, Axis]:
    """Returns the axes in the order given, but each after those that its `when` names; those of a circle are left out."""
    left, out, placed = dict(space), dict[str, Axis](), set[str]()
    while ready := [name for name, axis in left.items() if placed.issuperset(axis.when)]:
        name = ready[0]
        axis = out[name] = left.pop(name)
        placed |= axis.columns.keys() if isinstance(axis, Zip) else {name}
    return out


def cell_count(space: Mapping[str, Axis], most: int) -> int:
    """Returns how many cells `cells` would return; where they are more than `most`, perhaps more than that."""
    grids = [axis for axis in space.values() if isinstance(axis, Grid | Zip)]
    crossed = math.prod(len(axis.rows()) if isinstance(axis, Zip) else len(axis.samples()) for axis in grids)
    return len(cells(space)) if crossed <= 10 * most and any(axis.when for axis in grids) else crossed


def cells(space: Mapping[str, Axis]) -> list[dict[str, Scalar]]:
    """Returns the cross product of all grid axes; the axis listed last turns fastest. One empty cell without any.

    A conditional axis stands only in the cells in which it is active.
    """
    out: list[dict[str, Scalar]] = [{}]
    for name, axis in in_order(space).items():
        if isinstance(axis, Zip):
            rows = axis.rows()
        elif isinstance(axis, Grid):
            rows = [{name: value} for value in axis.values]
        else:
            continue
        out = [{**cell, **row} for cell in out for row in (rows if axis.is_active(cell) else ({},))]
    return out


def sampled(space: Mapping[str, Axis]) -> dict[str, Axis]:
    """Returns the axes that the search algorithm samples inside each cell, each after those that its `when` names."""
    return {name: axis for name, axis in in_order(space).items() if not isinstance(axis, Grid | Zip)}


def can_be_active(axis: Axis, cell: Mapping[str, Any], free: Mapping[str, Axis]) -> bool:
    """True if the sampled axis can have a value in some trial of the cell; `free` are all sampled axes."""
    for name, values in axis.when.items():
        parent = free.get(name)
        if parent is None:
            possible = name in cell and cell[name] in values
        else:
            possible = any(v in values for v in parent.samples()) and can_be_active(parent, cell, free)
        if not possible:
            return False
    return True
