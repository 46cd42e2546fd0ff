"""`dipsweep --help`: the commands in the order in which a sweep meets them."""

from __future__ import annotations

from typing import Any

import typer

GROUPS = {
    "Before a sweep": ("fetch", "validate", "preview", "plan", "doctor", "schema"),
    "Run": ("run", "submit", "resume"),
    "Watch": ("list", "status", "watch", "logs", "serve", "cost"),
    "Change a running sweep": ("pause", "stop", "retry", "add", "clone", "extend", "limits"),
    "Results": ("report", "next", "replies", "note", "tag", "export", "export-table", "figure", "track", "replay"),
    "Upkeep": ("gc", "token"),
}
WIDTH = 110


class GroupedCommands(typer.core.TyperGroup):
    """A command group whose help lists its commands under `GROUPS`; what stands in none comes last."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {n: c for n in self.list_commands(ctx) if (c := self.get_command(ctx, n)) and not c.hidden}
        grouped = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, "More": tuple(sorted(commands.keys() - grouped))}
        widest = max(map(len, commands))
        for title, names in groups.items():
            rows = [
                (name.ljust(widest), commands[name].get_short_help_str(limit=300)) for name in names if name in commands
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
