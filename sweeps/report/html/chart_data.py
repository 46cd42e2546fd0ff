"""The numbers behind the figures, as small as they can be: what the page embeds for its script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sweeps.report.analysis.conclusions.verdicts import skill_of
from sweeps.report.analysis.findings.as_json import arrays, thinned
from sweeps.report.analysis.findings.axes import same_level
from sweeps.report.analysis.findings.settings import SettingMetric
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.analysis.shape import Reading
from sweeps.report.analysis.wording import SAFETY, compact, number, percent, score, setting
from sweeps.report.html.trial_data import settings_data, tier_data, trial_facts

WIDE = 20  # a setting whose largest value is that many times its smallest is drawn on a logarithmic scale
MAX_WORDS = 12


def chart_data(summary: Summary) -> dict[str, Any]:
    """Returns what `document.js` reads; `summary.to_json()` holds every point, this may thin a training curve."""
    return {
        "panels": list(summary.panels),
        "axes": [{"name": a.name, "levels": list(a.levels)} for a in summary.axes],
        "bases": {
            model: {m: [p.value, p.se, p.n] for m, p in scores.items()} for model, scores in summary.bases.items()
        },
        "parameters": list(parameters(summary)),
        "objective": summary.objective,
        "trials": [_trial(t, summary) for t in summary.trials],
        "featured": featured(summary),
        "front": front_points(summary),
        "settings": settings_data(summary),
        "tiers": tier_data(summary),
        "notes": [[n.trial, n.text, n.who, n.when] for n in summary.user_notes],
    }


def front_points(summary: Summary) -> list[dict[str, Any]]:
    """Returns the settings that ran to their budget as skill and refusal with their errors, over items and seeds."""
    skill = skill_of(summary.objective)
    known = [s for s in summary.settings if s.whole and skill in s.metrics and SAFETY in s.metrics]
    return [
        {
            "trial": s.counted[0],
            "trials": list(s.trials),
            "label": s.label,
            "skill": s.metrics[skill].value,
            "skillError": _error(s.metrics[skill]),
            "safety": s.metrics[SAFETY].value,
            "safetyError": _error(s.metrics[SAFETY]),
            "front": bool(s.front),
        }
        for s in known
    ]


def _error(m: SettingMetric) -> float | None:
    """Standard error of a setting's mean: the larger of that over items and that over its own seeds."""
    known = [e for e in (None if m.items_se is None else m.items_se / m.runs**0.5, m.seeds_se) if e is not None]
    return max(known, default=None)


def other_metrics(summary: Summary) -> list[str]:
    """Metrics without a figure of their own, for the figure in which the reader picks one; lengths and losses first."""
    names = {m for t in summary.trials for m in t.curves} - set(summary.panels)
    return sorted(names, key=lambda m: (m.split("/")[0] not in ("length", "train"), m))


def featured(summary: Summary) -> str | None:
    """The trial that the page opens with: the best one, else the first."""
    return next(iter([*summary.best, *(t.id for t in summary.trials)]), None)


def parameters(summary: Summary) -> Iterator[dict[str, Any]]:
    """Yields the settings in which the trials differ: numbers with their scale, others with their levels."""
    names = dict.fromkeys(name for t in summary.trials for name in t.config)
    for name in names:
        values = [t.config[name] for t in summary.trials if name in t.config]
        levels = list({repr(v): v for v in values}.values())
        if len(levels) < 2:
            continue
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels)
        if numeric:
            wide = min(levels) > 0 and max(levels) / min(levels) >= WIDE
            yield {"name": name, "numeric": True, "log": wide, "low": min(levels), "high": max(levels)}
        elif len(levels) <= MAX_WORDS:
            yield {"name": name, "numeric": False, "levels": [compact(v) for v in levels]}


def _trial(t: Trial, summary: Summary) -> dict[str, Any]:
    levels = {a.name: _place(t.config.get(a.name), a.levels) for a in summary.axes}
    return {
        "id": t.id,
        "label": t.label,
        "state": t.state,
        "reason": t.reason,
        "model": str(t.config.get("model", "")),
        "config": {k: compact(v) for k, v in t.config.items()},
        "values": {k: v for k, v in t.config.items() if isinstance(v, int | float) and not isinstance(v, bool)},
        "tags": list(t.tags),
        "facts": list(trial_facts(t)),
        "paired": [p.sentence for p in t.paired],
        "decisions": [[d.step, d.action, d.phase, d.reason] for d in t.decisions],
        "search": " ".join([t.id, t.label, t.state, *t.tags, *(setting(k, v) for k, v in t.config.items())]).lower(),
        "levels": levels,
        "curves": {m: arrays(thinned(c)) for m, c in t.curves.items()},
        "shapes": {m: _shape(r) for m, r in t.readings.items()},
        "readings": {m: describe_reading(r) for m, r in t.readings.items()},
    }


def _place(value: Any, levels: Sequence[Any]) -> int:
    """The level's index, -1 when it is none."""
    return next((i for i, level in enumerate(levels) if same_level(level, value)), -1)


def _shape(r: Reading) -> dict[str, Any]:
    dipped = r.fell_at is not None and r.trough is not None
    return {
        "shape": r.shape.value,
        "fell_at": r.fell_at,
        "low": r.trough.step if dipped and r.trough is not None else None,
        "recovered_at": r.recovered_at,
        "sign": r.sign,
    }


def describe_reading(r: Reading) -> str:
    """A curve in one line: `dip-and-recover: low 0.55 ± 0.04 (-43 %) at step 120, back at step 300, ends at 0.94`."""
    if r.final is None:
        return r.shape.value
    ends = f"last {score(r.final)} at step {r.final.step}"
    if r.base is None:
        return f"no base score to judge by; {ends}"
    if r.change is not None:
        ends += f", {number(r.change, signed=True)} from base"
    if r.fell_at is None or r.trough is None:
        return f"{r.shape.value}: {ends}"
    share = "" if r.depth_relative is None else f" ({'-' if r.sign > 0 else '+'}{percent(abs(r.depth_relative))})"
    back = "" if r.recovered_at is None else f", back at step {r.recovered_at}"
    return f"{r.shape.value}: low {score(r.trough)}{share} at step {r.trough.step}{back}; {ends}"
