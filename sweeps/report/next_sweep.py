"""What to run next, as a sweep file: the one follow-up that a sweep's findings ask for most, with the reason.

The first that applies, for settings that are not known to miss a constraint:

1. longer: the best one still rises, or none is ranked above its base and some are under-optimised. Those run again, to the step
   at which their line reaches the base (the upper end of its 95 % range, at most four times as long), else twice as long.
2. shorter: the best one is over-trained: it runs again to shortly after its best step.
3. larger: the best one is capacity-limited: it runs again on the larger model, beside itself.
4. seeds: the best one is not told apart from others, or not from its base: those run again, on other seeds, as many as would
   settle it (three to eight).
5. confirm: the best one runs again on three other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeps.config.schema import Sweep
from sweeps.report.analysis.conclusions.verdicts import seeds_needed
from sweeps.report.analysis.findings.settings import Kind, Setting
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.inference import Level
from sweeps.report.analysis.wording import plural
from sweeps.setting_names import current_names

MOST_SETTINGS: Final = 4
FEWEST_SEEDS, MOST_SEEDS = 3, 8
LONGEST: Final = 4.0
"""Times as long as before that a follow-up runs at most."""
AFTER_BEST: Final = 1.25


@dataclass(frozen=True, slots=True)
class NextSweep:
    """A follow-up.

    Attributes:
        kind: longer, shorter, larger, seeds or confirm. why: a sentence with the numbers behind it.
        sweep: its definition, which has been validated.
    """

    kind: str
    why: str
    sweep: Sweep

    def yaml(self, *comments: str) -> str:
        """Returns it as a sweep file; what has its default is left out."""
        import yaml

        data = self.sweep.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        if "objective" in data:
            data["objective"]["goal"] = self.sweep.objective.goal  # of some metrics it has to be said
        head = "".join(
            f"# {line}".rstrip() + "\n" for comment in (self.why, *comments) for line in comment.splitlines()
        )
        return head + str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120))


def next_sweep(summary: Summary) -> NextSweep | None:
    """Returns the follow-up of a sweep; None while it has not ended, or where no setting can be run again.

    Raises:
        SpecError: the sweep's own definition is one that this version refuses.
    """
    still_open = any(t.state in ("running", "waiting", "scoring") for t in summary.trials)
    fit = [s for s in summary.settings if s.whole and s.meets is not False and summary.objective in s.metrics]
    if still_open or not fit or not summary.spec:
        return None
    best = next(iter(summary.ranked()), None)
    rising = [s for s in fit if s.verdicts[0].kind is Kind.UNDER_OPTIMISED]
    if best is not None and _rises(best, summary.objective):
        return _longer(summary, [best, *(s for s in rising if s is not best)])
    if best is None:
        return _longer(summary, rising) if rising else None
    if best.verdicts[0].kind is Kind.OVER_TRAINED:
        return _shorter(summary, best)
    larger = next((v for v in best.verdicts if v.kind is Kind.CAPACITY_LIMITED), None)
    if larger is not None:
        other = next(s for s in summary.settings if s.id == larger.evidence["against"])
        why = f"{best.label} is capacity-limited beside {other.model}: both again, on other seeds."
        return _made(summary, "larger", why, [best, other], repeats=FEWEST_SEEDS)
    return _seeds(summary, best)


def _rises(s: Setting, objective: str) -> bool:
    m = s.metrics[objective]
    return m.trend is not None and m.trend.per_100.turned(m.sign).rose


def _longer(summary: Summary, settings: Sequence[Setting]) -> NextSweep | None:
    chosen = settings[:MOST_SETTINGS]
    budgets = [_longer_budget(s, summary.objective) for s in chosen]
    if not all(budgets):
        return None
    first, steps = chosen[0], [b for b in budgets if b is not None]
    below, rises = ("below", "rises") if first.metrics[summary.objective].sign > 0 else ("worse than", "falls")
    what = "the best setting" if first.rank == 1 else f"a setting {below} its base"
    why = f"{first.label}, {what}, still {rises} at step {first.budget:,}: to {steps[0]:,} steps."
    return _made(summary, "longer", why, chosen, steps=steps, repeats=2)


def _longer_budget(s: Setting, objective: str) -> int | None:
    if s.budget is None:
        return None
    trend = s.metrics[objective].trend
    latest = trend.reaches[2] if trend is not None and trend.reaches is not None else 0.0
    wanted = latest if latest > s.budget else 2.0 * s.budget
    return _round_up(min(wanted, LONGEST * s.budget))


def _round_up(steps: float) -> int:
    """To two significant digits."""
    unit: int = 10 ** max(math.floor(math.log10(steps)) - 1, 0)
    return math.ceil(steps / unit) * unit


def _shorter(summary: Summary, best: Setting) -> NextSweep | None:
    m = best.metrics[summary.objective]
    at, fell = m.best_at, "fell" if m.sign > 0 else "rose"
    if at is None or best.budget is None:
        return None
    steps = min(_round_up(AFTER_BEST * at), best.budget)
    why = f"{best.label} was best at step {at:,} and {fell} since: to {steps:,} steps, on other seeds."
    return _made(summary, "shorter", why, [best], steps=[steps], repeats=FEWEST_SEEDS)


def _seeds(summary: Summary, best: Setting) -> NextSweep:
    by_id = {s.id: s for s in summary.settings}
    tied = [by_id[r.other] for r in summary.rivalries if not r.difference.real]
    chosen = [best, *tied][:MOST_SETTINGS]
    m = best.metrics[summary.objective]
    gap = abs(summary.rivalries[0].difference.value) if tied else abs(m.change.value) if m.change is not None else 0.0
    wanted = seeds_needed(m, Level([summary.threshold]), gap)
    repeats = min(max(wanted or FEWEST_SEEDS, FEWEST_SEEDS), MOST_SEEDS)
    if tied:
        why = (
            f"{best.label} is not told apart from {plural(len(tied), 'other')}: {plural(len(chosen), 'setting')} again"
        )
    elif m.change is not None and not m.change.real:
        why = f"{best.label} is not told from its base: again"
    else:
        return _made(
            summary, "confirm", f"{best.label} again, on {repeats} other seeds, to confirm it.", chosen, repeats=repeats
        )
    return _made(summary, "seeds", f"{why}, on {plural(repeats, 'other seed')}.", chosen, repeats=repeats)


def _made(
    summary: Summary, kind: str, why: str, chosen: Sequence[Setting], *, repeats: int, steps: Sequence[int] = ()
) -> NextSweep:
    """The sweep's own definition with the chosen settings for its space."""
    spec = {k: dict(v) if isinstance(v, Mapping) else v for k, v in summary.spec.items() if v is not None}
    configs = [
        dict(s.config) | ({"steps": n} if n else {}) for s, n in zip(chosen, steps or [0] * len(chosen), strict=True)
    ]
    space = _space(summary, configs)
    longest = max((int(c["steps"]) for c in configs if "steps" in c), default=0)
    trainer = dict(current_names(spec.get("trainer", {}))) | {
        n: v for n, v in configs[0].items() if n == "steps" and n not in space
    }
    seeds = [int(t.config["seed"]) for t in summary.trials if "seed" in t.config]
    evaluation = spec.get("evaluation", {})
    spec |= {
        "name": f"{summary.name[:50].removesuffix('-next')}-next",
        "seed": max(seeds, default=-1) + 1,
        "space": space,
        "search": {"algorithm": "grid", "repeats": repeats},
        "trainer": trainer,
        "evaluation": evaluation | {"at": _schedule(evaluation.get("at", "log"), longest)},
        "stopping": spec.get("stopping", {}) | {"top": min(int(spec.get("stopping", {}).get("top", 3)), len(chosen))},
        "limits": {k: v for k, v in spec.get("limits", {}).items() if k != "trials"},
    }
    return NextSweep(kind, why, Sweep(**spec))


def _space(summary: Summary, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The axes that give these configurations: of one a grid each, of several one zip."""
    listed = [name for name in _varied(summary) if all(name in c for c in configs)]
    names = [n for n in listed if len(configs) == 1 or len({repr(c[n]) for c in configs}) > 1]
    if not names:
        names = ["steps"]
    if len(configs) == 1 or len(names) == 1:
        return {n: {"grid": list({repr(c[n]): c[n] for c in configs}.values())} for n in names} | _fixed(
            listed, names, configs
        )
    return {"chosen": {"zip": {n: [c[n] for c in configs] for n in names}}} | _fixed(listed, names, configs)


def _fixed(listed: Sequence[str], names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Axes of the sweep on which all of the configurations agree."""
    return {n: {"grid": [configs[0][n]]} for n in listed if n not in names}


def _varied(summary: Summary) -> list[str]:
    """The settings that the sweep's own axes gave values to."""
    names: dict[str, None] = {}
    for name, axis in current_names(summary.spec.get("space", {})).items():
        names |= dict.fromkeys(current_names(axis["zip"])) if "zip" in axis else {name: None}
    return list(names)


def _schedule(at: Any, longest: int) -> Any:
    """A list of steps goes on to a longer budget in four more steps; a named schedule stretches by itself."""
    if not isinstance(at, list) or not at or longest <= max(at):
        return at
    last = max(at)
    return [*at, *(last + round((longest - last) * i / 4) for i in range(1, 5))]
