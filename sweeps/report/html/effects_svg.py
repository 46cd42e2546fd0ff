"""What the axes do, as pictures: how much of a metric's variation each explains, and each effect with its 95 % range.

One picture a metric, drawn here and not in the browser: it prints, needs no script, and the tables beside it say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final, NamedTuple

from sweeps.report.analysis.findings.axes import Effect, Importance
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.wording import number, percent

WIDTH: Final = 430
LEFT, RIGHT, ROW, HEAD = 4.0, 64.0, 30.0, 20.0
MOST_LETTERS: Final = 58


class EffectsPicture(NamedTuple):
    """One metric's picture, and what it shows in words."""

    metric: str
    svg: str


def effects_pictures(summary: Summary) -> list[EffectsPicture]:
    """Returns a picture for each metric whose axes could be told apart, in the order of the page's figures."""
    found = []
    for metric in summary.panels:
        effects = [e for e in summary.effects if e.metric == metric]
        shares = [i for i in summary.importances if i.metric == metric]
        if effects:
            found.append(EffectsPicture(metric, _picture(metric, shares, effects, summary.sign(metric))))
    return found


def _picture(metric: str, shares: Sequence[Importance], effects: Sequence[Effect], sign: float) -> str:
    ordered = sorted(shares, key=lambda i: -i.share)
    middle = HEAD + ROW * len(ordered) + 16 if ordered else 0.0
    height = middle + HEAD + ROW * len(effects) + 24
    parts = [
        *(_heading("Share of the variation that it explains beyond all others", 0) if ordered else ()),
        *(line for k, i in enumerate(ordered) for line in _share(i, HEAD + ROW * k)),
        *_heading("Effect on the change from the base, with its 95 % range", middle),
        *_ranges(effects, sign, middle + HEAD, height - 24),
    ]
    told = "; ".join([*(_share_words(i) for i in ordered), *(e.sentence for e in effects)])
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(f"{metric}: {told}")}">'
        + "".join(parts)
        + "</svg>"
    )


def _heading(text: str, y: float) -> Iterator[str]:
    yield f'<text class="heading" x="{LEFT}" y="{y + 12:.1f}">{escape(text)}</text>'


def _name(text: str, y: float) -> str:
    short = text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
    return f'<text class="halo" x="{LEFT}" y="{y + 12:.1f}">{escape(short)}<title>{escape(text)}</title></text>'


def _share_words(i: Importance) -> str:
    return f"{' and '.join(i.axes)} {percent(i.share)}{'' if i.real else ', not told from none'}"


def _share(i: Importance, y: float) -> Iterator[str]:
    """A bar from 0 to 100 %; a hollow one where the axis is not told from none."""
    room = WIDTH - LEFT - RIGHT
    kind = "share" if i.real else "share open"
    yield _name(" and ".join(i.axes), y)
    yield f'<line class="grid" x1="{LEFT}" x2="{LEFT + room}" y1="{y + 21:.1f}" y2="{y + 21:.1f}"/>'
    width = max(min(i.share, 1.0) * room, 1.0)
    yield f'<rect class="{kind}" x="{LEFT}" y="{y + 17:.1f}" width="{width:.1f}" height="8" rx="2"/>'
    yield f'<text class="value" x="{WIDTH}" y="{y + 25:.1f}" text-anchor="end">{percent(i.share)}</text>'


def _ranges(effects: Sequence[Effect], sign: float, top: float, bottom: float) -> Iterator[str]:
    """A dot with its range for each effect, on one scale with a line at no effect."""
    low = min(0.0, *(e.difference.low for e in effects))
    high = max(0.0, *(e.difference.high for e in effects))
    room, span = WIDTH - LEFT - RIGHT, high - low or 1.0

    def x(value: float) -> float:
        return LEFT + 6 + (value - low) / span * (room - 12)

    for value in dict.fromkeys([low, 0.0, high]):
        anchor = "start" if x(value) < LEFT + 24 else "end" if x(value) > LEFT + room - 24 else "middle"
        if value == 0 or abs(x(value) - x(0)) > 46:
            text = number(value, signed=True) if value else "0"
            yield f'<text x="{x(value):.1f}" y="{bottom + 16:.1f}" text-anchor="{anchor}">{text}</text>'
    yield f'<line class="base" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
    for k, e in enumerate(effects):
        yield from _range(
            e, sign, top + ROW * k, [x(v) for v in (e.difference.low, e.difference.value, e.difference.high)]
        )


def _range(e: Effect, sign: float, y: float, places: Sequence[float]) -> Iterator[str]:
    d, at, (low, value, high) = e.difference, y + 21, places
    kind = "effect open" if not d.real else "effect up" if sign * d.value > 0 else "effect down"
    yield f'<g class="{kind}"><title>{escape(e.sentence)}</title>{_name(f"{e.axis}: {e.contrast}", y)}'
    yield f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{at:.1f}" y2="{at:.1f}"/><circle cx="{value:.1f}" cy="{at:.1f}" r="4"/>'
    yield f'<text class="value" x="{WIDTH}" y="{at + 4:.1f}" text-anchor="end">{number(d.value, signed=True)}</text></g>'
