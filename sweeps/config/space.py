"""The axes of a search space, as small frozen objects.

`grid` axes are crossed in full; every other axis is sampled inside each cell of that grid by the search algorithm. An
axis that the algorithm itself should choose is a `choice`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Axis:
    """Base of all axes; `kind` is its name in YAML."""

    kind: ClassVar[str] = ""

    def samples(self) -> tuple[Scalar, ...]:
        """Values that must be legal for the axis to be: all of a discrete axis, both ends of a range."""
        raise NotImplementedError

    def faults(self) -> Iterator[str]:
        """Yields one sentence for each thing wrong with the axis itself."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        return {self.kind: list(self.samples())}


@dataclass(frozen=True, slots=True)
class _Listed(Axis):
    values: tuple[Any, ...]

    def samples(self) -> tuple[Scalar, ...]:
        return self.values

    def faults(self) -> Iterator[str]:
        if not self.values:
            yield f"an empty {self.kind} gives no trials; list at least one value"
        for value in self.values:
            if not isinstance(value, str | int | float | bool):
                yield f"{self.kind} value {_short(value)} must be a string, a number or true/false"
            elif isinstance(value, float) and not math.isfinite(value):
                yield f"{self.kind} value {value!r} is not finite"
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


AXES: Mapping[str, type[Axis]] = {a.kind: a for a in (Grid, Choice, Uniform, LogUniform, RandInt)}


def grid(*values: Scalar | Sequence[Scalar]) -> Grid:
    """An axis whose values are all run: `grid(100, 200)` or `grid([100, 200])`."""
    return Grid(_flat(values))


def choice(*values: Scalar | Sequence[Scalar]) -> Choice:
    """An axis from whose values the search algorithm picks."""
    return Choice(_flat(values))


def uniform(low: float, high: float) -> Uniform:
    """A float axis over [low, high]."""
    return Uniform(low, high)


def loguniform(low: float, high: float) -> LogUniform:
    """A float axis over [low, high], uniform in its logarithm."""
    return LogUniform(low, high)


def randint(low: int, high: int) -> RandInt:
    """A whole-number axis over [low, high], both ends included."""
    return RandInt(low, high)


def _flat(values: Sequence[Any]) -> tuple[Scalar, ...]:
    if len(values) == 1 and isinstance(values[0], list | tuple):
        return tuple(values[0])
    return tuple(values)


def axis_from(data: Any) -> Axis:
    """Reads an axis from YAML (`{grid: [1, 2]}`, `{loguniform: [1e-5, 1e-3]}`), or returns the axis it was given.

    Raises:
        ValueError: `data` is no axis; the message says what is expected.
    """
    if isinstance(data, Axis):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f"got {_short(data)}; expected an axis, one of {{grid: [...]}}, {{choice: [...]}}, "
                         "{uniform: [low, high]}, {loguniform: [low, high]}, {randint: [low, high]}")  # fmt: skip
    if len(data) != 1:
        raise ValueError(
            f"got the keys {', '.join(list(map(str, data))[:8]) or 'none'}; expected exactly one of {', '.join(AXES)}"
        )
    (kind, values), *_ = data.items()
    if kind not in AXES:
        from sweeps.errors import nearest

        raise ValueError(f"axis kind '{kind}' is unknown; known: {', '.join(AXES)}{nearest(str(kind), AXES)}")
    if not isinstance(values, list | tuple):
        raise ValueError(f"{kind} takes a list, not {_short(values)}")
    cls = AXES[kind]
    if issubclass(cls, _Range):
        if len(values) != 2:
            raise ValueError(f"{kind} takes exactly [low, high], not {len(values)} values")
        return cls(*values)
    assert issubclass(cls, _Listed)
    return cls(tuple(values))


def cell_count(space: Mapping[str, Axis]) -> int:
    """Returns how many cells `cells` would return."""
    return math.prod(len(axis.samples()) for axis in space.values() if isinstance(axis, Grid))


def cells(space: Mapping[str, Axis]) -> list[dict[str, Scalar]]:
    """Returns the cross product of all grid axes; the axis listed last turns fastest. One empty cell without any."""
    names = [name for name, axis in space.items() if isinstance(axis, Grid)]
    return [dict(zip(names, values, strict=True)) for values in product(*(space[n].samples() for n in names))]


def sampled(space: Mapping[str, Axis]) -> dict[str, Axis]:
    """Returns the axes that the search algorithm samples inside each cell."""
    return {name: axis for name, axis in space.items() if not isinstance(axis, Grid)}
