"""Rows in, numbers for Prometheus out: right, bounded, and gone when a trial is over."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

from cluster.observe.exporter import Exporter
from cluster.observe.metrics import FAMILIES, MOST_METRICS, MOST_TRIALS, Sample, SweepMetrics
from sweeps import Sweep
from sweeps.journal.rows import Row
from sweeps.report import summarize
from tests.support.rows import make_row

SWEEP = Sweep(name="s", space={"replay": {"grid": [0.0, 0.1]}})


def meters(*rows: Row, sweep: Sweep = SWEEP) -> SweepMetrics:
    made = SweepMetrics(sweep)
    for row in rows:
        made.apply(row)
    return made


def value(made: SweepMetrics, name: str, **labels: str) -> float | None:
    found = [s.value for s in made.samples() if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) <= 1
    return found[0] if found else None


def trial(name: str, budget: int = 100, **extra: object) -> tuple[Row, Row]:
    extra = {"number": 0, **extra}
    return (
        make_row("trial", SWEEP.id, name, budget=budget, config={"model": "m"}, extra=extra),
        make_row("attempt", SWEEP.id, name, 1, 0),
    )


def report(name: str, step: int, metrics: dict[str, float], attempt: int = 1, **cost: float) -> Row:
    return make_row("report", SWEEP.id, name, attempt, step, metrics=metrics, cost=cost)


def end(name: str, status: str) -> Row:
    return make_row("end", SWEEP.id, name, 1, 1, extra={"of": "scoring", "status": status})


def test_a_trial_is_counted_in_one_state_at_a_time():
    made = meters(*trial("t-1"), *trial("t-2"), make_row("trial", SWEEP.id, "t-3", budget=9), end("t-2", "pruned"))
    states = {s.labels["state"]: s.value for s in made.samples() if s.name == "dipsweep_trials"}
    assert {k: v for k, v in states.items() if v} == {"running": 1, "pruned": 1, "waiting": 1}
    made.apply(make_row("end", SWEEP.id, "t-1", 1, 100, extra={"of": "training", "status": "completed"}))
    assert value(made, "dipsweep_trials", state="scoring") == 1


def test_cost_is_cumulative_in_an_attempt_and_added_up_over_attempts():
    made = meters(*trial("t-1"), report("t-1", 10, {}, gpu_s=1800.0), report("t-1", 20, {}, gpu_s=3600.0))
    assert value(made, "dipsweep_gpu_hours", part="training") == 1.0
    made.apply(make_row("attempt", SWEEP.id, "t-1", 2, 20))
    made.apply(report("t-1", 30, {}, attempt=2, gpu_s=1800.0))
    made.apply(report("t-1", 21, {}, attempt=1, gpu_s=9999.0))  # an overtaken attempt's
    assert value(made, "dipsweep_gpu_hours", part="training") == 1.5
    made.apply(make_row("eval", SWEEP.id, "base-tiny-s", cost={"gpu_s": 36.0}))
    assert value(made, "dipsweep_gpu_hours", part="scoring") == 0.01


def test_what_a_pruned_trial_did_not_run_is_saved_at_its_own_pace_and_a_branch_counts_from_its_fork():
    made = meters(*trial("t-1"), report("t-1", 25, {}, gpu_s=3600.0), end("t-1", "pruned"))
    assert value(made, "dipsweep_saved_steps") == 75
    assert value(made, "dipsweep_saved_gpu_hours") == 3.0
    branch = meters(*trial("t-2", fork_step=50), report("t-2", 75, {}, gpu_s=3600.0), end("t-2", "pruned"))
    assert value(branch, "dipsweep_saved_gpu_hours") == 1.0
    done = meters(*trial("t-3"), report("t-3", 100, {}, gpu_s=3600.0), end("t-3", "completed"))
    assert value(done, "dipsweep_saved_steps") == 0


def complete(name: str, **scores: float) -> tuple[Row, ...]:
    """A trial from its first row to its last, scored once."""
    return (*trial(name), report(name, 100, {f"{role}/score": v for role, v in scores.items()}), end(name, "completed"))


def test_the_best_is_a_completed_trials_last_score_and_the_line_of_progress_says_it():
    scores = report("t-1", 50, {"transfer/score": 0.9}), report("t-1", 100, {"transfer/score": 0.4})
    made = meters(*trial("t-1"), *scores, report("t-1", 25, {"transfer/score": 0.8}))  # the last one came late
    assert value(made, "dipsweep_best") is None
    assert made.progress() == "0 of 2 trials ended"
    made.apply(end("t-1", "completed"))
    assert value(made, "dipsweep_best") == 0.4
    for row in (*trial("t-2"), report("t-2", 1, {"transfer/score": 0.7}), end("t-2", "pruned")):
        made.apply(row)
    assert made.progress() == "2 of 2 trials ended, best transfer/score 0.400"


def test_the_best_follows_the_goal():
    least = Sweep(name="s", objective={"metric": "general/score", "goal": "minimize"})
    made = meters(
        *complete("t-1", general=2.0), *complete("t-2", general=1.0), *complete("t-3", general=3.0), sweep=least
    )
    assert value(made, "dipsweep_best") == 1.0


def test_a_trial_that_breaks_a_constraint_is_not_the_best_and_without_another_there_is_none():
    sweep = Sweep(name="s", constraints=[{"metric": "general/score", "at_least": 0.5}])
    made = meters(*complete("t-1", transfer=0.9, general=0.4), *complete("t-2", transfer=0.8), sweep=sweep)
    assert value(made, "dipsweep_best") is None
    assert value(made, "dipsweep_objective", metric="transfer/score") == 1  # what panels find its scores by
    assert "best" not in made.progress()
    for row in complete("t-3", transfer=0.3, general=0.6):
        made.apply(row)
    assert value(made, "dipsweep_best") == 0.3


def test_a_constraint_against_the_base_is_judged_when_the_bases_score_is_in():
    sweep = Sweep(name="s", constraints=[{"metric": "general/score", "relative_to_base": -0.1}])
    made = meters(*complete("t-1", transfer=0.9, general=0.4), *complete("t-2", transfer=0.8, general=0.5), sweep=sweep)
    assert value(made, "dipsweep_best") is None
    made.apply(make_row("report", SWEEP.id, "base-m", 0, 0, metrics={"general/score": 0.55}))
    assert value(made, "dipsweep_best") == 0.8


def test_the_best_is_the_reports_best():
    sweep = Sweep(name="s", constraints=[{"metric": "general/score", "relative_to_base": -0.1}])
    draw = random.Random(1)
    rows = [make_row("sweep", sweep.id, extra={"spec": sweep.to_json()})]
    rows += [make_row("report", SWEEP.id, "base-m", 0, 0, metrics={"general/score": 0.55})]
    for i in range(40):
        rows += [
            replace(row, config={"model": "m", "lr": i}) if row.config else row  # every trial is a setting of its own
            for row in complete(f"t-{i}", transfer=draw.random(), general=draw.random())
        ]
        summary = summarize(rows)
        best = summary.trial(summary.best[0]).objective if summary.best else None
        assert value(meters(*rows, sweep=sweep), "dipsweep_best") == (best.value if best else None)


def test_what_people_add_counts_as_planned():
    made = meters(
        *complete("t-1"), *complete("t-2"), *trial("t-3"), make_row("trial", SWEEP.id, "t-4", extra={"by": "ana"})
    )
    assert value(made, "dipsweep_planned_trials") == 4  # never fewer than there are
    made = meters(*complete("t-1"), make_row("trial", SWEEP.id, "t-4", budget=100, extra={"by": "ana"}))
    assert value(made, "dipsweep_planned_trials") == 3
    assert made.progress() == "1 of 3 trials ended"


def test_a_pace_is_shown_only_while_the_trial_trains():
    perf = {"perf/mfu": 0.3, "perf/tokens_per_s": 9.0}
    waits = make_row("control", SWEEP.id, "t-1", 1, extra={"action": "yield"})
    lost = make_row("control", SWEEP.id, "t-1", 1, extra={"action": "retry"})
    paused = make_row("verdict", SWEEP.id, "t-1", 1, 5, extra={"action": "PAUSE", "phase": "dip"})
    scoring = make_row("end", SWEEP.id, "t-1", 1, 100, extra={"of": "training", "status": "completed"})
    taken_over = make_row("lease", SWEEP.id)
    for over in (waits, lost, paused, scoring, taken_over):
        made = meters(*trial("t-1"), report("t-1", 5, perf))
        assert (value(made, "dipsweep_mfu"), value(made, "dipsweep_tokens_per_s")) == (0.3, 9.0)
        made.apply(over)
        assert value(made, "dipsweep_trials", state="running") == 0
        assert (value(made, "dipsweep_mfu"), value(made, "dipsweep_tokens_per_s")) == (None, None)
    made = meters(*trial("t-1"), report("t-1", 5, perf), make_row("attempt", SWEEP.id, "t-1", 2, 5))
    made.apply(report("t-1", 5, perf, attempt=1))  # an overtaken attempt's
    assert value(made, "dipsweep_mfu") is None


def test_what_a_new_attempt_trains_again_has_no_score_until_it_is_scored_again():
    made = meters(
        *trial("t-1"), report("t-1", 50, {"transfer/score": 0.9}), make_row("attempt", SWEEP.id, "t-1", 2, 25)
    )
    assert value(made, "dipsweep_score") is None
    made.apply(report("t-1", 50, {"transfer/score": 0.4}, attempt=2))
    assert value(made, "dipsweep_score") == 0.4


def test_the_number_of_series_is_bounded_however_many_trials_and_metrics_there_are():
    many = {f"math/task_{i:03d}": 0.5 for i in range(100)} | {"transfer/score": 0.5}
    made = SweepMetrics(SWEEP)
    for i in range(2000):
        for row in (*trial(f"t-{i}"), report(f"t-{i}", 1, many)):
            made.apply(row)
        if i % 2:
            made.apply(end(f"t-{i}", "completed"))
    samples = list(made.samples())
    assert len({s.labels["trial"] for s in samples if "trial" in s.labels}) == MOST_TRIALS
    per_trial = Counter(s.labels["trial"] for s in samples if s.name == "dipsweep_score")
    assert set(per_trial.values()) == {MOST_METRICS}
    assert any(s.labels.get("metric") == "transfer/score" for s in samples)
    assert len(made.open) == 1000  # what has ended takes no memory


def test_an_ended_trial_has_no_series_of_its_own():
    made = meters(*trial("t-1"), report("t-1", 5, {"transfer/score": 0.4, "perf/mfu": 0.3}), end("t-1", "completed"))
    assert [s for s in made.samples() if "trial" in s.labels] == []


def test_every_sample_belongs_to_a_family_and_carries_exactly_its_labels():
    verdict = make_row("verdict", SWEEP.id, "t-1", 1, 5, extra={"action": "CONTINUE", "phase": "dip"})
    running = report("t-1", 5, {"transfer/score": 0.4, "perf/mfu": 0.3, "perf/tokens_per_s": 9.0})
    made = meters(*complete("t-0", transfer=0.3), *trial("t-1"), running, verdict)
    samples: list[Sample] = list(made.samples({"trials": 1}))
    assert {s.name for s in samples} == set(FAMILIES)
    for s in samples:
        assert tuple(s.labels) == ("sweep", *FAMILIES[s.name].labels)
        assert re.fullmatch(r"[a-z_]+", s.name)


class Recorded:
    """A metric that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.told.append(value)

    inc = set


def test_a_counter_is_handed_only_what_is_new(monkeypatch):
    made: dict[str, Recorded] = {}
    exporter = Exporter(SweepMetrics(SWEEP))
    monkeypatch.setattr(exporter, "_make", lambda name: made.setdefault(name, Recorded()))
    verdict = make_row("verdict", SWEEP.id, "t-1", 1, 5, extra={"action": "CONTINUE", "phase": "dip"})
    for row in (*trial("t-1"), verdict, verdict):
        exporter.take(row)
    exporter.push()
    exporter.push()
    exporter.take(verdict)
    exporter.push()
    assert made["dipsweep_verdicts"].told == [2, 1]
    assert made["dipsweep_planned_trials"].told == [2, 2, 2]
