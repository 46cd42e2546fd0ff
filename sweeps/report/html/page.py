"""The page: one self-contained HTML file, readable in light and dark, on a phone and on a wall.

Tables are written here, figures are drawn in the browser from the same numbers (`charts.js`, `document.js`).
The page forbids itself every request, and every script but its own, by its Content-Security-Policy.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.errors import SpecError
from sweeps.output import printable
from sweeps.report.analysis.conclusions.answer import counts_at, progress
from sweeps.report.analysis.conclusions.verdicts import skill_of
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.html.chart_data import chart_data, front_points, other_metrics
from sweeps.report.html.effects_svg import effects_pictures
from sweeps.report.html.page_findings import (
    best_rows,
    decision_rows,
    effect_heads,
    effect_rows,
    importance_rows,
    verdict_rows,
)
from sweeps.report.html.page_parts import PANEL_NAMES, costs, glossary, provenance, tiles
from sweeps.report.html.page_tables import (
    axis_tables,
    paired_heads,
    paired_rows,
    reason_rows,
    tier_rows,
    trial_heads,
    trial_rows,
)
from sweeps.report.html.reply_data import Replies
from sweeps.report.markdown import user_note
from sweeps.report.next_sweep import NextSweep, next_sweep

if TYPE_CHECKING:
    from markupsafe import Markup

ASSETS = Path(__file__).parent
SCRIPTS = ("charts.js", "plots.js", "replies.js", "more_plots.js", "trial_view.js", "updates.js", "document.js")
COMPRESSED_FROM = 500_000
"""Characters of numbers from which they are embedded compressed: browsers of 2023 and later unpack them."""


def write_html(summary: Summary, path: Path | str, replies: Replies | None = None) -> Path:
    """Writes the page as one file and returns its path; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_html(summary, replies), encoding="utf-8")
    return path


def write_json(summary: Summary, path: Path | str) -> Path:
    """Writes `Summary.to_json()` as one strict JSON file and returns its path; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary.to_json(), allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Live:
    """A page that a server keeps up to date. `events`: the URL of its events; empty once the sweep has ended."""

    events: str


def render_html(summary: Summary, replies: Replies | None = None, live: Live | None = None) -> str:
    """Returns the page as text; the same summary gives the same text.

    Args:
        replies: those behind the scores, where any were kept (`reply_data`); those that are fetched need a server.
        live: where a served page hears what is new.
    """
    from markupsafe import Markup

    script = "".join(asset(name) for name in SCRIPTS)
    numbers = chart_data(summary) | ({"replies": replies.to_json()} if replies is not None else {})
    data_type, data = _data(numbers | ({"events": live.events} if live is not None else {}))
    return render(
        "page.html",
        s=summary,
        css=Markup(asset("page.css")),
        script=Markup(script),
        script_hash=script_hash(script),
        data_type=data_type,
        data=Markup(data),
        colour=_colour(summary),
        others=other_metrics(summary),
        connect="'self'" if live is not None else "'none'",
        live=live,
        replies=replies,
        written=lambda note: user_note(note, summary),
        answer=[f.sentence for f in summary.answer],
        best_table=best_rows(summary),
        counts_at=counts_at(summary),
        verdicts=verdict_rows(summary),
        decisions=decision_rows(summary),
        effect_heads=effect_heads(summary),
        effects=effect_rows(summary),
        importances=importance_rows(summary),
        effect_pictures=[(p.metric, Markup(p.svg)) for p in effects_pictures(summary)],
        roles=PANEL_NAMES | {m: "" for m in summary.panels if m not in PANEL_NAMES},
        progress=progress(summary),
        next=_next(summary),
        tiles=tiles(summary),
        heads=trial_heads(summary),
        rows=trial_rows(summary),
        paired_heads=paired_heads(summary),
        paired=paired_rows(summary),
        reasons=reason_rows(summary),
        axes=axis_tables(summary),
        costs=costs(summary),
        tiers=tier_rows(summary),
        front=bool(front_points(summary)),
        skill=skill_of(summary.objective),
        glossary=glossary(summary),
        provenance=provenance(summary),
        spec=_yaml(summary.spec),
    )


def script_hash(script: str) -> str:
    """Returns what a Content-Security-Policy calls one inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(template: str, **values: Any) -> str:
    """Returns one of the templates in `assets/`, filled in; every text is escaped, also what is no text (`sweeps.output`)."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["breakable"] = _breakable
    return printable(environment.get_template(template).render(**values))


def _breakable(name: str) -> Markup:
    """Returns a metric's name that a narrow table breaks between its words."""
    from markupsafe import Markup, escape

    return Markup(str(escape(name)).replace("/", "/<wbr>").replace("_", "_<wbr>"))


def _next(summary: Summary) -> NextSweep | None:
    """What to run next; None too for a sweep whose own definition is of another version."""
    try:
        return next_sweep(summary)
    except SpecError:
        return None


def asset(name: str) -> str:
    """Returns a style sheet or a script of this package as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _data(data: Any) -> tuple[str, str]:
    """Returns the type and text of the element that holds the figures' numbers; large ones are compressed."""
    text = _in_script(data)
    if len(text) < COMPRESSED_FROM:
        return "application/json", text
    return "application/gzip;base64", base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _in_script(data: Any) -> str:
    """JSON that no browser can take for the end of its script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _colour(summary: Summary) -> str:
    """The axis whose levels colour the lines at first: the one that moves the objective most between its levels."""
    spread: dict[str, list[float]] = {}
    for group in summary.groups:
        spread.setdefault(group.axis, []).extend(m.mean_change for m in group.metrics if m.metric == summary.objective)
    known = {axis: max(means) - min(means) for axis, means in spread.items() if means}
    several = [a.name for a in summary.axes if len(a.levels) > 1] or [a.name for a in summary.axes] or [""]
    return max(known, key=lambda axis: known[axis], default=several[0])


def _yaml(spec: Any) -> str:
    import yaml

    return str(yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)) if spec else ""
