"""A page that compares stop rules: winners lost against compute saved, one point a rule, drawn as in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sweeps.report.html.curve_svg import COLOURS, GRID, TEXT, svg_text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 120, 48, 52
TITLE = "Stop rules: winners lost against compute saved (filled: no other saves more and loses less)"


def pareto_page(summaries: Sequence[Mapping[str, Any]], table: str) -> str:
    """Returns a self-contained page: the picture, and the comparison as text below it.

    Args:
        summaries: as `sweeps.report.replay.compare` returns them. table: them as text.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>\n'
        "<style>:root { color-scheme: light dark } body { font-family: system-ui; margin: 2rem auto; max-width: 60rem }</style>"
        f"</head>\n<body>\n{pareto_svg(summaries)}\n<pre>{escape(table)}</pre>\n</body></html>\n"
    )


def pareto_svg(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Returns the picture: compute saved to the right, winners lost upwards, both in percent."""
    points = [(100 * s["compute_saved"], 100 * (s["lost_share"] or 0.0)) for s in summaries]
    right, top = _end(max(x for x, _ in points)), _end(max(y for _, y in points))
    low = min(0.0, *(x for x, _ in points))
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    body = [svg_text(LEFT - 44, 22, TITLE, weight=600)]
    for i in range(6):
        x, y = LEFT + wide * i / 5, HEIGHT - BOTTOM - tall * i / 5
        body.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + wide}M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>')
        body.append(svg_text(LEFT - 8, y + 4, f"{top * i / 5:g}", anchor="end"))
        body.append(svg_text(x, HEIGHT - BOTTOM + 18, f"{low + (right - low) * i / 5:.3g}", anchor="middle"))
    body.append(svg_text(LEFT + wide, HEIGHT - BOTTOM + 38, "compute saved, %", anchor="end"))
    body.append(svg_text(LEFT - 44, TOP - 8, "winners lost, %"))
    labels: list[tuple[float, float]] = []
    for i, (s, (saved, lost)) in enumerate(zip(summaries, points, strict=True)):
        x, y = LEFT + wide * (saved - low) / (right - low), HEIGHT - BOTTOM - tall * lost / top
        colour = COLOURS[i % len(COLOURS)]
        fill = colour if s["pareto"] else "none"
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
        below = y + 4
        while any(abs(x - left) < 120 and abs(below - base) < 14 for left, base in labels):  # rules that came out alike
            below += 14
        labels.append((x, below))
        body.append(svg_text(x + 11, below, s["rule"], colour=colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{TITLE}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}">\n' + "\n".join(body) + "\n</svg>"
    )


def _end(most: float) -> float:
    """Returns a round number at or above the largest value, for the end of an axis."""
    return next((end for end in (5.0, 10.0, 25.0, 50.0, 100.0) if most <= end), 100.0)
