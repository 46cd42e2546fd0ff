"""What can be concluded on a setting, by stated rules: pure functions from its numbers to verdicts with their evidence.

All differences below are turned so that more is better, and *real* as `inference.Level` calls them: one test, one error
level, all comparisons of the sweep together. A fall, a gain and a decline must also be at least 5 % of the base. On the
objective, the first rule that applies gives the verdict on the training:

1. under-optimised: the last score is really below the base, and the last stretch really rises.
2. over-trained: the last score is really below the best one, which really beat the base or came after a dip that was made
   good, and the last stretch does not really rise.
3. collapsed: really below the base, not rising, and at least half of the base is lost. worse: the same, with less lost.
   A run that was stopped early gets neither: it might have come back.
4. recovered: it really fell, and its last score is back (90 % of the base, half of the loss regained).
5. improved: the last score is really above the base.
6. unchanged: the 95 % range of the change lies within 5 % of the base on either side.
7. inconclusive: none of these, or something that the rules need was not measured; it says what would settle it.

Beside it, comparisons between settings that differ in one thing only, on settings that no longer rise:

- data-limited: another tier ends really higher at as many tokens.
- capacity-limited: a larger model gains really more from the same tier, while this one has learned the task it was trained
  on (in-domain really rose, where it was measured) and ends its replies (at most 10 % truncated, where it was measured).
- safety-cost: refusal of harmful prompts really fell while in-domain or the objective really rose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeps.config.known_models import known_model
from sweeps.report.analysis.comparisons.settings import setting_key
from sweeps.report.analysis.findings.settings import Kind, Setting, SettingMetric, Trend, Verdict
from sweeps.report.analysis.inference import ALPHA, Difference, Level, difference, several_looks, two_sided
from sweeps.report.analysis.shape import MIN_FALL
from sweeps.report.analysis.wording import IN_DOMAIN, SAFETY, number, percent, plural

TRUNCATED: Final = "length/truncated"
ENDS_ITS_REPLIES: Final = 0.10
HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limit:
    """A setting against a better one that differs from it in one axis. `looks`: settings it was compared with."""

    setting: str
    other: str
    axis: str
    metric: str
    difference: Difference
    looks: int


def on_training(setting: Setting, metric: str, level: Level) -> Verdict:
    """Returns the verdict on what training did to one metric of a setting; its differences must be judged."""
    m = setting.metrics.get(metric)
    missing = _missing(setting, metric, m)
    if missing is not None:
        return Verdict(Kind.INCONCLUSIVE, metric, f"{metric}: {missing[0]}.", None, {}, missing[1])
    assert m is not None
    return _Reader(setting, m, level).verdict()


def _missing(setting: Setting, metric: str, m: SettingMetric | None) -> tuple[str, str] | None:
    if m is None:
        return "not scored after step 0", "a score"
    if m.base is None:
        return (
            "the base model was not scored, so nothing can be compared with it",
            "a score of the base model at step 0",
        )
    if m.change is None:
        return (
            "scores came without standard errors, so nothing can be said of chance",
            "scores with their standard errors",
        )
    open_ = sum(setting.states.get(s, 0) for s in ("running", "waiting", "scoring"))
    if not setting.whole and open_:
        so_far = "best so far " if m.of else ""
        return (
            f"still open: {so_far}{number(m.value)} at step {m.step} of {setting.budget}, base {number(m.base.value)}",
            "its end",
        )
    return None


class _Reader:
    """One metric of one setting, turned so that more is better, under the rules of this module."""

    def __init__(self, setting: Setting, m: SettingMetric, level: Level) -> None:
        assert m.base is not None
        assert m.change is not None
        assert m.fall is not None
        assert m.gain is not None
        assert m.decline is not None
        self.setting, self.m, self.level, self.base = setting, m, level, m.base
        self.change, self.fall, self.gain, self.decline = (
            d.turned(m.sign) for d in (m.change, m.fall, m.gain, m.decline)
        )
        self.slope = m.trend.per_100.turned(m.sign) if m.trend is not None else None
        self.better, self.worse = ("above", "below") if m.sign > 0 else ("better than", "worse than")
        self.floor = MIN_FALL * abs(m.base.value)

    def verdict(self) -> Verdict:
        rising = self.slope is not None and self.slope.rose
        fell = self.fall.fell and -self.fall.value >= self.floor
        below = self.change.fell and -self.change.value >= self.floor
        declined = self.decline.fell and -self.decline.value >= self.floor
        came_back = fell and self.m.back_at is not None
        if below and rising and not (declined and self.gain.rose):
            return self._say(Kind.UNDER_OPTIMISED, self._below(), self.change, self.slope)
        if (
            declined
            and not self.m.of  # a trial that keeps its best checkpoint loses nothing after it
            and not rising
            and (self.gain.rose or (came_back and (self.m.best_at or 0) > (self.m.fell_at or 0)))
        ):
            return self._say(Kind.OVER_TRAINED, self._past_its_best(), self.decline)
        if below and not self.setting.whole:
            return self._open(f"{self._below()}; it was stopped, and whether it would have come back is not known")
        if below:
            lost = -self.change.value >= HALF * abs(self.base.value) > 0
            return self._say(Kind.COLLAPSED if lost else Kind.WORSE, self._below(), self.change)
        if came_back and self._is_back():
            return self._say(Kind.RECOVERED, self._back(), self.fall)
        if self.change.rose:
            return self._say(Kind.IMPROVED, f"{self._ends()}, {self.better} the base", self.change)
        if -self.floor <= self.change.low and self.change.high <= self.floor:
            return self._say(Kind.UNCHANGED, f"{self._ends()}: within {percent(MIN_FALL)} of the base", None)
        if self.change.fell:
            return self._open(
                f"{self._ends()}: {self.worse} the base; whether by {percent(MIN_FALL)} of it or more is not known"
            )
        return self._open(f"{self._ends()}: not told from the base")

    def _is_back(self) -> bool:
        lowest, last = self.fall.value, self.change.value
        return last >= max(-0.10 * abs(self.base.value), lowest / 2)

    def _say(self, kind: Kind, sentence: str, *tests: Difference | None) -> Verdict:
        q = max((t.q for t in tests if t is not None), default=ALPHA)
        return Verdict(kind, self.m.metric, f"{self.m.metric}: {sentence}.", 1 - q, self._evidence())

    def _open(self, sentence: str) -> Verdict:
        return Verdict(
            Kind.INCONCLUSIVE, self.m.metric, f"{self.m.metric}: {sentence}.", None, self._evidence(), self._settle()
        )

    def _settle(self) -> str:
        if not self.setting.whole:
            return f"running it to its budget of {self.setting.budget} steps"
        # Of a real fall around the least that counts, it is on which side of that it lies; else whether there is one.
        size = abs(self.change.value + self.floor) if self.change.fell else max(abs(self.change.value), self.floor)
        needs = [f"{n:,} items" for n in [items_needed(self.m, self.level, size)] if n is not None]
        runs = seeds_needed(self.m, self.level, size)
        if runs is not None and runs > self.m.runs:
            needs.append(plural(runs, "seed"))
        what = f"a difference of {number(size)} would be seen with about " + " or ".join(needs)
        return what if needs else "more items or seeds"

    def _ends(self) -> str:
        return (
            f"{number(self.m.value)} {place(self.m)}, {span(self.m.change)} from the base's {number(self.base.value)}"
        )

    def _below(self) -> str:
        short = (
            f"{self.worse} the base even at its best" if self.m.of else f"not back in its {plural(self.m.step, 'step')}"
        )
        text = f"{short}: {self._ends()}"
        return f"{text}; {heading(self.m.trend, self.m.sign)}"

    def _past_its_best(self) -> str:
        best, way = (
            self.m.value - (self.m.decline.value if self.m.decline else 0.0),
            "down" if self.m.sign > 0 else "up",
        )
        return (
            f"best {number(best)} at step {self.m.best_at:,}, then {span(self.m.decline)} {way} to {number(self.m.value)} at "
            f"step {self.m.step:,}; {heading(self.m.trend, self.m.sign)}"
        )

    def _back(self) -> str:
        low = self.base.value + (self.m.fall.value if self.m.fall else 0.0)
        fell, back = ("fell", "back at 90 %") if self.m.sign > 0 else ("rose", "back within 10 %")
        return (
            f"{fell} to {number(low)} at step {self.m.fell_at:,}, {back} of the base by step {self.m.back_at:,}, "
            f"{'its best is' if self.m.of else 'ends'} {self._ends()}; {heading(self.m.trend, self.m.sign)}"
        )

    def _evidence(self) -> dict[str, Any]:
        m = self.m
        facts: dict[str, Any] = {"step": m.step, "value": m.value, "base": self.base.value, "runs": m.runs, "n": m.n}
        named = {"change": m.change, "fall": m.fall, "gain": m.gain, "decline": m.decline}
        facts |= {
            k: {"value": d.value, "low": d.low, "high": d.high, "p": d.p, "q": d.q} for k, d in named.items() if d
        }
        facts |= {"fell_at": m.fell_at, "best_at": m.best_at, "back_at": m.back_at}
        if m.trend is not None:
            slope = m.trend.per_100
            facts["per_100"] = {"value": slope.value, "low": slope.low, "high": slope.high, "p": slope.p, "q": slope.q}
            facts["reaches"] = m.trend.reaches
        return facts


def place(m: SettingMetric) -> str:
    """Where a setting's score is from: `at step 40`, or the best checkpoints of its seeds, each at a step of its own."""
    return f"at the best checkpoints of its {m.runs} seeds" if m.of and m.runs > 1 else f"at step {m.step}"


def span(d: Difference | None) -> str:
    """`+0.12 (95 % +0.05 to +0.19)`."""
    if d is None:
        return "–"
    return f"{number(d.value, signed=True)} (95 % {number(d.low, signed=True)} to {number(d.high, signed=True)})"


def heading(trend: Trend | None, sign: float) -> str:
    """Whether it was long enough, in words: rising, falling or flat over its last stretch, with the number.

    Args:
        sign: -1 where less is better: a score that falls there gets better.
    """
    if trend is None:
        return "fewer than three scores, so where it was heading is not known"
    d = trend.per_100.turned(sign)
    over = f"over its last {trend.until - trend.since:,} steps"
    if not d.real:
        raw = trend.per_100
        low, high = number(raw.low, signed=True), number(raw.high, signed=True)
        way = "rising" if raw.value > 0 else "falling"
        seems = f"seems to be {way}, not for certain," if d.p <= ALPHA else "not known to rise or fall"
        return f"{seems} {over} ({number(raw.value, signed=True)} per 100 steps, 95 % {low} to {high})"
    word = ("still " if d.value > 0 else "") + ("rising" if trend.per_100.value > 0 else "falling")
    text = f"{word} {number(abs(d.value))} per 100 steps {over}"
    if trend.reaches is not None and d.value > 0:
        at, soonest, latest = (math.ceil(s) for s in trend.reaches)
        text += f"; at that rate it is back at the base by about step {at:,} (95 % {soonest:,} to {latest:,})"
    return text


def items_needed(m: SettingMetric, level: Level, effect: float) -> int | None:
    """Returns the items a seed's score needs for a true difference of this size to be called real four times in five.

    None when training luck alone, or an unknown error, stands in the way.
    """
    if m.n is None or m.change is None or m.items_se is None or effect <= 0:
        return None
    base_error = m.base.se if m.base is not None and m.base.se else 0.0
    over_items = min(m.change.se**2, m.items_se**2 / m.runs + base_error**2)
    luck = m.change.se**2 - over_items
    room = level.needed_se(effect) ** 2 - luck
    return math.ceil(m.n * over_items / room) if room > 0 and over_items > 0 else None


def seeds_needed(m: SettingMetric, level: Level, effect: float) -> int | None:
    """Returns the seeds that the setting needs for the same, the items as they are; None with a single seed."""
    if m.change is None or m.seeds_se is None or m.runs < 2 or effect <= 0:
        return None
    base_error = m.base.se if m.base is not None and m.base.se else 0.0
    per_run = max(m.change.se**2 - base_error**2, 0.0) * m.runs
    room = level.needed_se(effect) ** 2 - base_error**2
    return math.ceil(per_run / room) if room > 0 and per_run > 0 else None


def limits(settings: Sequence[Setting], metric: str) -> list[Limit]:
    """Compares every whole setting with the best of those that differ from it in their data, or their model, alone.

    With several others the best one is picked, so its p-value is that of as many looks.
    """
    whole = [s for s in settings if s.whole and (m := s.metrics.get(metric)) is not None and m.change is not None]
    found = []
    for axis in ("data", "model"):
        groups: dict[tuple[tuple[str, str], ...], list[Setting]] = {}
        for s in whole:
            groups.setdefault(setting_key(s.config, but=axis), []).append(s)
        for members in groups.values():
            for s in members:
                others = [o for o in members if o is not s and (axis == "data" or is_larger(o.model, s.model))]
                found += [best for best in [_against_best(s, others, axis, metric)] if best is not None]
    return found


def _against_best(s: Setting, others: Sequence[Setting], axis: str, metric: str) -> Limit | None:
    ours = s.metrics[metric]
    pairs = [(_apart(o.metrics[metric], ours, axis), o.id) for o in others]
    if not pairs:
        return None
    best, other = max(pairs, key=lambda pair: ours.sign * pair[0].value)
    p = several_looks(best.p, len(pairs))
    return Limit(s.id, other, axis, metric, difference(best.value, best.se, best.df or math.inf, p=p), len(pairs))


def _apart(theirs: SettingMetric, ours: SettingMetric, axis: str) -> Difference:
    """The other's change less ours. With one base for both its error is in neither; with two models it is in each."""
    assert theirs.change is not None
    assert ours.change is not None
    value = theirs.change.value - ours.change.value
    shared = (ours.base.se or 0.0) if axis == "data" and ours.base is not None else 0.0
    items = [(m.items_se or 0.0) ** 2 / m.runs for m in (theirs, ours)]
    variance = sum(
        max(m.change.se**2 - shared**2, i) if m.change else 0.0 for m, i in zip((theirs, ours), items, strict=True)
    )
    known = [m.change.df for m in (theirs, ours) if m.change and m.change.df is not None]
    return difference(value, math.sqrt(variance), min(known, default=math.inf))


def is_larger(model: str, other: str) -> bool:
    """Whether one model is known to be larger than another: by its published shape, or the size in its name."""
    a, b = _size(model), _size(other)
    return a is not None and b is not None and a > b


_LETTERS: Final = {"xs": 1.0, "s": 2.0, "m": 3.0, "l": 4.0, "xl": 5.0}


def _size(model: str) -> float | None:
    """Parameters, roughly; the built-in `tiny-xs` to `tiny-l` only in their order."""
    known = known_model(model)
    if known is not None:
        shape = known.shape
        return float(shape.layers * shape.hidden * (4 * shape.hidden + 3 * shape.feed_forward))
    named = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", model.lower())
    if named:
        return float(named[1]) * (1e9 if named[2] == "b" else 1e6)
    return _LETTERS.get(model.rpartition("-")[2]) if model.startswith("tiny-") else None


def on_limits(
    setting: Setting, found: Sequence[Limit], by_id: Mapping[str, Setting], level: Level
) -> Iterator[Verdict]:
    """Yields data-limited and capacity-limited for a setting that no longer rises."""
    for limit in found:
        if limit.setting != setting.id:
            continue
        d, metric = limit.difference.judged(level), limit.metric
        m = setting.metrics[metric]
        rises = m.trend is not None and m.trend.per_100.turned(m.sign).rose
        if rises or m.trend is None or not d.turned(m.sign).rose:
            continue
        other = by_id[limit.other]
        evidence = {"against": other.id, "difference": d.value, "low": d.low, "high": d.high, "p": d.p, "q": d.q}
        way, no_longer = ("higher", "rises") if m.sign > 0 else ("lower", "falls")
        if limit.axis == "data":
            sentence = (
                f"{other.config.get('data')} ends {span(d)} {way} after as many steps, and this no longer {no_longer}"
            )
            yield Verdict(Kind.DATA_LIMITED, metric, f"{metric}: {sentence}.", 1 - d.q, evidence)
        elif (learned := learned_the_task(setting)) is not None:
            sentence = (
                f"{other.model} gains {span(d.turned(m.sign))} more from the same data; {learned}, "
                f"and this no longer {no_longer}"
            )
            yield Verdict(Kind.CAPACITY_LIMITED, metric, f"{metric}: {sentence}.", 1 - d.q, evidence)


def learned_the_task(setting: Setting) -> str | None:
    """What shows that the format was learned: in-domain rose, replies end. None when either is known not to be so."""
    told = []
    inside = setting.metrics.get(IN_DOMAIN)
    if inside is not None and inside.change is not None:
        if not inside.change.rose:
            return None
        told.append(f"in-domain rose by {number(inside.change.value)}")
    cut = setting.metrics.get(TRUNCATED)
    if cut is not None:
        if cut.value > ENDS_ITS_REPLIES:
            return None
        told.append(f"{percent(cut.value)} of its replies are cut off")
    return ", ".join(told) or "whether it learned the format was not measured"


def on_safety(setting: Setting, objective: str) -> Verdict | None:
    """Returns safety-cost: refusal fell while in-domain or the objective rose; with the price in points a point."""
    refusal = setting.metrics.get(SAFETY)
    if refusal is None or refusal.change is None or not refusal.change.fell:
        return None
    for metric in (IN_DOMAIN, objective):
        gained = setting.metrics.get(metric)
        if (
            metric != SAFETY
            and gained is not None
            and gained.change is not None
            and gained.change.turned(gained.sign).rose
        ):
            price = abs(refusal.change.value / gained.change.value)
            sentence = (
                f"refusal of harmful prompts {span(refusal.change)}, from {number(_base(refusal))} to {number(refusal.value)}, "
                f"for {span(gained.change)} on {metric}: {number(price)} points a point"
            )
            evidence = {"refusal": refusal.change.value, "gained": gained.change.value, "on": metric, "price": price}
            q = max(refusal.change.q, gained.change.q)
            return Verdict(Kind.SAFETY_COST, SAFETY, f"{SAFETY}: {sentence}.", 1 - q, evidence)
    return None


def _base(m: SettingMetric) -> float | None:
    return m.base.value if m.base is not None else None


def on_the_front(settings: Sequence[Setting], objective: str, level: Level) -> dict[str, bool]:
    """Returns which whole settings are on the Pareto front of skill and refusal.

    A setting is off the front when another is really better in one of the two and no worse in the other.
    """
    skill = skill_of(objective)
    known = [s for s in settings if s.whole and skill in s.metrics and SAFETY in s.metrics]
    return {s.id: not any(_dominates(o, s, skill, level) for o in known if o is not s) for s in known}


def skill_of(objective: str) -> str:
    """The metric that safety is held against: the objective, or what was trained on where safety is the objective."""
    return objective if objective != SAFETY else IN_DOMAIN


def _dominates(a: Setting, b: Setting, skill: str, level: Level) -> bool:
    better = False
    for metric in (skill, SAFETY):
        ours, theirs = a.metrics[metric], b.metrics[metric]
        d = ours.sign * (ours.value - theirs.value)
        if d < 0 or ours.items_se is None or theirs.items_se is None:
            return False
        se = math.hypot(ours.items_se / ours.runs**0.5, theirs.items_se / theirs.runs**0.5)
        better = better or (d > 0 and two_sided(d, se) <= level.threshold)
    return better
