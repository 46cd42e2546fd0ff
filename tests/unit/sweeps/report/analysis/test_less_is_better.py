"""Sentences about an objective of which less is better say what the numbers do."""

from dataclasses import replace

from sweeps.report import summarize
from sweeps.report.analysis.conclusions.answer import answer
from sweeps.report.next_sweep import next_sweep
from tests.support.report_journals import axes_of, definition, dip, journal, rise, story

SCORE, INSIDE = "transfer/score", "math/in_domain"


def errors(rows, metric):
    """The same journal with errors, 1 - score, for scores."""
    for row in rows:
        metrics = getattr(row, "metrics", None) or {}
        yield replace(row, metrics={**metrics, metric: 1 - metrics[metric]}) if metric in metrics else row


def summary(*stories, metric=SCORE):
    spec = definition(axes_of(stories), objective={"metric": metric, "goal": "minimize"}, constraints=[])
    return summarize(errors(journal(stories, spec=spec), metric))


def test_a_score_that_fell_is_better_and_not_below():
    sentences = " ".join(f.sentence for f in answer(summary(story(curves={SCORE: dip(0.9, 0.8)}))))
    assert "worse than its base's 0.030" in sentences
    assert "the best is still falling" in sentences


def test_other_data_that_ends_lower_is_called_lower():
    up, over = story("up", curves={SCORE: rise(0.02)}), story("over", curves={SCORE: lambda s: -0.3 * min(s, 0.4)})
    verdicts = [v.sentence for s in summary(up, over).settings for v in s.verdicts]
    (limited,) = [text for text in verdicts if "after as many steps" in text]
    assert "up ends -" in limited
    assert "lower after as many steps, and this no longer falls" in limited


def test_an_error_rate_that_rises_is_worse_and_goes_up():
    told = summary(story(curves={SCORE: lambda s: 0.2 * min(s, 0.4) - 0.5 * max(0, s - 0.5)}))
    (verdict,) = (v.sentence for s in told.settings for v in s.verdicts[:1])
    assert "up to 0.26 at step 400" in verdict
    assert "was best at step 160 and rose since" in next_sweep(told).why


def test_the_sweep_counts_an_error_rate_that_fell_as_better_than_the_base():
    told = summary(story(curves={INSIDE: rise(0.5)}), metric=INSIDE)
    assert told.verdict is not None
    assert "1 better than the base" in told.verdict.sentence
    (verdict,) = (v.sentence for s in told.settings for v in s.verdicts if v.metric == INSIDE)
    assert ", better than the base" in verdict


def test_a_larger_model_gains_by_a_positive_number():
    small = story(curves={SCORE: lambda s: -0.3 * min(s, 0.4)})
    large = story(curves={SCORE: rise(0.02)}, config={"model": "tiny-m"})
    verdicts = [v.sentence for s in summary(small, large).settings for v in s.verdicts]
    (limited,) = [text for text in verdicts if "from the same data" in text]
    assert "tiny-m gains +" in limited
    assert limited.endswith("this no longer falls.")


def test_a_group_whose_errors_grew_is_not_said_to_have_ended_no_lower():
    told = summary(story("up", curves={SCORE: rise(0.02)}), story("over", curves={SCORE: lambda s: -0.3 * min(s, 0.4)}))
    (grew,) = [g for g in told.groups if g.axis == "data" and g.level == "over"]
    assert any("ended no worse than the base, beyond chance, in 0 of 1 trial" in text for text in grew.sentences)
