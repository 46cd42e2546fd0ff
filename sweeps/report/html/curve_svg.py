"""One picture without a browser: a metric's curves as a small static SVG, for a README or a slide.

It stands on light and dark pages alike: no background, mid-grey text, colours that are legible on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from sweeps.errors import InputError, nearest
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.analysis.shape import Measured
from sweeps.report.analysis.wording import number
from sweeps.report.html.chart_data import describe_reading

COLOURS = ("#2f8fd0", "#e0702e", "#18a67c", "#c76aa6", "#c79a1b", "#8a74c9")
TEXT, GRID, DIP = "#7d8590", "#7d859040", "#e0902e"
LEFT, TOP, BOTTOM, LABELS = 44, 40, 44, 212


def curve_svg(summary: Summary, metric: str, *, trials: Sequence[str] = (), width: int = 760, height: int = 320) -> str:
    """Returns an SVG of `metric` by optimizer step (log), with the base line, bands of 2 standard errors and the dip.

    Args:
        trials: ids to draw, the first with its dip shaded; without any, the trials that were scored on `metric`, those
            that came back first, up to six.
        width, height: in pixels.

    Raises:
        InputError: a trial is unknown, or nothing was scored on `metric`.
    """
    drawn = chosen(summary, metric, trials)
    frame = _Frame(drawn, metric, {m: scores.get(metric) for m, scores in summary.bases.items()}, width, height)
    body = [*frame.axes(), *frame.base_lines()]
    for i, trial in reversed(list(enumerate(drawn))):
        body += frame.run(trial, COLOURS[i % len(COLOURS)], first=i == 0)
    body += frame.labels(drawn)
    reading = drawn[0].readings.get(metric)
    title = f"{metric}: {drawn[0].label}" + (f", {describe_reading(reading)}" if reading else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}">\n'
        f"<title>{escape(title)}</title>\n" + "\n".join(body) + "\n</svg>\n"
    )


def chosen(summary: Summary, metric: str, ids: Sequence[str]) -> list[Trial]:
    """Returns the trials of these ids, or without any those worth a look: recovered ones first, up to six.

    Raises:
        InputError: one is unknown, or nothing was scored on the metric.
    """
    known = {t.id: t for t in summary.trials}
    for id in ids:
        if id not in known:
            raise InputError(f"trial {id!r} is not in sweep {summary.sweep}{nearest(id, known)}")
    scored = [t for t in ([known[i] for i in ids] or summary.trials) if t.curves.get(metric)]
    if not scored:
        names = {m for t in summary.trials for m in t.curves}
        raise InputError(f"no trial was scored on {metric!r}; scored: {', '.join(sorted(names)) or 'nothing'}")
    if ids:
        return scored
    return sorted(scored, key=lambda t: metric not in t.readings or t.readings[metric].recovered_at is None)[:6]


class _Frame:
    """Scales, and the pieces of the picture as SVG elements."""

    def __init__(
        self, drawn: Sequence[Trial], metric: str, bases: Mapping[str, Measured | None], width: int, height: int
    ) -> None:
        self.metric, self.width, self.height = metric, width, height
        models = dict.fromkeys(str(t.config.get("model", "")) for t in drawn)
        self.bases = {model: base for model in models if (base := bases.get(model)) is not None}
        points = [p for t in drawn for p in t.curves[metric]]
        self.first = min(p.step for p in points)
        self.last = max(p.step for p in points)
        values = [p.value for p in [*points, *self.bases.values()]]
        pad = (max(values) - min(values) or 1.0) * 0.1
        share = min(values) >= 0 and max(values) <= 1
        self.low, self.high = (0.0, 1.0) if share else (min(values) - pad, max(values) + pad)

    def x(self, step: int) -> float:
        place = math.log1p(step / self.first) / math.log1p(self.last / self.first)
        return LEFT + place * (self.width - LEFT - LABELS)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def axes(self) -> list[str]:
        right, bottom = self.width - LABELS, self.height - BOTTOM
        out = [svg_text(LEFT - 36, 22, self.metric, weight=600)]
        for i in range(6):
            value = self.low + (self.high - self.low) * i / 5
            y = self.y(value)
            out.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{GRID}"/>')
            out.append(svg_text(LEFT - 8, y + 4, number(value), anchor="end"))
        edge = -math.inf
        for tick in [0, *(m * 10**p for p in range(8) for m in (1, 2, 5))]:
            if (tick and tick < self.first) or tick > self.last or self.x(tick) - edge < 30:
                continue
            edge = self.x(tick)
            out.append(svg_text(edge, bottom + 18, f"{tick:,}", anchor="middle"))
        return [*out, svg_text(right, bottom + 36, "optimizer step (log)", anchor="end")]

    def base_lines(self) -> list[str]:
        dashes = f'stroke="{TEXT}" stroke-width="1.3" stroke-dasharray="5 4"'
        right = self.width - LABELS
        return [f'<path d="M{LEFT} {self.y(base.value):.1f}H{right}" {dashes}/>' for base in self.bases.values()]

    def base_of(self, trial: Trial) -> Measured | None:
        return self.bases.get(str(trial.config.get("model", "")))

    def run(self, trial: Trial, colour: str, *, first: bool) -> list[str]:
        base = self.base_of(trial)
        points = ([base] if base else []) + list(trial.curves[self.metric])
        line = self._line(points, lambda p: p.value)
        above = self._line(points, lambda p: p.value + 2 * (p.se or 0.0))
        below = self._line(points[::-1], lambda p: p.value - 2 * (p.se or 0.0))
        out = [f'<path d="M{above}L{below}Z" fill="{colour}" opacity="0.16"/>']
        if first:
            out += self._dip(trial, points)
        out.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="{2.6 if first else 1.7}"/>')
        out += [
            f'<circle cx="{self.x(p.step):.1f}" cy="{self.y(p.value):.1f}" r="2.4" fill="{colour}"/>' for p in points
        ]
        return out

    def _dip(self, trial: Trial, points: Sequence[Measured]) -> list[str]:
        reading, base = trial.readings.get(self.metric), self.base_of(trial)
        if reading is None or reading.fell_at is None or reading.trough is None or base is None:
            return []
        start = max((p.step for p in points if p.step < reading.fell_at), default=0)
        end = reading.recovered_at or points[-1].step
        inside = [p for p in points if start <= p.step <= end]
        floor = f"{self.x(inside[-1].step):.1f},{self.y(base.value):.1f}"
        area = f"M{self._line(inside, lambda p: p.value)}L{floor}L{self.x(start):.1f},{self.y(base.value):.1f}Z"
        low = reading.trough
        out = [f'<path d="{area}" fill="{DIP}" opacity="0.20"/>']
        out.append(
            svg_text(self.x(low.step), self.y(low.value) + 22, f"low {number(low.value)}", anchor="middle", weight=600)
        )
        if reading.recovered_at is not None:
            back = next(p for p in points if p.step == reading.recovered_at)
            x, y = self.x(back.step), self.y(back.value)
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="none" stroke="{TEXT}" stroke-width="1.5"/>')
            out.append(svg_text(self.width - LABELS, y + 70, f"back at {back.step}", anchor="end", weight=600))
        return out

    def labels(self, drawn: Sequence[Trial]) -> list[str]:
        """The runs' names at their ends and the bases', pushed apart where they would touch."""
        ends = [
            (self.y(t.curves[self.metric][-1].value), t.label, COLOURS[i % len(COLOURS)]) for i, t in enumerate(drawn)
        ]
        for model, base in self.bases.items():
            whose = f" {model}" if len(self.bases) > 1 else ""
            ends.append((self.y(base.value), f"base{whose} {number(base.value)}", TEXT))
        out, free = [], -math.inf
        for y, label, colour in sorted(ends):
            free = max(y + 4, free + 15)
            short = label if len(label) <= 31 else label[:30] + "…"
            out.append(svg_text(self.width - LABELS + 10, free, short, colour=colour))
        return out

    def _line(self, points: Sequence[Measured], value: Callable[[Measured], float]) -> str:
        return "L".join(f"{self.x(p.step):.1f},{self.y(value(p)):.1f}" for p in points)


def svg_text(x: float, y: float, text: str, *, anchor: str = "start", weight: int = 400, colour: str = TEXT) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
