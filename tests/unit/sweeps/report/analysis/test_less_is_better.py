"""Sentences about an objective of which less is better say what the numbers do."""

from dataclasses import replace

from sweeps.report import summarize
from sweeps.report.analysis.conclusions.answer import answer
from tests.support.report_journals import axes_of, definition, dip, journal, rise, story

SCORE = "transfer/score"


def errors(rows):
    """The same journal with errors, 1 - score, for scores."""
    for row in rows:
        metrics = getattr(row, "metrics", None) or {}
        yield replace(row, metrics={**metrics, SCORE: 1 - metrics[SCORE]}) if SCORE in metrics else row


def summary(*stories):
    spec = definition(axes_of(stories), objective={"metric": SCORE, "goal": "minimize"}, constraints=[])
    return summarize(errors(journal(stories, spec=spec)))


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
