"""Reads a sweep from YAML, keeping the line of every key so that a fault can name it.

A YAML subset, on purpose: one document, plain data, YAML 1.2's idea of numbers and booleans (so `1e-4` is a number and
`no` is a word), no tags, no merge keys, no duplicate keys, and bounds on size, so that a file cannot surprise its reader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sweeps.config.blocks import anchored_place, anchored_scorer, anchored_suite
from sweeps.config.names import TEMPLATES
from sweeps.config.schema import Sweep
from sweeps.config.schema_errors import dotted, show
from sweeps.errors import Fault, InputError, SpecError

MAX_BYTES = 1_000_000
MAX_NODES = 5_000
MAX_DEPTH = 20  # a sweep file needs five
MAX_KEY = 200
Place = tuple[Any, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema, which stops at the first value too many."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.composed = self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.composed, self.depth = self.composed + 1, self.depth + 1
        if self.composed > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} values; a sweep file is smaller")
        if self.depth > MAX_DEPTH:
            raise RecursionError
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
     "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))

_CORE = {f"tag:yaml.org,2002:{t}" for t in ("bool", "int", "float", "null", "str", "seq", "map")}


class _Reader:
    """Turns YAML nodes into plain data, and remembers lines and faults on the way."""

    def __init__(self, name: str) -> None:
        self.name, self.lines, self.faults, self.nodes = name, dict[Place, int](), list[Fault](), 0

    def read(self, node: Node, path: Place = ()) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            where = f"{self.name}:{node.start_mark.line + 1}"
            raise InputError(f"{where}: more than {MAX_NODES:,} values, aliases expanded; a sweep file is smaller")
        if len(path) > MAX_DEPTH:
            raise InputError(
                f"{self.name}:{node.start_mark.line + 1}: nested too deeply; expected at most {MAX_DEPTH} levels"
            )
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in _CORE:
            self.fault(node, path, f"the tag '{node.tag[:60]}' is refused; sweep files hold plain values only")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Place) -> dict[str, Any]:
        out: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.fault(key_node, path, "a key must be a plain word")
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if len(key) > MAX_KEY or not _writable(key):
                self.fault(key_node, path, f"a key is a plain word of at most {MAX_KEY} characters")
                continue
            if key in out:
                self.fault(
                    key_node, (*path, key), f"the key '{key}' stands twice, first on line {first[key]}; keep one"
                )
                continue
            first[key] = line
            self.lines[(*path, key)] = line
            out[key] = self.read(value_node, (*path, key))
        return out

    def _scalar(self, node: ScalarNode, path: Place) -> Any:
        kind, text = node.tag.rsplit(":", 1)[1], node.value
        if not _writable(text):
            self.fault(node, path, f"got {text[:40]!a}, which holds half a character; write the character itself")
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "null" and text.lower() in ("", "~", "null"):
            return None
        if kind == "int":
            return self._number(int, text.replace("_", ""), node, path)
        if kind == "float":
            return self._number(
                float, text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"), node, path
            )
        if kind != "str":
            self.fault(node, path, f"{show(text)} does not fit its tag '!!{kind}'; leave the tag out")
        return text

    def _number(self, kind: type[int] | type[float], text: str, node: Node, path: Place) -> int | float | None:
        try:
            return kind(text)
        except ValueError:
            got = text if len(text) <= 40 else f"{text[:37]}..."
            self.fault(node, path, f"'{got}' cannot be read as a number")
            return None

    def fault(self, node: Node, path: Place, message: str) -> None:
        self.faults.append(Fault(f"{self.name}:{node.start_mark.line + 1} {dotted(path)}", message))

    def place(self, path: str) -> str:
        """Returns `file:line dotted.path` for a dotted path, with the line of the nearest key that the file has."""
        lines = {dotted(place): line for place, line in self.lines.items() if place}
        known = path
        while known and known not in lines:
            known = known[: max(known.rfind("."), known.rfind("["), 0)]
        return f"{self.name}:{lines.get(known, 1)} {path}"


def _writable(text: str) -> bool:
    """False for text with half of a surrogate pair in it, which no file can hold."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


@contextmanager
def load_with_line_errors(path: str | Path) -> Iterator[Sweep]:
    """Gives the sweep of a file, as `load` does; what is found wrong with it in the block is reported with its line too."""
    path = Path(path)
    reader, sweep = _read(_text(path), path.name, path.absolute().parent)
    try:
        yield sweep
    except SpecError as e:  # a fault of an option, such as --storage, has no line
        located = (f if f.where.startswith("--") else Fault(reader.place(f.where), f.message) for f in e.faults)
        raise SpecError(*_in_order(list(located))) from None


def load(path: str | Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        InputError: the file cannot be read at all (missing, too large, not UTF-8, not YAML).
        SpecError: what it says cannot be run; every fault with `file:line`.
    """
    path = Path(path)
    return _read(_text(path), path.name, path.absolute().parent)[1]


def loads(text: str, name: str = "sweep.yaml", folder: Path | None = None, *, recorded: bool = False) -> Sweep:
    """Reads a sweep from YAML text; see `load`. Paths of models and tiers are relative to `folder`.

    Args:
        recorded: it ran before and is only looked at (`Sweep.recorded`).
    """
    return _read(text, name, folder, recorded=recorded)[1]


def _read(text: str, name: str, folder: Path | None, *, recorded: bool = False) -> tuple[_Reader, Sweep]:
    reader = _Reader(name)
    data = _parse(text, reader)
    if not isinstance(data, Mapping):
        raise InputError(f"{name}:1: a sweep file is a mapping (name: …, space: …), not {type(data).__name__}")
    if folder is not None:
        _anchor(data, folder)
    try:
        blocks = {str(k): v for k, v in data.items()}
        sweep = Sweep.recorded(blocks) if recorded else Sweep(**blocks)
    except SpecError as e:
        unread = {f.where for f in reader.faults}  # what could not be read came to the schema as nothing
        located = [f for f in (Fault(reader.place(f.where), f.message) for f in e.faults) if f.where not in unread]
        raise SpecError(*_in_order([*reader.faults, *located])) from None
    if reader.faults:
        raise SpecError(*reader.faults)
    return reader, sweep


def value_of(text: str) -> Any:
    """Returns one value, read as a sweep file would read it: `1e-4` is a number, `answer-only` a word.

    Raises:
        InputError: it is not a plain value.
    """
    reader = _Reader(repr(text))
    value = _parse(text, reader)
    if reader.faults or isinstance(value, dict | list):
        raise InputError(f"{text!r} is not a number, a word, or true or false")
    return value


def _anchor(data: Mapping[str, Any], folder: Path) -> None:
    """Paths in a file are relative to the file, so that it can be run from anywhere."""

    def anchor(path: str) -> str:
        return path if path == "builtin" or not path or "://" in path else str(folder / os.path.expanduser(path))

    for block in ("models", "tiers"):
        sources = data.get(block)
        for source in sources.values() if isinstance(sources, dict) else ():
            for key in ("path", "chat_template") if isinstance(source, dict) else ():
                path = source.get(key)
                if isinstance(path, str) and not (key == "chat_template" and path in TEMPLATES):
                    source[key] = anchor(path)
    search = data.get("search")
    places = search.get("points_from") if isinstance(search, dict) else None
    listed = [places] if isinstance(places, str) else places
    if isinstance(search, dict) and isinstance(listed, list):
        search["points_from"] = [anchored_place(p, anchor) if isinstance(p, str) else p for p in listed]
    evaluation = data.get("evaluation")
    if isinstance(evaluation, dict):
        for key, place in (("suite", partial(anchored_suite, anchor=anchor)), ("judge", anchor)):
            if isinstance(evaluation.get(key), str):
                evaluation[key] = place(evaluation[key])
        files = evaluation.get("files")
        for file in files if isinstance(files, list) else ():
            for key, place in (("path", anchor), ("scorer", partial(anchored_scorer, anchor=anchor))):
                if isinstance(file, dict) and isinstance(file.get(key), str):
                    file[key] = place(file[key])


def _in_order(faults: list[Fault]) -> list[Fault]:
    def line(fault: Fault) -> int:
        found = re.search(r":(\d+) ", fault.where + " ")
        return int(found[1]) if found else 0

    return sorted(dict.fromkeys(faults), key=line)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e}); give the path of a sweep file") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path.name}: {len(raw):,} bytes; a sweep file has at most {MAX_BYTES:,}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        raise InputError(f"{path.name}:{line}: byte {e.start} is not UTF-8; save the file as UTF-8") from None


def _parse(text: str, reader: _Reader) -> Any:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise InputError(
            f"{reader.name}:{line}: the character {chr(e.character)!a} is not allowed in YAML; take it out"
        ) from None
    try:
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{reader.name}:1: the file is empty; a sweep needs at least a name")
        return reader.read(node)
    except InputError:
        raise
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 1
        hint = "; indent with spaces, not tabs" if "\\t" in str(e.problem) else ""
        raise InputError(f"{reader.name}:{line}: not valid YAML: {e.problem or e.context}{hint}") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as e:  # the last two: \U beyond Unicode
        what = "nested too deeply" if isinstance(e, RecursionError) else str(e).splitlines()[0]
        raise InputError(f"{reader.name}:1: not valid YAML: {what}") from None
    finally:
        loader.dispose()
