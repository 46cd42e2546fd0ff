"""Every comparison of a sweep, made together and judged at one error level: settings, rivals, axes, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sweeps.config.names import JUDGED_ROLES
from sweeps.config.objective import Goal
from sweeps.journal.history import ENDED
from sweeps.journal.rows import base_trial
from sweeps.report.analysis.best_checkpoint import Candidate, who_stands
from sweeps.report.analysis.comparisons.effects import effects, factors, judged_effect, judged_importance, observations
from sweeps.report.analysis.comparisons.pairing import Outcomes, describe_pair, mean_outcomes, of_chosen, paired
from sweeps.report.analysis.comparisons.settings import checked, judged, measured, p_values, settings, spreads
from sweeps.report.analysis.conclusions.verdicts import Limit, limits, on_limits, on_safety, on_the_front, on_training
from sweeps.report.analysis.definition import less_is_better
from sweeps.report.analysis.findings.axes import Axis, Effect, Importance
from sweeps.report.analysis.findings.settings import Rivalry, Setting
from sweeps.report.analysis.findings.trials import Paired, Trial
from sweeps.report.analysis.inference import Level, Winner, difference, several_looks, two_sided, winner, with_spread
from sweeps.report.analysis.journal_summary import JournalSummary
from sweeps.report.analysis.shape import Measured, Reading, read_shape
from sweeps.report.analysis.wording import IN_DOMAIN, SAFETY
from sweeps.statistics import Paired as Compared

PANELS = (IN_DOMAIN, "transfer/score", "general/score", SAFETY)
BESIDE = ("length/mean", "length/truncated", "safety/over_refusal")


class Study:
    """Every comparison of a sweep, judged together.

    Attributes:
        level: the one error level. settings, rivalries, effects, importances, corrected: as in `Summary`.
    """

    def __init__(
        self,
        journal: JournalSummary,
        goal: Goal,
        trials: Sequence[Trial],
        axes: Sequence[Axis],
        scaled: Mapping[str, bool],
        bases: Mapping[str, Mapping[str, Measured]],
    ) -> None:
        self.journal, self.goal, self.bases = journal, goal, bases
        self.trials = list(trials)
        self.panels = _panels(trials, goal)
        by_id = {t.id: t for t in trials}
        known = {m for t in trials for m in t.curves}
        shown = [*self.panels, *(m for m in BESIDE if m in known and m not in self.panels)]
        signs = {m: _sign(m, goal) for m in shown}
        found = settings(trials)
        self.spread = spreads(found, by_id, self.panels, self._outcomes)
        found = [
            measured(
                s,
                by_id=by_id,
                metrics=shown,
                objective=goal.metric,
                bases=bases,
                signs=signs,
                spread=self.spread,
                outcomes=self._outcomes,
                base_outcomes=self._base_outcomes,
            )
            for s in found
        ]
        ranked = _ranked([checked(s, goal.constraints, by_id, bases) for s in found], goal, by_id)
        rivalries = self._rivalries(ranked, by_id)
        limited = limits(ranked, goal.metric)
        fits = [self._effects(axes, scaled, m) for m in self.panels]
        self.level = Level(
            [
                *(p for s in ranked for p in p_values(s, goal.metric, self.panels)),
                *(r.difference.p for r in rivalries),
                *(one.difference.p for one in limited),
                *(e.difference.p for effects, _ in fits for e in effects),
                *(i.p for _, importances in fits for i in importances),
            ]
        )
        self.rivalries = tuple(replace(r, difference=r.difference.judged(self.level)) for r in rivalries)
        self.effects = tuple(judged_effect(e, self.level) for effects, _ in fits for e in effects)
        self.importances = tuple(judged_importance(i, self.level) for _, found in fits for i in found)
        self.settings = self._with_verdicts([judged(s, self.level) for s in ranked], limited)
        self.corrected = self._corrected()

    def _outcomes(self, trial: Trial, metric: str) -> Outcomes | None:
        if trial.picked is not None and metric == trial.picked.metric:
            return trial.picked.outcomes
        point = trial.judged_score(metric)
        answers = self.journal.answers(trial.id, point.step) if point is not None else None
        return None if answers is None else answers.of(metric)

    def _paired(self, theirs: Outcomes | None, ours: Outcomes | None, metric: str) -> Compared | None:
        pair = paired(theirs, ours) if theirs is not None and ours is not None else None
        return of_chosen(pair) if pair is not None and self.goal.at == "best" and metric == self.goal.metric else pair

    def _base_outcomes(self, model: str, metric: str) -> Outcomes | None:
        answers = self.journal.answers(base_trial(model), 0)
        return None if answers is None else answers.of(metric)

    def _effects(
        self, axes: Sequence[Axis], scaled: Mapping[str, bool], metric: str
    ) -> tuple[list[Effect], list[Importance]]:
        runs = observations(self.trials, metric, self.bases)
        return effects(runs, factors(axes, scaled, runs), metric)

    def _rivalries(self, found: Sequence[Setting], by_id: Mapping[str, Trial]) -> list[Rivalry]:
        """The best setting against every other ranked one; picked as the best, it is judged as any pair would be."""
        ranked = sorted((s for s in found if s.rank is not None), key=lambda s: s.rank or 0)
        pairs = len(ranked) * (len(ranked) - 1) // 2
        compared = (self._rivalry(ranked[0], other, by_id, pairs) for other in ranked[1:])
        return [r for r in compared if r is not None]

    def _rivalry(self, first: Setting, other: Setting, by_id: Mapping[str, Trial], pairs: int) -> Rivalry | None:
        metric = self.goal.metric
        a, b = first.metrics[metric], other.metrics[metric]
        if a.items_se is None or b.items_se is None:
            return None
        kept = [[self._outcomes(by_id[id], metric) for id in s.counted] for s in (other, first)]
        sides = [mean_outcomes([o for o in seeds if o is not None]) if None not in seeds else None for seeds in kept]
        theirs, ours = sides
        same = self._paired(theirs, ours, metric)
        fixed = a.items_se**2 / a.runs + b.items_se**2 / b.runs if same is None else same.se**2
        spread = self.spread.get(metric)
        harmonic = 1 / (1 / a.runs + 1 / b.runs)
        se, df = with_spread(fixed, harmonic, spread)
        value = a.value - b.value
        exact = same.p if same is not None and (spread is None or spread.variance == 0) else two_sided(value, se, df)
        found = difference(value, se, df, p=several_looks(exact, pairs))
        return Rivalry(first.id, other.id, metric, found, None if same is None else same.items)

    def _with_verdicts(self, found: Sequence[Setting], limited: Sequence[Limit]) -> tuple[Setting, ...]:
        by_id = {s.id: s for s in found}
        front = on_the_front(found, self.goal.metric, self.level)
        out = []
        for s in found:
            cost = on_safety(s, self.goal.metric)
            verdicts = (
                on_training(s, self.goal.metric, self.level),
                *on_limits(s, limited, by_id, self.level),
                *([cost] if cost is not None else []),
            )
            out.append(replace(s, verdicts=verdicts, front=front.get(s.id)))
        return tuple(out)

    def _corrected(self) -> Winner | None:
        ranked = sorted((s for s in self.settings if s.rank is not None), key=lambda s: s.rank or 0)
        found = [s.metrics[self.goal.metric] for s in ranked]
        spread = self.spread.get(self.goal.metric)
        if not found or any(m.items_se is None for m in found):
            return None
        errors = [with_spread((m.items_se or 0.0) ** 2 / m.runs, m.runs, spread)[0] for m in found]
        best = winner([self.goal.sign * m.value for m in found], errors)
        if best is None or self.goal.sign > 0:
            return best
        return Winner(-best.value, -best.high, -best.low)

    def trials_with_ranks(self) -> list[Trial]:
        """Returns the trials with their readings and comparisons at the sweep's level, and the rank of their setting."""
        of = {id: s for s in self.settings for id in s.trials}
        counts = {t.id for t in self.trials if t.state == "completed" or (t.picked is not None and t.state in ENDED)}
        return [
            replace(self._read(t), rank=of[t.id].rank, shares=self._stands_for(t, of[t.id]))
            if t.id in counts
            else self._read(t)
            for t in self.trials
        ]

    def _stands_for(self, t: Trial, setting: Setting) -> str:
        """Returns the trial of the same best checkpoint in the setting that has a place for it; empty where its own has one."""
        if not setting.shares or t.picked is None:
            return ""
        best = (t.picked.trained_by, t.picked.step)
        others = {o.id: o.picked for o in self.trials if o.id in self._setting(setting.shares).counted}
        return next((id for id, p in others.items() if p is not None and (p.trained_by, p.step) == best), "")

    def _read(self, t: Trial) -> Trial:
        base = self.bases.get(str(t.config.get("model", "")), {})
        readings = _readings(t.curves, base, self.goal, self.level.threshold)
        pairs = [p for m in self.panels if (p := self._against_base(t, m)) is not None]
        return replace(t, readings=readings, paired=tuple(pairs))

    def _against_base(self, t: Trial, metric: str) -> Paired | None:
        ours, theirs = self._outcomes(t, metric), self._base_outcomes(str(t.config.get("model", "")), metric)
        pair, point = self._paired(theirs, ours, metric), t.judged_score(metric)
        if pair is None or point is None:
            return None
        return describe_pair(pair, metric, "base", "its base", point.step, self.level)

    def examples(self, by_id: Mapping[str, Trial]) -> tuple[str, ...]:
        """One trial for each of the top settings: the completed seed whose score is nearest to the mean."""
        ranked = sorted((s for s in self.settings if s.rank is not None), key=lambda s: s.rank or 0)
        return tuple(self._example(s, by_id) for s in ranked[: self.goal.top])

    def _example(self, s: Setting, by_id: Mapping[str, Trial]) -> str:
        mean = s.metrics[self.goal.metric].value
        scored = {id: t.objective.value for id in s.counted if (t := by_id[id]).objective is not None}
        return min(scored, key=lambda id: abs(scored[id] - mean))

    def tied(self, best: Sequence[str]) -> tuple[str, ...]:
        """One trial for each ranked setting that is not told apart from the best one."""
        shown = {id: s.id for s in self.settings for id in best if id in s.trials}
        example = {setting: id for id, setting in shown.items()}
        return tuple(example.get(r.other, r.other) for r in self.rivalries if not r.difference.real)

    def rivals(self, best: Sequence[str], by_id: Mapping[str, Trial]) -> tuple[Paired, ...]:
        """The example of the best setting against those of the next ones, item by item."""
        metric, found = self.goal.metric, []
        for other in best[1:]:
            ours, theirs = self._outcomes(by_id[best[0]], metric), self._outcomes(by_id[other], metric)
            pair = self._paired(theirs, ours, metric)
            if pair is not None:
                step = _step_of(by_id[best[0]], metric)
                one = describe_pair(pair, metric, other, by_id[other].label, step, self.level)
                settled = next((r for r in self.rivalries if other in self._setting(r.other).trials), None)
                found.append(one if settled is None else replace(one, different=settled.difference.real))
        return tuple(found)

    def _setting(self, id: str) -> Setting:
        return next(s for s in self.settings if s.id == id)


def _step_of(trial: Trial, metric: str) -> int:
    point = trial.judged_score(metric)
    assert point is not None, f"{trial.id} was compared on {metric} without a score"
    return point.step


def _readings(
    curves: Mapping[str, tuple[Measured, ...]], base: Mapping[str, Measured], goal: Goal, level: float
) -> dict[str, Reading]:
    judged = [m for m in curves if m.split("/")[0] in JUDGED_ROLES or m == goal.metric]
    return {m: read_shape(m, curves[m], base.get(m), sign=_sign(m, goal), level=level) for m in judged}


def _sign(metric: str, goal: Goal) -> float:
    if metric == goal.metric:
        return goal.sign
    return -1.0 if less_is_better(metric) else 1.0


def _ranked(found: Sequence[Setting], goal: Goal, by_id: Mapping[str, Trial]) -> list[Setting]:
    """Returns the settings with their ranks: whole ones that meet every constraint, best first, equal ones in order.

    Where trials are worth their best checkpoint, pruned ones keep theirs: all that ended are ranked. Several that are worth the
    same checkpoints, of a run that they share, are one finding: one of them has the place, and the others name it.

    Nothing is ranked by a score of which all have none: a suite that every checkpoint fails tells nothing.
    """
    over = [s for s in found if s.whole or (goal.at == "best" and s.ended)]
    ranked = [s for s in over if s.meets and goal.metric in s.metrics]
    if all(s.metrics[goal.metric].value == 0 for s in ranked) and goal.maximize:
        ranked = []
    stands = who_stands(_candidate(s, by_id) for s in ranked)
    order = sorted((s for s in ranked if stands[s.id] == s.id), key=lambda s: -goal.sign * s.metrics[goal.metric].value)
    place = {s.id: i for i, s in enumerate(order, start=1)}
    return [replace(s, rank=place.get(s.id), shares=_other(stands.get(s.id, ""), s.id)) for s in found]


def _candidate(s: Setting, by_id: Mapping[str, Trial]) -> Candidate:
    """Returns a setting by the best checkpoints of its seeds; by its own id where a seed has none."""
    picks = [(p.trained_by, p.step) for id in s.counted if (p := by_id[id].picked) is not None]
    if len(picks) < len(s.counted):
        return Candidate(s.id, s.id, True, s.budget or 0)
    return Candidate(s.id, frozenset(picks), all(trial in s.trials for trial, _ in picks), s.budget or 0)


def _other(id: str, own: str) -> str:
    return "" if id == own else id


def _panels(trials: Sequence[Trial], goal: Goal) -> tuple[str, ...]:
    """One metric a role, where anything was scored on it; the objective too when it is none of them."""
    seen = dict.fromkeys(m for t in trials for m in t.curves)
    panels = [m for m in PANELS if m in seen]
    if IN_DOMAIN not in seen and "math/score" in seen:
        panels.insert(0, "math/score")
    for role in JUDGED_ROLES:
        if not any(p.startswith(f"{role}/") for p in panels):
            panels += [m for m in seen if m.startswith(f"{role}/")][:1]
    return tuple(dict.fromkeys([*panels, *([goal.metric] if goal.metric in seen else [])]))
