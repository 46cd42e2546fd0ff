"""Draws what `measure --json` wrote: winners lost against compute saved, one panel a world, as SVG.

    python -m benchmarks.stopping.plot measured.json [more.json ...] --out benchmarks/stopping/pareto.svg

Bars are one standard error over sweeps. Settings of one rule are joined in the order of what they save.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#8f6bb3", "#b08900", "#666666", "#1b9aaa")
WIDE, HIGH, LEFT, TOP = 330, 260, 46, 30
MOST_LOST, MOST_SAVED = 45.0, 90.0
LIMITS = ("none", "oracle")
"""Rules that are in a table for comparison; a figure has no place for them."""

Points = dict[str, dict[str, dict[str, float]]]


def read(paths: Sequence[str]) -> Points:
    """Returns the summaries of all files by world and rule, without `LIMITS`."""
    out: Points = {}
    for path in paths:
        for world, rules in json.loads(Path(path).read_text()).items():
            out.setdefault(world, {}).update({name: s for name, s in rules.items() if name not in LIMITS})
    return out


def family(rule: str) -> str:
    """Returns the name under which settings of one rule are joined: `dip-aware` and its two modes apart."""
    name = rule.partition(":")[0]
    return f"{name}, soft" if name == "dip-aware" and "protect=soft" in rule else name


def panel(world: str, rules: dict[str, dict[str, float]], left: float, colours: dict[str, str]) -> list[str]:
    """Returns the SVG elements of one world."""

    def at(saved: float, lost: float) -> tuple[float, float]:
        return left + LEFT + WIDE * saved / MOST_SAVED, TOP + HIGH * (1 - min(lost, MOST_LOST) / MOST_LOST)

    out = [f'<text x="{left + LEFT}" y="{TOP - 12}" font-weight="bold">{escape(world)}</text>']
    for lost in range(0, int(MOST_LOST) + 1, 5):
        (x0, y), (x1, _) = at(0, lost), at(MOST_SAVED, lost)
        out.append(f'<path d="M{x0:.1f} {y:.1f}H{x1:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x0 - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{lost}</text>')
    for saved in range(0, int(MOST_SAVED) + 1, 10):
        x, y = at(saved, 0)
        out.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{saved}</text>')
    lines: dict[str, list[tuple[float, float]]] = {}
    for rule, s in sorted(rules.items(), key=lambda r: r[1]["saved"]):
        x, y = at(s["saved"], s["lost"])
        _, low = at(0, s["lost"] + s["lost_se"])
        _, high = at(0, max(0.0, s["lost"] - s["lost_se"]))
        colour = colours[family(rule)]
        lines.setdefault(family(rule), []).append((x, y))
        out.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(rule)}</title></circle>')
    for name, points in lines.items():
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="1.5"/>')
    return out


def svg(points: Points) -> str:
    """Returns the whole picture."""
    families = list(dict.fromkeys(family(rule) for rules in points.values() for rule in rules))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(families)}
    width, height = len(points) * (WIDE + LEFT) + 20, TOP + HIGH + 62
    body = [part for i, (w, r) in enumerate(points.items()) for part in panel(w, r, i * (WIDE + LEFT), colours)]
    body.append(f'<text x="{width / 2}" y="{TOP + HIGH + 34}" text-anchor="middle">compute saved, %</text>')
    body.append(
        f'<text transform="translate(12 {TOP + HIGH / 2}) rotate(-90)" text-anchor="middle">winners lost, %</text>'
    )
    for i, (name, colour) in enumerate(colours.items()):
        x, y = LEFT + 130 * i, TOP + HIGH + 54
        body.append(
            f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/><text x="{x + 9}" y="{y}">{escape(name)}</text>'
        )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>"]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("measured", nargs="+")
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args(argv)
    a.out.write_text(svg(read(a.measured)), encoding="utf-8")


if __name__ == "__main__":
    main()
