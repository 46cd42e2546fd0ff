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
from sweeps.statistics import packed_replies
from sweeps.storage.base import is_url

MOST_STEPS: Final = 2**53
MOST: Final = 1e30


class Reported(NamedTuple):
    """A report of the trainer's own numbers; only those of `metrics` may be infinite or no number."""

    step: int
    metrics: dict[str, float]
    progress: dict[str, float]
    cost: dict[str, float]


class CheckedScores(NamedTuple):
    """Scores of a checkpoint, with how each came about, as `evaluators.scores.Scores` has them; only those of `metrics` may be
    infinite or no number. `asked` is empty where all items were asked; `seconds` is the wall clock of an evaluation on a GPU."""

    metrics: dict[str, float]
    se: dict[str, float]
    n: dict[str, int]
    suite: str
    cost: dict[str, float]
    items: dict[str, str]
    parts: dict[str, list[str]]
    asked: dict[str, Any]
    cached: bool
    seconds: float | None = None


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


def checked_scores(scores: Any) -> CheckedScores:
    """Returns what an evaluation gave, with Python's own numbers.

    Raises:
        InputError: it gave no scores, or something of them is no number, or outcomes that no report could read; names it.
    """
    try:
        cost = spent(scores.cost, "scores: cost")
        counts = {_name(name, "scores: n"): whole(n, f"scores: n.{name}") for name, n in scores.n.items()}
        return CheckedScores(
            metrics=numbers(scores.metrics, "scores: metrics"),
            se=finite(scores.se, "scores: se"),
            n=counts,
            suite=_text(scores.suite, "scores: suite"),
            cost=cost,
            items={str(task): _outcomes(task, text, counts.get(task, 0)) for task, text in scores.outcomes.items()},
            parts={str(metric): [str(task) for task in tasks] for metric, tasks in scores.parts.items()},
            # Only an evaluation that may end early has `asked`, and only one that looks scores up has `cached`.
            asked=_asked(getattr(scores, "asked", None) or {}),
            cached=bool(getattr(scores, "cached", False)),
            seconds=cost.get("gpu_s"),
        )
    except (AttributeError, TypeError) as e:
        raise InputError(f"got {type(scores).__name__} ({e}); expected scores as of evaluators.scores.Scores") from e


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: got {_shown(value)}; expected text")
    return str(value)


def _outcomes(task: str, packed: Any, items: int) -> str:
    """Returns packed outcomes that a report can unpack, of at least as many replies as there are items."""
    replies = packed_replies(packed) if isinstance(packed, str) else None
    if replies is None or replies < items:
        raise InputError(
            f"scores: outcomes.{task}: got {_shown(packed)}; expected those of {items} replies or more, as "
            "sweeps.statistics.pack writes them"
        )
    return str(packed)


def _asked(asked: Any) -> dict[str, Any]:
    """Returns how many items were asked, of how many, and what was clear by then."""
    if not asked:
        return {}
    if not isinstance(asked, Mapping):
        raise InputError(f"scores: asked: got {_shown(asked)}; expected items, of and clear by name")
    items, of = (whole(asked.get(name), f"scores: asked.{name}") for name in ("items", "of"))
    if not 0 < items <= of:
        raise InputError(f"scores: asked: got {items} items of {of}; expected 1 or more, and no more than there are")
    return {"items": items, "of": of, "clear": str(asked.get("clear", ""))}


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
