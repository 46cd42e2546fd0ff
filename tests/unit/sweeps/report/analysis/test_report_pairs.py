"""Comparisons on the same items in the report: against the base, and between the best trials."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeps.journal.rows import Row, base_trial
from sweeps.report import summarize
from sweeps.report.html.page import render_html
from sweeps.statistics import pack
from tests.support.rows import make_row

SUITE = "mini@1"


def scores(trial: str, step: int, right: int, lost: int = 0, suite: str = SUITE, samples: int = 1) -> Row:
    """100 items of each of two transfer tasks: `right` of them right, of which the first `lost` are not."""
    bits = [lost <= i < right for i in range(100) for _ in range(samples)]
    share = sum(bits) / len(bits)
    tasks = {f"transfer/{name}": share for name in "ab"}
    passes = {f"{task}@{samples}": share for task in tasks} if samples > 1 else {}
    metrics = {"transfer/score": share, **tasks, **passes}
    return make_row(
        "report", "s-1", trial, 1, step, 8, metrics, dict.fromkeys(metrics, 0.05), dict.fromkeys(metrics, 100),
        suite=suite, extra={"items": {t: pack(bits) for t in tasks}, "parts": {"transfer/score": list(tasks)}},
    )  # fmt: skip


def journal(*more: Row) -> list[Row]:
    """Two completed trials: the first loses 12 of the base's 80 right items of each task, the second loses one."""
    rows = [make_row("sweep", "s-1", extra={"name": "s", "spec": {}, "trials": 2}), scores(base_trial("tiny-s"), 0, 80)]
    for trial, lr, lost in (("t-a", 1e-3, 12), ("t-b", 3e-3, 1)):
        rows.append(
            make_row(
                "trial", "s-1", trial, budget=8, config={"model": "tiny-s", "learning_rate": lr}, extra={"number": 0}
            )
        )
        rows += [scores(trial, step, 80, lost) for step in (2, 4, 8)]
        rows.append(make_row("end", "s-1", trial, 1, 8, extra={"of": "scoring", "status": "completed"}))
    return [row.at(i) for i, row in enumerate([*rows, *more])]


def test_a_trial_is_compared_with_its_base_item_by_item():
    summary = summarize(journal())
    (loser,), (same,) = (summary.trial(t).paired for t in ("t-a", "t-b"))
    assert (loser.difference, loser.lost, loser.gained, loser.items) == (-0.12, 24, 0, 200)
    assert loser.different
    assert not same.different
    assert loser.looks == same.looks == summary.comparisons, "one family for the whole sweep"
    assert loser.sentence.startswith(
        "transfer/score -12.0 points against its base (paired s.e. 2.4, 200 items; smallest"
    )
    change = summary.setting("t-a").metrics["transfer/score"].change
    assert (change.value, change.real) == (pytest.approx(-0.12), True), "the setting's change is the same comparison"


def test_the_best_trials_are_compared_with_each_other():
    summary = summarize(journal())
    assert summary.best == ("t-b", "t-a")
    (rival,) = summary.rivals
    assert (rival.against, rival.difference, rival.different) == ("t-a", 0.11, True)
    assert f"+11.0 points against {summary.trial('t-a').label}" in rival.sentence


def test_the_page_says_what_was_gained_and_lost_and_what_could_be_seen():
    page = render_html(summarize(journal()))
    assert "Item by item against the base" in page
    assert "-12.0 ± 2.4" in page
    assert "24 lost, 0 gained of 200" in page
    assert "different; could see" in page
    assert "not told apart" in page


def test_several_replies_an_item_count_as_one_item():
    rows = [scores(row.trial, row.step, 80, 0, samples=3) if row.kind == "report" else row for row in journal()]
    (pair,) = summarize(rows).trial("t-a").paired
    assert (pair.items, pair.difference) == (200, 0.0)


def test_without_outcomes_of_the_same_items_nothing_is_compared():
    bare = [row if row.kind != "report" else replace(row, items={}, parts=None) for row in journal()]
    assert summarize(bare).trial("t-a").paired == ()
    assert "Item by item" not in render_html(summarize(bare))
    other = [scores(r.trial, 0, 80, suite="mini@2") if r.step == 0 else r for r in journal()]
    assert summarize(other).trial("t-a").paired == ()


def test_checkpoints_that_were_skipped_are_told_of_and_no_longer_waited_for():
    skipped = [
        make_row("commit", "s-1", "t-a", 1, 3, checkpoint="sha256:3", extra={"path": "x"}),
        make_row(
            "eval", "s-1", "t-a", 1, 3, extra={"status": "skipped", "reason": "9 checkpoints wait", "given_up": True}
        ),
    ]
    summary = summarize(journal(*skipped))
    assert summary.trial("t-a").evals_skipped == (3,)
    assert any(note.startswith("1 checkpoint between others left unscored") for note in summary.notes)
    assert not any("failed" in note or "not scored yet" in note for note in summary.notes)
