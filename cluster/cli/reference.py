"""The command line as a page of the documentation: python -m cluster.cli.reference > docs/reference/command-line.md"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from cluster.cli.main import app

HEAD = """# Command line

Written by `python -m cluster.cli.reference`; a test holds that it is current.

Exit codes: 0 done, 1 the sweep itself failed, 2 bad input, 3 over its limits, 4 nobody drives what is followed (`watch`,
`logs -f`, `track -f`), 130 interrupted and resumable.
"""


def page() -> str:
    """Returns the page in Markdown: every command with its arguments and options."""
    root = typer.main.get_command(app)
    return "\n".join([HEAD, *_commands(root, "dipsweep")])


def _commands(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is not None:
        for name, child in sorted(children.items()):
            if not child.hidden:
                yield from _commands(child, f"{path} {name}")
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join(_value(a) if a.required else f"[{_value(a)}]" for a in arguments)
    yield f"## {path}\n\n    {path} {usage}".rstrip() + "\n"
    yield _plain(command.help) + "\n"
    rows = [f"| `{_value(a)}` | {_plain(a.help)} |" for a in arguments]
    rows += [f"| {_names(o)} | {_plain(o.help)}{_default(o)} |" for o in options if o.name != "help"]
    if rows:
        yield "\n".join(["| argument or option | |", "| --- | --- |", *rows]) + "\n"


def _names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {_value(option)}"


def _value(parameter: Any) -> str:
    """Returns what stands for a value in `--help`."""
    return str(parameter.metavar or "VALUE").strip("[]")


def _default(option: Any) -> str:
    if option.required:
        return " Required."
    shown = option.default if not callable(option.default) else None
    return f" Default: `{shown}`." if shown not in (None, False, (), [], "") and not option.is_flag else ""


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
