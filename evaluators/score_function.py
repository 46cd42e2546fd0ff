"""A scorer that the user writes: a Python function in an installed module or in a file."""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sweeps.errors import InputError, nearest, text_of

Item = Mapping[str, Any]


class ScoreFunction(NamedTuple):
    """A function `score(reply, item) -> float`, and the digest of its module."""

    score: Callable[[str, Item], float]
    digest: str


def score_function(name: str) -> ScoreFunction:
    """Imports `package.module:function` or `file.py:function`.

    Raises:
        InputError: it cannot be imported; or, when called, it raises or returns no number in [0, 1].
    """
    place, _, function = name.rpartition(":")
    module = _module(name, place)
    found = getattr(module, function, None)
    if not callable(found):
        raise InputError(
            f"scorer {name!r}: {place} has no function {function!r}{nearest(function, _functions(module))}"
        )
    source = getattr(module, "__file__", None)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""

    def score(reply: str, item: Item) -> float:
        try:
            value = found(reply, copy.deepcopy(dict(item)))  # which it may change
        except (Exception, SystemExit) as e:
            raise InputError(
                f"scorer {name!r} raised {type(e).__name__}: {text_of(e)}, on the item {_short(item)}"
            ) from e
        return checked(value, name, item)

    return ScoreFunction(score, f"{function} {digest}")


def checked(value: Any, name: str, item: Item) -> float:
    """Returns a score of the user's own as a number in [0, 1].

    Raises:
        InputError: it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str | bytes) or not 0 <= number <= 1:
        raise InputError(
            f"scorer {name!r} returned {value!r}; expected a number from 0 to 1, on the item {_short(item)}"
        )
    return number


def _short(item: Item) -> str:
    text = json.dumps(dict(item), ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:197] + "..."


def _functions(module: ModuleType) -> Sequence[str]:
    return [name for name, value in vars(module).items() if callable(value)]


def _module(name: str, place: str) -> ModuleType:
    try:
        if place.endswith(".py"):
            return _from_file(Path(place).expanduser())
        return importlib.import_module(place)
    except InputError:
        raise
    except ModuleNotFoundError as e:
        missing = e.name and place.startswith(e.name)
        hint = "; a file that is not installed is named by its path, file.py:function" if missing else ""
        raise InputError(f"scorer {name!r}: {e}{hint}") from e
    except (Exception, SystemExit) as e:
        raise InputError(f"scorer {name!r}: importing {place} raised {type(e).__name__}: {text_of(e)}") from e


def _from_file(file: Path) -> ModuleType:
    """Imports a file, anew when its content changed."""
    try:
        content = file.read_bytes()
    except OSError as e:
        raise InputError(f"scorer: {file} cannot be read: {e.strerror or e}") from e
    known = f"dipsweep_scorer_{hashlib.sha256(str(file).encode() + content).hexdigest()[:16]}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    return module
