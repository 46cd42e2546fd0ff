"""A figure for a paper: curves of a metric as SVG, PDF or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sweeps.errors import InputError
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.html.curve_svg import COLOURS, chosen, curve_svg

KINDS: Final = (".svg", ".pdf", ".png")
WIDTH_IN, HEIGHT_IN, POINTS = 5.5, 3.2, 9  # a column and a half of most templates, with the size of a caption
DPI = 300


def write_figure(summary: Summary, path: Path, *, metric: str = "", trials: Sequence[str] = ()) -> Path:
    """Draws curves with bands of two standard errors and the base's line; the suffix says as what.

    Args:
        path: ends in .svg (no package needed), .pdf or .png (drawn by matplotlib, fonts embedded).
        metric: default is the sweep's objective. trials: ids; default is up to six.

    Raises:
        InputError: another suffix, an unknown trial or metric, or matplotlib is needed and not installed.
    """
    if path.suffix not in KINDS:
        raise InputError(f"{path.name}: got suffix {path.suffix!r}; expected one of {', '.join(KINDS)}")
    metric = metric or summary.objective
    if path.suffix == ".svg":
        path.write_text(curve_svg(summary, metric, trials=trials), encoding="utf-8")
        return path
    drawn = chosen(summary, metric, trials)
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as e:
        raise InputError(
            f"a figure as {path.suffix} needs matplotlib: pip install 'dipsweep[figures]'; .svg does not"
        ) from e
    with matplotlib.rc_context({"font.size": POINTS, "pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        _draw(figure.subplots(), summary, metric, drawn)
        figure.savefig(path, dpi=DPI)
    return path


def _draw(axes: Any, summary: Summary, metric: str, drawn: Sequence[Trial]) -> None:
    models = dict.fromkeys(str(t.config.get("model", "")) for t in drawn)
    for model in models:
        base = summary.bases.get(model, {}).get(metric)
        if base is not None:
            axes.axhline(base.value, color="0.3", linestyle="--", linewidth=1, label=f"base {model}")
    for i, trial in enumerate(drawn):
        points, colour = trial.curves[metric], COLOURS[i % len(COLOURS)]
        steps, values = [p.step for p in points], [p.value for p in points]
        axes.plot(steps, values, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=trial.label)
        if all(p.se is not None for p in points):
            low, high = zip(*((p.value - 2 * (p.se or 0), p.value + 2 * (p.se or 0)) for p in points), strict=True)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=POINTS - 1.5)
