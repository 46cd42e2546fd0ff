"""What else a report says beside the score: shown with a verdict, and where it spoils the score, in its sentence.

In-domain score, reply length and train loss are evidence for a reader; they do not move the odds. On 108 recorded runs
they told nothing of a run's further gain that level and slope had not told (`benchmarks/stopping/README.md`). A rise in
truncated replies does count: a reply that was cut off is no wrong answer, so such a report is taken as vaguer, and the
phase of the curve is not read off it (`sweeps.stopping.forecasting.forecasts`). A train loss that rises for good is divergence
(`sweeps.stopping.dip_aware`).
"""

from __future__ import annotations

from sweeps.journal.history import History

IN_DOMAIN, LENGTH, TRUNCATED, LOSS = "math/in_domain", "length/mean", "length/truncated", "train/loss"
# Rise of the truncated share above what is normal for the trial: from here on no fall is read off a report.
SPOILT = 0.10


def normal_truncation(history: History, trial: str) -> float:
    """Returns the share of replies cut off that is normal for a trial: the base model's, or the lowest seen; else 0."""
    base, points = history.base_point(trial), history.curves[trial].points.values()
    if base is not None and TRUNCATED in base.metrics:
        return base.metrics[TRUNCATED]
    return min((p.metrics[TRUNCATED] for p in points if TRUNCATED in p.metrics), default=0.0)


def signals(history: History, trial: str, step: int) -> dict[str, float]:
    """Returns what the report at `step` gave of the other signals, and what the base model had, by metric name."""
    point, base = history.curves[trial].points[step], history.base_point(trial)
    out = {}
    for name in (IN_DOMAIN, LENGTH, TRUNCATED, LOSS):
        if name in point.metrics:
            out[name] = point.metrics[name]
            if base is not None and base is not point and name in base.metrics:
                out[f"base {name}"] = base.metrics[name]
    return out


def cut_off(history: History, trial: str, step: int, *, ended: bool = False) -> str:
    """Returns the half-sentence on replies cut off at `step`; empty where they are no more than normal.

    Args:
        ended: the budget is run, and the trial is worth the score that it has.
    """
    share = history.curves[trial].points[step].metrics.get(TRUNCATED)
    if share is None or share <= (normal := normal_truncation(history, trial)) + SPOILT:
        return ""
    return f" ({share:.0%} of replies cut off, normal is {normal:.0%}{'' if ended else ': taken as vaguer'})"
