"""The tables of docs/sweep-file.md, from the texts under the blocks' fields:

python -m sweeps.config.sweep_file.reference docs/sweep-file.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sweeps.config.sweep_file.json_schema import sweep_schema

BEGIN: Final = "<!-- every key: written by python -m sweeps.config.sweep_file.reference docs/sweep-file.md -->"
END: Final = "<!-- end of every key -->"
_BLOCKS: Final = {
    "models.NAME": "ModelBlock", "tiers.NAME": "TierBlock", "search": "SearchBlock", "objective": "ObjectiveBlock",
    "constraints[]": "ConstraintBlock", "stopping": "StoppingBlock", "trainer": "TrainerBlock",
    "evaluation": "EvaluationBlock", "evaluation.files[]": "EvalFileBlock", "limits": "LimitsBlock",
}  # fmt: skip


def tables() -> str:
    """Returns a heading, a sentence and a table for the sweep and for each block of it, in Markdown."""
    schema = sweep_schema()
    parts = ["### The sweep", "", *_table(schema)]
    for place, name in _BLOCKS.items():
        block = schema["$defs"][name]
        parts += ["", f"### `{place}`", "", _line(block["description"]), "", *_table(block)]
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """Returns the page with the tables as they should be.

    Raises:
        ValueError: the page has no place for them.
    """
    return between(page, BEGIN, END, tables())


def between(page: str, begin: str, end: str, text: str) -> str:
    """Returns the page with `text` between its two marks, in place of what was there.

    Raises:
        ValueError: the page does not have them.
    """
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page has no {begin} … {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def _table(block: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    required = block.get("required", ())
    for name, field in block["properties"].items():
        default = "required" if name in required else _default(field)
        yield f"| `{name}` | {_value(field)} | {default} | {_line(field.get('description', ''))} |"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if default is None or default in ({}, []) or isinstance(default, dict):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _value(field: Mapping[str, Any]) -> str:
    """Returns what a value must be, in a few words."""
    if "$ref" in field:
        return "a block, below"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{x}`" for x in field["enum"])
    if "anyOf" in field:
        return " or ".join(_value(option) for option in field["anyOf"] if option.get("type") != "null")
    kind = field.get("type")
    if kind == "array":
        return "a list"
    if kind == "object":
        keys = ", ".join(f"{key}: …" for key in field.get("properties", {}))
        return f"`{{{keys}}}`" if keys and "required" in field else "a mapping"
    names = {"string": "text", "boolean": "true or false", "integer": "whole number", "number": "number"}
    return f"{names.get(str(kind), 'any')}{_bounds(field)}"


def _bounds(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field and abs(field[key]) < 2**31]
    return f" {' and '.join(found)}" if found else ""


def main() -> None:
    """Rewrites the tables of the page that is given."""
    page = Path(sys.argv[1])
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
