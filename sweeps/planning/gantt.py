"""A plan as a page: when each trial runs, a bar a trial, by node; the plan's text below. One file, nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from sweeps.config.plan import Plan
from sweeps.planning.clock import Span
from sweeps.planning.progress import duration
from sweeps.planning.work import TrialWork

COLOURS: Final = ("#2f8fd0", "#e0702e", "#18a67c", "#c76aa6", "#c79a1b", "#8a74c9")
WIDTH, LEFT, ROW, BAR, TOP = 1100, 70, 20, 16, 24
"""Pixels: of the whole picture, of the names of nodes, from row to row, of a bar, of the time axis."""
MOST_ROWS: Final = 400
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1140px; margin: 2rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; } svg { font: 12px system-ui, sans-serif; fill: currentColor; }
pre { overflow-x: auto; font-size: 13px; } .key { margin-right: 1.2em; white-space: nowrap; }
.key i { display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.4em; border-radius: 2px; }
"""


def gantt_page(plan: Plan, spans: Sequence[tuple[TrialWork, Span]], nodes: Sequence[float], text: str) -> str:
    """Returns the page.

    Args:
        plan: the sweep's. spans: its trials with their times (`sweeps.planning.estimate.planned_timeline`).
        nodes: devices of each node. text: the plan in words.
    """
    models = list(dict.fromkeys(work.model for work, _ in spans))
    colours = {model: COLOURS[i % len(COLOURS)] for i, model in enumerate(models)}
    keys = "".join(
        f'<span class="key"><i style="background:{colours[model]}"></i>{escape(model)}</span>' for model in models
    )
    title = f"{escape(plan.sweep_id)}: when each trial runs"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        f"<p>Training alone; evaluators run beside it. Pale bars go on from a checkpoint of another trial. {keys}</p>\n"
        f'<div class="scroll">{_picture(plan, spans, nodes, colours)}</div>\n<pre>{escape(text)}</pre></body></html>\n'
    )


def _picture(
    plan: Plan, spans: Sequence[tuple[TrialWork, Span]], nodes: Sequence[float], colours: dict[str, str]
) -> str:
    rows = _rows([span for _, span in spans], len(nodes))
    counts = [max((row for node, row in rows.values() if node == n), default=-1) + 1 for n in range(len(nodes))]
    shown, hidden = _fitting(counts)
    end = max((span.end for _, span in spans), default=0.0) or 1.0
    scale = (WIDTH - LEFT - 10) / end
    tops, y = [], TOP
    for count in shown:
        tops.append(y)
        y += count * ROW + 8
    bars, axes = [], [n for n in plan.sweep.axes if n != "model"]
    for work, span in spans:
        node, row = rows[span.trial]
        if row < shown[node]:
            bars.append(_bar(work, span, y=tops[node] + row * ROW, scale=scale, colour=colours[work.model], axes=axes))
    names = [f'<text x="0" y="{top + 12}">node {i + 1}</text>' for i, top in enumerate(tops) if shown[i]]
    more = f'<text x="{LEFT}" y="{y + 12}">{hidden} more rows are not drawn</text>' if hidden else ""
    height = y + (24 if hidden else 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
        f"<title>Trials by node over {duration(end)}</title>{_axis(end, scale, y)}{''.join(names)}{''.join(bars)}{more}</svg>"
    )


def _fitting(counts: Sequence[int]) -> tuple[list[int], int]:
    """Returns how many rows of each node are drawn, and how many are left out."""
    each = max(1, MOST_ROWS // max(1, sum(1 for c in counts if c)))
    shown = [min(count, each) for count in counts]
    return shown, sum(counts) - sum(shown)


def _rows(spans: Sequence[Span], nodes: int) -> dict[str, tuple[int, int]]:
    """Returns node and row of each trial: the first row of its node that is free when it starts."""
    free: list[list[float]] = [[] for _ in range(nodes)]
    place = {}
    for span in sorted(spans, key=lambda s: s.start):
        ends = free[span.node]
        row = next((i for i, end in enumerate(ends) if end <= span.start + 1e-9), len(ends))
        ends[row:] = [span.end, *ends[row + 1 :]]
        place[span.trial] = span.node, row
    return place


def _bar(work: TrialWork, span: Span, *, y: float, scale: float, colour: str, axes: Sequence[str]) -> str:
    x, width = LEFT + span.start * scale, max(1.0, (span.end - span.start) * scale - 1)
    settings = " ".join(f"{n}={_short(work.config[n])}" for n in axes if n in work.config)
    what = escape(
        f"{span.trial} {work.model} {settings}: {duration(span.start)} to {duration(span.end)}, {work.steps} steps"
    )
    label = escape(settings) if width > 7 * len(settings) else ""
    pale = ' fill-opacity="0.55"' if work.fork else ""
    return (
        f'<g><title>{what}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" '
        f'fill="{colour}"{pale}/><text x="{x + 4:.1f}" y="{y + 12}">{label}</text></g>'
    )


def _axis(end: float, scale: float, bottom: float) -> str:
    drawn = []
    for i in range(6):
        x, anchor = LEFT + end * i / 5 * scale, "end" if i == 5 else "middle"
        drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="#7d859060"/>')
        drawn.append(f'<text x="{x:.1f}" y="12" text-anchor="{anchor}">{duration(end * i / 5)}</text>')
    return "".join(drawn)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
