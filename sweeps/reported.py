"""What training and evaluation code tells of itself, as rows can hold it.

It may be anybody's code. A number that is none is its fault, said where it runs and before a driver hears of it: as a row it
would end the driver, or stand in a log that nobody can read any more.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sweeps.config.trial import Saved
from sweeps.errors import InputError
from sweeps.storage.base import is_url

MOST_STEPS: Final = 2**53
MOST: Final = 1e30


class Reported(NamedTuple):
    """A report of the trainer's own numbers; only those of `metrics` may be infinite or no number."""

    step: int
    metrics: dict[str, float]
    progress: dict[str, float]
    cost: dict[str, float]


class Scored(NamedTuple):
    """Scores of a checkpoint, with how each came about; only those of `metrics` may be infinite or no number."""

    metrics: dict[str, float]
    se: dict[str, float]
    n: dict[str, int]
    suite: str
    cost: dict[str, float]
    items: dict[str, str]
    parts: dict[str, list[str]]
    asked: Mapping[str, Any] | None


def checked_report(
    step: Any, metrics: Mapping[str, Any], progress: Mapping[str, Any], cost: Mapping[str, Any]
) -> Reported:
    """Returns a report with Python's own numbers.

    Raises:
        InputError: something of it is no number, or not finite where it must be; names it.
    """
    where = f"report at step {step}"
    return Reported(
        whole(step, where),
        numbers(metrics, f"{where}: metrics"),
        finite(progress, f"{where}: progress"),
        spent(cost, f"{where}: cost"),
    )


def checked_saved(checkpoint: Saved) -> Saved:
    """Returns a checkpoint with Python's own number and text, and where it lies whatever the folder that one works in.

    Raises:
        InputError: its step is no whole number, or its path or digest no text.
    """
    try:
        step, path, digest = checkpoint.step, os.fspath(checkpoint.path), checkpoint.digest
    except (AttributeError, TypeError) as e:
        raise InputError(f"checkpoint: got {checkpoint!r}; expected Saved(step, path, digest)") from e
    if not isinstance(digest, str) or not isinstance(path, str):
        raise InputError(f"checkpoint at step {step}: got path {path!r} and digest {digest!r}; expected text")
    return Saved(whole(step, "checkpoint"), path if is_url(path) else os.path.abspath(path), digest)


def checked_scores(scores: Any) -> Scored:
    """Returns what an evaluation gave, with Python's own numbers.

    Raises:
        InputError: it gave no scores, or something of them is no number; names it.
    """
    try:
        parts = {str(metric): [str(task) for task in tasks] for metric, tasks in scores.parts.items()}
        items = {str(task): str(outcomes) for task, outcomes in scores.outcomes.items()}
        counts = {str(name): whole(n, f"scores: n.{name}") for name, n in scores.n.items()}
        # Only an evaluation that may end early has `asked`; others need not know of it.
        rest = (str(scores.suite), spent(scores.cost, "scores: cost"), items, parts, getattr(scores, "asked", None))
        return Scored(numbers(scores.metrics, "scores: metrics"), finite(scores.se, "scores: se"), counts, *rest)
    except (AttributeError, TypeError) as e:
        raise InputError(f"got {type(scores).__name__} ({e}); expected scores as of evaluators.scores.Scores") from e


def numbers(values: Mapping[str, Any], where: str) -> dict[str, float]:
    """Returns values as floats, those of NumPy and torch too; they may be infinite or no number."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: got {_shown(values)}; expected numbers by name")
    return {_name(name, where): _number(value, f"{where}.{name}") for name, value in values.items()}


def finite(values: Mapping[str, Any], where: str) -> dict[str, float]:
    """The same, of numbers that must be finite, and so must their sums be."""
    found = numbers(values, where)
    for name, value in found.items():
        if not abs(value) < MOST:
            raise InputError(f"{where}.{name}: got {value}; expected a finite number")
    return found


def spent(cost: Mapping[str, Any], where: str) -> dict[str, float]:
    """The same, of what was used: a limit counts it."""
    found = finite(cost, where)
    for name, value in found.items():
        if value < 0:
            raise InputError(f"{where}.{name}: got {value}; expected 0 or more")
    return found


def whole(value: Any, where: str) -> int:
    """Returns a count of steps or items."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < MOST_STEPS:
        raise InputError(f"{where}: got {_shown(value)}; expected a whole number, 0 or more")
    return number


def _number(value: Any, where: str) -> float:
    try:
        if not isinstance(value, str | bytes | bytearray):
            return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: torch's, of a tensor of several
        pass
    raise InputError(f"{where}: got {_shown(value)}; expected a number")


def _name(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise InputError(f"{where}: got the name {_shown(name)}; expected text")
    return name


def _shown(value: Any) -> str:
    text = (
        repr(value)
        if not isinstance(value, Sequence) or len(value) < 100
        else f"{type(value).__name__} of {len(value)}"
    )
    return text if len(text) <= 100 else f"{text[:100]}…"
