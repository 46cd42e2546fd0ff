"""A trial that is worth its best checkpoint: what that is worth, how it is ranked, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from sweeps.report import render_html
from sweeps.report.analysis.best_checkpoint import best_checkpoint
from sweeps.report.analysis.shape import Measured
from sweeps.report.analysis.summarize import summarize
from sweeps.report.html.trial_data import trial_facts
from sweeps.report.markdown import markdown
from sweeps.statistics import PathPoint, best_of_path, pack, wander
from tests.support.report_journals import RECOVERS, Story, axes_of, definition, journal, story

STEPS = [round(800 * 2 ** (-k / 2)) for k in reversed(range(13))]
U = np.array(STEPS) / 800
TRUTHS = {
    "flat": np.full(13, 0.5),
    "dip": 0.5 - 0.2 * np.exp(-(((np.log(U) - math.log(0.1)) / 0.8) ** 2)) + 0.1 * U,
    "past its best": 0.5 + 0.15 * np.minimum(U, 0.4) / 0.4 - 0.1 * np.maximum(U - 0.4, 0),
}
ITEMS, RUNS = 200, 300


def replies(truth, noise) -> list[list[float]]:
    """What each checkpoint answers to the same items, hard ones hard for all: right with the checkpoint's true rate."""
    hard = noise.normal(0, 0.8, ITEMS)
    bars = [NormalDist().inv_cdf(float(p)) for p in truth]
    return [(hard + 0.6 * noise.normal(size=ITEMS) < bar).astype(float).tolist() for bar in bars]


def point(step: int, right: list[float]) -> Measured:
    mean = sum(right) / len(right)
    return Measured(step, mean, math.sqrt(mean * (1 - mean) / len(right)), len(right))


@pytest.mark.parametrize("name", TRUTHS)
def test_held_out_items_say_what_the_best_of_many_noisy_checkpoints_is_worth(name: str):
    noise, truth, raw, errors, held = np.random.default_rng(2), TRUTHS[name], [], [], 0
    for _ in range(RUNS):
        asked = replies(truth, noise)
        points = [point(s, right) for s, right in zip(STEPS, asked, strict=True)]
        outcomes = {s: [right] for s, right in zip(STEPS, asked, strict=True)}
        best = best_checkpoint("m/score", points, outcomes, sign=1.0, wandering=0.0)
        worth = truth[STEPS.index(best.step)]
        raw.append(max(p.value for p in points) - worth)
        errors.append(best.value - worth)
        held += abs(errors[-1]) < 1.96 * best.se
        assert best.of == 13
        assert best.by == "held-out items"
    off = np.std(errors) / math.sqrt(RUNS)
    assert np.mean(raw) > 0.01  # what a reader of the highest score would believe
    assert abs(np.mean(errors)) < 3 * off
    assert abs(np.mean(errors)) < 0.3 * np.mean(raw)
    assert held / RUNS > 0.92


def test_without_items_the_whole_curve_says_it():
    """Scores with errors of their own: a random walk seen with noise, with the wandering of 20 runs alike."""
    noise, raw, errors, held = np.random.default_rng(3), [], [], []
    for _ in range(40):
        truths = [0.5 + np.cumsum(noise.normal(0, 0.02, 13)) for _ in range(20)]
        paths = [
            [PathPoint(s, float(v + noise.normal(0, 0.03)), 0.03) for s, v in zip(STEPS, truth, strict=True)]
            for truth in truths
        ]
        wandering = wander(paths)
        for path, truth in zip(paths, truths, strict=True):
            best = best_of_path(path, wandering)
            worth = truth[STEPS.index(best.step)]
            raw.append(max(p.value for p in path) - worth)
            errors.append(best.value - worth)
            held.append(abs(errors[-1]) < 1.96 * best.se)
    assert np.mean(raw) > 0.02
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(len(errors))
    assert 0.92 < np.mean(held) < 0.98


def test_scores_without_errors_are_not_corrected_and_the_report_says_so():
    points = [Measured(s, v, None, None) for s, v in ((1, 0.2), (2, 0.6), (4, 0.5))]
    best = best_checkpoint("m/score", points, {}, sign=1.0, wandering=0.0)
    assert (best.step, best.value, best.se, best.by) == (2, 0.6, None, "")


def test_less_can_be_better():
    points = [Measured(s, v, 0.01, None) for s, v in ((1, 0.9), (2, 0.3), (4, 0.8))]
    best = best_checkpoint("m/loss", points, {}, sign=-1.0, wandering=1.0)
    assert best.step == 2
    assert 0.3 < best.value < 0.35


# --- the report -------------------------------------------------------------------------------------------------------

EARLY = {**RECOVERS, "transfer/score": lambda share: -0.5 * share}  # best at its first checkpoint, worse ever after
LATE = {**RECOVERS, "transfer/score": lambda share: 0.15 * share - 0.25}


def stories() -> list[Story]:
    early = replace(story(replay=0.0, until=0.3, end="pruned", reason="odds"), curves=EARLY)
    return [replace(story(replay=0.1), curves=LATE), early]


def spec(at: str, **more) -> dict:
    goal = {"metric": "transfer/score", "goal": "maximize", "at": at}
    return definition(axes_of(stories()), **{"objective": goal, "constraints": [], **more})


def test_a_pruned_trial_keeps_its_best_checkpoint_where_that_counts():
    late, early = stories()
    ends = summarize(journal(stories(), spec=spec("end")))
    assert [t.rank for t in ends.trials] == [1, None]
    bests = summarize(journal(stories(), spec=spec("best")))
    assert [t.rank for t in bests.trials] == [2, 1]
    assert bests.trial(early.id).picked.step in (5, 10, 20)
    assert bests.trial(late.id).picked.step >= 120
    best = bests.ranked()[0].metrics["transfer/score"]
    assert best.of == 6
    assert best.value == bests.trial(early.id).objective.value
    assert best.value <= max(p.value for p in bests.trial(early.id).curves["transfer/score"])
    assert f"at step {best.step}, the best of 6 checkpoints, is worth" in bests.headline
    assert any("by its whole curve" in note or "on its whole curve" in note for note in bests.notes)
    assert "over-trained" not in {v.kind.value for s in bests.settings for v in s.verdicts}


def test_every_score_of_the_best_checkpoint_is_of_that_checkpoint():
    summary = summarize(journal(stories(), spec=spec("best")))
    for t in summary.trials:
        setting = summary.setting(t.id)
        for metric in ("safety/refusal", "general/score"):
            at = next(p for p in t.curves[metric] if p.step == t.picked.step)
            assert setting.metrics[metric].value == at.value


def test_words_about_a_best_checkpoint_are_not_those_of_an_end():
    summary = summarize(journal(stories(), spec=spec("best")))
    page, text = render_html(summary), markdown(summary)
    assert "At its best checkpoint" in page
    assert "At its end" not in page
    assert "ranked by the mean of their scores at best checkpoints" in page
    assert "transfer/score at its best checkpoint, maximize, top 3" in page
    assert "| base | at its best checkpoint |" in text
    assert "| base | at its end |" in markdown(summarize(journal(stories(), spec=spec("end"))))
    picked = summary.trials[0].picked
    facts = dict(trial_facts(summary.trials[0]))
    chosen = f"step {picked.step}, the best of {picked.of} checkpoints by transfer/score; worth "
    assert facts["Best checkpoint"].startswith(chosen)
    (worse,) = [v for s in summary.settings for v in s.verdicts if v.kind.value in ("worse", "collapsed")]
    assert "transfer/score: below the base even at its best: " in worse.sentence


def test_seeds_with_best_checkpoints_at_several_steps_are_not_said_to_have_one():
    """Of two seeds, one is best at its end and one early."""
    late, _ = stories()
    again = replace(late, curves=EARLY, config={**late.config, "seed": 1})
    summary = summarize(journal([late, again], spec=spec("best")))
    steps = {t.picked.step for t in summary.trials}
    assert len(steps) == 2
    assert len(summary.settings) == 1
    assert "replay 0.1, each seed at its best of 10 checkpoints, is worth" in summary.headline
    (verdict,) = [v for v in summary.settings[0].verdicts if v.metric == "transfer/score"][:1]
    assert "at the best checkpoints of its 2 seeds" in verdict.sentence


def test_the_best_checkpoint_is_one_that_meets_the_constraints():
    """The later checkpoints of the recovering trial are its best and refuse too little."""
    floor = [{"metric": "safety/refusal", "at_least": 0.9, "at_most": None, "relative_to_base": None}]
    free = summarize(journal(stories(), spec=spec("best"))).trials[0]
    bound = summarize(journal(stories(), spec=spec("best", constraints=floor))).trials[0]
    assert next(p for p in free.curves["safety/refusal"] if p.step == free.picked.step).value < 0.9
    assert next(p for p in bound.curves["safety/refusal"] if p.step == bound.picked.step).value >= 0.9
    assert bound.meets


def test_the_report_holds_out_items_where_replies_were_kept():
    rows = journal(stories(), spec=spec("best"))
    noise = np.random.default_rng(0)
    with_items = []
    for row in rows:
        if row.kind == "report" and "transfer/score" in row.metrics:
            right = (noise.random(200) < row.metrics["transfer/score"]).astype(float)
            metrics = {**row.metrics, "transfer/score": float(right.mean())}
            row = replace(
                row, metrics=metrics, items={"transfer/score": pack(right)}, n={**row.n, "transfer/score": 200}
            )
        with_items.append(row)
    summary = summarize(with_items)
    assert {t.picked.by for t in summary.trials} == {"held-out items"}
    shown = summary.to_json()["trials"][0]["picked"]
    assert set(shown) == {"metric", "step", "value", "se", "n", "of", "by", "trained_by"}
    (against_base,) = [p for p in summary.trials[0].paired if p.metric == "transfer/score"]
    assert against_base.step == summary.trials[0].picked.step
    assert against_base.difference == pytest.approx(
        summary.trials[0].picked.value - summary.bases["tiny-s"]["transfer/score"].value
    )


# --- one checkpoint, several trials -----------------------------------------------------------------------------------


def on_one_trunk(curve, seeds=(0,)) -> list[Story]:
    """Budgets 400, 200 and 100 on one trunk, whose transfer follows `curve` over the steps, and another run beside them."""
    found = []
    for seed in seeds:
        trunk = replace(story(replay=0.0, seed=seed), curves={**RECOVERS, "transfer/score": curve})
        forks = ((200, 160), (100, 80))
        found += [trunk, *(replace(trunk, config={**trunk.config, "steps": steps}, parent=trunk.id, fork_step=fork)
                           for steps, fork in forks)]  # fmt: skip
    return [*found, replace(story(replay=0.1), curves=LATE)]


def test_a_trunk_and_its_branches_that_are_best_at_one_checkpoint_are_ranked_once():
    stories = on_one_trunk(EARLY["transfer/score"])
    trunk, middle, short, other = (s.id for s in stories)
    summary = summarize(journal(stories, spec=spec("best")))
    assert {t.picked.step for t in summary.trials if t.id != other} == {summary.trial(trunk).picked.step}
    assert [(t.rank, t.shares) for t in summary.trials] == [(1, ""), (None, trunk), (None, trunk), (2, "")]
    assert {t.picked.trained_by for t in summary.trials} == {trunk, other}
    assert summary.best == (trunk, other)
    assert [s.id for s in summary.ranked()] == [trunk, other]
    assert [summary.setting(id).shares for id in (middle, short)] == [trunk, trunk]
    assert summary.trial(short).objective.value == summary.setting(short).metrics["transfer/score"].value  # as measured
    told = [note for note in summary.notes if "one finding, which is ranked once" in note]
    assert len(told) == 2
    assert summary.setting(trunk).label in told[0]
    page = render_html(summary)
    assert "same checkpoint" in page
    assert f"same checkpoint as {trunk}" in page
    facts = dict(trial_facts(summary.trial(short)))
    assert facts["Best checkpoint"].endswith(f"; trained by {trunk}; ranked once, with {trunk}")


def test_branches_whose_trunk_is_best_elsewhere_share_a_place_as_the_shortest_of_them():
    stories = on_one_trunk(lambda share: 0.02 if share == 1 else -0.5 * share)
    trunk, middle, short, other = (s.id for s in stories)
    summary = summarize(journal(stories, spec=spec("best")))
    assert summary.trial(trunk).picked.step == 400
    assert [t.shares for t in summary.trials] == ["", short, "", ""]
    assert summary.trial(middle).picked.trained_by == trunk
    assert sorted(s.id for s in summary.ranked()) == sorted((trunk, short, other))


def test_settings_share_a_place_where_all_of_their_seeds_do():
    summary = summarize(journal(on_one_trunk(EARLY["transfer/score"], seeds=(0, 1)), spec=spec("best")))
    first, second = (t.id for t in summary.trials if t.config["steps"] == 400 and t.config["replay"] == 0.0)
    shares = {t.shares for t in summary.trials if t.config["steps"] < 400}
    assert shares == {first, second}
    assert len(summary.ranked()) == 2


def test_by_their_ends_a_trunk_and_its_branches_have_a_place_each():
    summary = summarize(journal(on_one_trunk(EARLY["transfer/score"]), spec=spec("end")))
    assert sorted(t.rank for t in summary.trials) == [1, 2, 3, 4]
