"""Rules on curves that nobody made for them: winners lost against compute saved, per source, beside the best rival.

    python -m benchmarks.stopping.sources benchmarks/stopping/recorded.jsonl --metric transfer/score --draws 8
    python -m benchmarks.stopping.sources /data/algoperf.jsonl /data/pythia.jsonl --size 14

Every sweep of a file is judged by itself: `draws` sub-sweeps of `size` trials each (0: all of them) in an order of their own, 8
machines, top 3, ties kept together. The rival is the lower hull over `RIVALS`, at the rule's own saving: the least loss that
a mix of settings chosen in hindsight has there. Errors are over sweeps (`draws` of one sweep share their fate). Where
extrapolated curves (`lc_prior.py`) make the best rival better, what it loses without them stands in brackets.

Rule `knowing` knows the ends and keeps strict's promise: it stops what will lose at the first report that is outside the patience
with a dip. What it saves is the most that strict can save.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.stopping.lc_prior import SETTINGS, LcPrior, rule_of
from sweeps.executors.simulated import Outcome, Recording, simulate
from sweeps.journal.history import History
from sweeps.journal.rows import Row, SweepRow
from sweeps.report.replay import finals, histories_of, lost_winners, read_rows, recorded, winners
from sweeps.stopping.base import Action, Goal, StopRule, Verdict
from sweeps.stopping.dip_aware import MIN_REPORTS, DipAware

RULES = ("dip-aware", "dip-aware:protect=soft")
SHARES = (0.06, 0.12, 0.25, 0.5)
_DOWN = re.compile(r"(?<![a-z])(loss|wer|error|perplexity|ppl)(?![a-z])")  # as a word: "answer" and "power" end in one


class Source(NamedTuple):
    """One recorded sweep under one metric."""

    name: str
    schedule: str
    goal: Goal
    recordings: list[Recording]
    shared: list[Row]
    ends: dict[str, float]


class Fare(NamedTuple):
    """Winners lost and compute saved of one sub-sweep, as shares."""

    lost: float
    saved: float


def sources(rows: Sequence[Row], metric: str = "", top: int = 3) -> list[Source]:
    """Returns every sweep of a journal under `metric`, or else under the one that it scored most often."""
    out = []
    for name, history in histories_of(rows).items():
        goal = Goal(metric or _scored_most(history), top=top)
        goal = replace(goal, maximize=not _DOWN.search(goal.metric))
        recordings, shared = recorded(history, goal.metric)
        ends = finals(history, goal)
        recordings = [r for r in recordings if r.trial in ends]
        if len(recordings) > top:
            out.append(Source(name, _schedule(recordings), goal, recordings, shared, ends))
    return out


def _scored_most(history: History) -> str:
    counts: dict[str, int] = {}
    for curve in history.trials():
        for point in curve.points.values():
            for m in point.metrics:
                if not m.startswith(("train/", "length/", "perf/")):
                    counts[m] = counts.get(m, 0) + 1
    return max(counts, key=lambda m: counts[m])


def _schedule(recordings: Sequence[Recording]) -> str:
    config = recordings[0].start.config
    return str(config.get("lr_scheduler_type", config.get("schedule", "unknown")))


def drawn(source: Source, seed: int, size: int) -> Source:
    """Returns `size` of a source's trials (0: all) in an order of their own."""
    rng = np.random.default_rng([seed, len(source.recordings)])
    order = rng.permutation(len(source.recordings))[: size or None]
    chosen = [source.recordings[i] for i in order]
    return source._replace(recordings=chosen, ends={r.trial: source.ends[r.trial] for r in chosen})


class Knowing(DipAware):
    """Knows the winners, and protects the others' dips as `protect: strict` does."""

    name = "knowing"

    def __init__(self, goal: Goal, won: Sequence[str]) -> None:
        super().__init__(goal)
        self.won = frozenset(won)

    def decide(self, trial: str) -> Verdict:
        forecast = self.ranking.forecaster.trials.get(trial)
        young = forecast is None or forecast.reports < MIN_REPORTS or forecast.phase.protected
        return Verdict(Action.CONTINUE if young or trial in self.won else Action.STOP, "it knows how all will end")


def simulated(source: Source, rule: str, workers: int = 8, earlier: Sequence[Mapping[str, Any]] = ()) -> Outcome:
    """Simulates one sweep under a rule, which begins from what `earlier` sweeps say."""
    if rule == "knowing":
        made: StopRule = Knowing(source.goal, winners(source.ends, source.goal.top))
    else:
        made = rule_of(rule, source.goal)
    if earlier:
        made.observe(SweepRow("", experience={"sweeps": earlier}))
    return simulate(source.recordings, made, workers=workers, shared=source.shared)


def run(source: Source, rule: str, workers: int = 8, earlier: Sequence[Mapping[str, Any]] = ()) -> Fare:
    """Says how one sweep fares under a rule; as `simulated`."""
    outcome = simulated(source, rule, workers, earlier)
    done = {t for t in source.ends if outcome.completed(t)}
    lost = lost_winners(source.ends, source.goal.top, done)
    return Fare(len(lost) / min(source.goal.top, len(source.ends)), outcome.saved)


class Spent(NamedTuple):
    """Where the compute of a sweep goes, in shares of running everything: on winners, on others that ran to their end, on those
    that were given up, of what these would have cost, and the part of it that only strict's promise took."""

    winners: float
    completed: float
    given_up: float
    of: float
    promised: float


def spent(source: Source, rule: str) -> Spent:
    """Returns where the compute of one sweep goes under a rule."""
    outcome, costs = simulated(source, rule), {r.trial: r.cost for r in source.recordings}
    others = [t for t in source.ends if t not in winners(source.ends, source.goal.top)]
    gone = [t for t in others if not outcome.completed(t)]
    runs, full = outcome.runs, outcome.full
    return Spent(
        sum(r.spent for t, r in runs.items() if t not in others) / full,
        sum(runs[t].spent for t in others if t not in gone) / full,
        sum(runs[t].spent for t in gone) / full,
        sum(costs[t] for t in gone) / full,
        sum(runs[t].held for t in gone) / full,
    )


def rivals(source: Source) -> list[str]:
    """Returns 12 settings of ASHA, 4 of the median rule, 6 of extrapolated curves, and more, with grace periods in shares of the
    longest budget."""
    longest = max(r.reports[-1].step or 1 for r in source.recordings)
    grace = [max(1, round(s * longest)) for s in SHARES]
    return [
        *(f"asha:grace={g},reduction={r}" for g in grace for r in (2, 3, 4)),
        *(f"median:grace={g}" for g in grace),
        *(f"hyperband:grace={g}" for g in grace[:2]),
        *(f"patient:patience={p}" for p in (2, 4, 8)),
        *SETTINGS,
    ]


def hull_at(points: Sequence[tuple[float, float]], saved: float) -> float:
    """Returns the least loss at `saved` on the lower convex hull of (saved, lost) points and of running everything."""
    best = 1.0
    saved = max(saved, 0.0)
    known = [(0.0, 0.0), *points]
    for a_saved, a_lost in known:
        for b_saved, b_lost in known:
            if a_saved <= saved <= b_saved:
                share = (saved - a_saved) / (b_saved - a_saved) if b_saved > a_saved else 0.0
                best = min(best, a_lost + share * (b_lost - a_lost))
    return best


def best_rival(fares: Mapping[str, Fare], saved: float) -> float | None:
    """Returns what the best mix of rivals loses at `saved`; None where there are none."""
    return hull_at([(f.saved, f.lost) for f in fares.values()], saved) if fares else None


def measure(source: Source, rule: str, draws: int, size: int) -> list[Fare]:
    return [run(drawn(source, seed, size), rule) for seed in range(draws)]


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves", nargs="+")
    p.add_argument("--metric", default="")
    p.add_argument("--rules", nargs="+", default=list(RULES))
    p.add_argument("--draws", type=int, default=8)
    p.add_argument("--size", type=int, default=0, help="trials of a sub-sweep; 0 takes all")
    p.add_argument("--no-rivals", action="store_true")
    p.add_argument("--spent", action="store_true", help="say where the compute of the sweeps goes, and nothing else")
    p.add_argument("--json", default="")
    a = p.parse_args(argv)
    if a.spent:
        every = [s for path in a.curves for s in sources(read_rows(path), a.metric)]
        for rule in a.rules:
            mean = Spent(*np.mean([spent(drawn(s, 0, a.size), rule) for s in every], axis=0))
            print(
                f"{rule}, {len(every)} sweeps: winners {mean.winners:.1%}, others that ran to their end {mean.completed:.1%}, "
                f"given up {mean.given_up:.1%} of {mean.of:.1%}, of that for strict's promise {mean.promised:.1%}"
            )
        return
    table = []
    for path in a.curves:
        for source in sources(read_rows(path), a.metric):
            names = [] if a.no_rivals else rivals(source)
            hull = {r: _mean(measure(source, r, a.draws, a.size)) for r in names}
            for rule in a.rules:
                lost, saved = _mean(measure(source, rule, a.draws, a.size))
                table.append(
                    {
                        "source": source.name,
                        "schedule": source.schedule,
                        "metric": source.goal.metric,
                        "trials": len(source.recordings),
                        "rule": rule,
                        "lost": lost,
                        "saved": saved,
                        "rival": best_rival(hull, saved),
                        "rival_without_lc_prior": best_rival(
                            {r: fare for r, fare in hull.items() if not r.startswith(LcPrior.name)}, saved
                        ),
                        "rivals": hull,
                    }
                )
                print(_line(table[-1]), flush=True)
    if not table:
        p.error(f"no sweep with more than 3 trials scored to their end in {', '.join(a.curves)}")
    for rule in a.rules:
        print(_summary(rule, [r for r in table if r["rule"] == rule]))
    if a.json:
        with open(a.json, "w") as out:
            json.dump(table, out, indent=1)


def _mean(fares: Sequence[Fare]) -> Fare:
    return Fare(*(float(np.mean(v)) for v in zip(*fares, strict=True)))


def _line(row: Mapping[str, Any]) -> str:
    rival, without = row["rival"], row["rival_without_lc_prior"]
    said = "" if rival is None else f"  rival {rival:6.1%}"
    said += f" ({without:.1%} without lc-prior)" if without is not None and without > rival + 5e-4 else ""
    return (
        f"{row['source']:44.44s} {row['schedule']:9s} {row['metric']:24.24s} n={row['trials']:<3d} {row['rule']:24s}"
        f" lost {row['lost']:6.1%} @ {row['saved']:6.1%}{said}"
    )


def _summary(rule: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over sweeps; beside the rivals only where these were run."""
    lost = np.array([r["lost"] for r in rows])
    said = f"{rule}, {len(rows)} sweeps: lost {lost.mean():.1%} @ {np.mean([r['saved'] for r in rows]):.1%}"
    if any(r["rival"] is None for r in rows):
        return said
    rival = np.array([r["rival"] for r in rows])
    error = (lost - rival).std() / max(len(rows) - 1, 1) ** 0.5
    without = np.mean([r["rival_without_lc_prior"] for r in rows])
    return (
        f"{said}, rivals there {rival.mean():.1%} ({without:.1%} without lc-prior), paired difference "
        f"{(lost - rival).mean():+.1%} +- {error:.1%}"
    )


if __name__ == "__main__":
    main()
