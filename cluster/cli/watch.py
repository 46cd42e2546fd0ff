"""`dipsweep watch`: a sweep as a live table on a terminal, as plain lines elsewhere. It reads the journal and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cluster.locate import definition
from cluster.run_output import progress_bar
from sweeps.config.plan import Plan
from sweeps.journal.history import ENDED
from sweeps.journal.writer import LogReader
from sweeps.output import printable
from sweeps.storage.base import Store

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

EVERY_S: Final = 1.0
ORDER: Final = {"running": 0, "scoring": 1, "paused": 2, "waiting": 3, "completed": 4, "pruned": 5, "failed": 6}
STYLE: Final = {"running": "bold", "completed": "green", "pruned": "dim", "failed": "red", "paused": "yellow"}


def watch(home: Store) -> None:
    """Follows a sweep until it has ended, or until Ctrl-C, which ends only the watching.

    Raises:
        NoDriver: nobody drives the sweep any more.
    """
    if not sys.stdout.isatty():
        from cluster.cli.render import narrated

        for line in narrated(home, follow=True):
            print(line, flush=True)
        return
    _live(home)


def _live(home: Store) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from cluster.cli.render import Follower, state_of

    console, reader, sweep, seen = Console(), LogReader(home), definition(home), -1
    follower = Follower(home, plan=Plan(sweep))
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows = reader.rows()
            over, new = follower.take(rows), len(rows) != seen
            if new:
                seen = len(rows)
                table = picture(state_of(sweep, follower.state), max(5, console.height - 6))
                progress = follower.progress()
                live.update(Group(progress_bar(progress), table) if progress is not None else table, refresh=True)
            if over:
                return
            time.sleep(EVERY_S)


def picture(state: dict[str, Any], lines: int) -> Group:
    """Returns a sweep's state as a headline and a table of at most `lines` trials, the running ones first, then the
    better."""
    from rich.console import Group
    from rich.text import Text

    from cluster.cli.render import headline

    objective, sign = state["objective"], 1.0 if state["goal"] == "minimize" else -1.0

    def place(trial: dict[str, Any]) -> tuple[int, bool, float]:
        score = trial[objective]
        return ORDER.get(trial["state"], 9), score is None, 0.0 if score is None else sign * score

    each = sorted(state["each"], key=place)
    ended = sum(t["state"] in ENDED for t in each)
    head = Text(printable(f"{state['sweep']}  {ended} of {headline(state, 'trials ended')}"))
    more = f"… and {len(each) - lines} more; dipsweep status lists all" if len(each) > lines else ""
    return Group(head, _table(each[:lines], objective), Text(more, style="dim"))


def _table(trials: Sequence[dict[str, Any]], objective: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("trial", "state", "steps", "", objective):
        table.add_column(name, justify="right" if name in ("steps", objective) else "left", no_wrap=True)
    for t in trials:
        phase = f" ({t['phase']})" if t["phase"] and t["phase"] != "unknown" else ""
        value = t[objective]
        style = STYLE.get(t["state"], "")
        table.add_row(
            Text(printable(t["label"])),
            Text(t["state"] + phase, style=style),
            f"{t['step']}/{t['budget'] or '?'}",
            bar(t["step"], t["budget"] or 0),
            f"{value:.3f}" if value is not None else "–",
        )
    return table


def bar(step: int, budget: int, width: int = 16) -> str:
    """Returns how far a trial has come as a bar of `width` characters."""
    done = min(width, round(width * step / budget)) if budget else 0
    return "━" * done + "·" * (width - done)
