"""Rows in, numbers for Prometheus out: right, bounded, and gone when a trial is over."""

from __future__ import annotations

import re
from collections import Counter

from cluster.ops.exporter import Exporter
from cluster.ops.metrics import FAMILIES, MOST_METRICS, MOST_TRIALS, Meters, Sample
from sweeps import Sweep
from sweeps.records import Row

SWEEP = Sweep(name="s")


def meters(*rows: Row, total: int = 2) -> Meters:
    made = Meters(SWEEP, total)
    for row in rows:
        made.take(row)
    return made


def value(made: Meters, name: str, **labels: str) -> float | None:
    found = [s.value for s in made.samples() if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) <= 1
    return found[0] if found else None


def trial(name: str, budget: int = 100, **extra: object) -> tuple[Row, Row]:
    return Row("trial", SWEEP.id, name, budget=budget, extra=extra), Row("attempt", SWEEP.id, name, 1, 0)


def report(name: str, step: int, metrics: dict[str, float], attempt: int = 1, **cost: float) -> Row:
    return Row("report", SWEEP.id, name, attempt, step, metrics=metrics, cost=cost)


def end(name: str, status: str) -> Row:
    return Row("end", SWEEP.id, name, 1, 1, extra={"of": "scoring", "status": status})


def test_a_trial_is_counted_in_one_state_at_a_time():
    made = meters(*trial("t-1"), *trial("t-2"), Row("trial", SWEEP.id, "t-3", budget=9), end("t-2", "pruned"))
    states = {s.labels["state"]: s.value for s in made.samples() if s.name == "dipsweep_trials"}
    assert {k: v for k, v in states.items() if v} == {"running": 1, "pruned": 1, "waiting": 1}
    made.take(Row("end", SWEEP.id, "t-1", 1, 100, extra={"of": "training", "status": "completed"}))
    assert value(made, "dipsweep_trials", state="scoring") == 1


def test_cost_is_cumulative_in_an_attempt_and_added_up_over_attempts():
    made = meters(*trial("t-1"), report("t-1", 10, {}, gpu_s=1800.0), report("t-1", 20, {}, gpu_s=3600.0))
    assert value(made, "dipsweep_gpu_hours", part="training") == 1.0
    made.take(Row("attempt", SWEEP.id, "t-1", 2, 20))
    made.take(report("t-1", 30, {}, attempt=2, gpu_s=1800.0))
    made.take(report("t-1", 21, {}, attempt=1, gpu_s=9999.0))  # an overtaken attempt's
    assert value(made, "dipsweep_gpu_hours", part="training") == 1.5
    made.take(Row("eval", SWEEP.id, "base-tiny-s", cost={"gpu_s": 36.0}))
    assert value(made, "dipsweep_gpu_hours", part="scoring") == 0.01


def test_what_a_pruned_trial_did_not_run_is_saved_at_its_own_pace_and_a_branch_counts_from_its_fork():
    made = meters(*trial("t-1"), report("t-1", 25, {}, gpu_s=3600.0), end("t-1", "pruned"))
    assert value(made, "dipsweep_saved_steps") == 75
    assert value(made, "dipsweep_saved_gpu_hours") == 3.0
    branch = meters(*trial("t-2", fork_step=50), report("t-2", 75, {}, gpu_s=3600.0), end("t-2", "pruned"))
    assert value(branch, "dipsweep_saved_gpu_hours") == 1.0
    done = meters(*trial("t-3"), report("t-3", 100, {}, gpu_s=3600.0), end("t-3", "completed"))
    assert value(done, "dipsweep_saved_steps") == 0


def test_the_best_follows_the_goal_and_the_line_of_progress_says_it():
    made = meters(*trial("t-1"), report("t-1", 1, {"transfer/score": 0.4}), report("t-1", 2, {"transfer/score": 0.2}))
    assert value(made, "dipsweep_best") == 0.4
    made.take(end("t-1", "completed"))
    assert made.progress() == "1 of 2 trials ended, best transfer/score 0.400"
    least = Meters(Sweep(name="s", objective={"metric": "train/loss", "goal": "minimize"}), 1)
    for row in (*trial("t-1"), report("t-1", 1, {"train/loss": 2.0}), report("t-1", 2, {"train/loss": 1.0})):
        least.take(row)
    assert value(least, "dipsweep_best") == 1.0


def test_the_number_of_series_is_bounded_however_many_trials_and_metrics_there_are():
    many = {f"math/task_{i:03d}": 0.5 for i in range(100)} | {"transfer/score": 0.5}
    made = Meters(SWEEP, 5000)
    for i in range(2000):
        for row in (*trial(f"t-{i}"), report(f"t-{i}", 1, many)):
            made.take(row)
        if i % 2:
            made.take(end(f"t-{i}", "completed"))
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
    verdict = Row("verdict", SWEEP.id, "t-1", 1, 5, extra={"action": "CONTINUE", "phase": "dip"})
    made = meters(
        *trial("t-1"), report("t-1", 5, {"transfer/score": 0.4, "perf/mfu": 0.3, "perf/tokens_per_s": 9.0}), verdict
    )
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
    exporter = Exporter(Meters(SWEEP, 1))
    monkeypatch.setattr(exporter, "_make", lambda name: made.setdefault(name, Recorded()))
    verdict = Row("verdict", SWEEP.id, "t-1", 1, 5, extra={"action": "CONTINUE", "phase": "dip"})
    for row in (*trial("t-1"), verdict, verdict):
        exporter.take(row)
    exporter.push()
    exporter.push()
    exporter.take(verdict)
    exporter.push()
    assert made["dipsweep_verdicts"].told == [2, 1]
    assert made["dipsweep_planned_trials"].told == [1, 1, 1]
