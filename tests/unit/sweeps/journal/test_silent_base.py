from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.journal.silent_base import silence
from sweeps.report.analysis.summarize import summarize
from sweeps.report.console import EventFormatter
from tests.support.rows import make_row

NOTHING = {"math/score": 0.0, "transfer/score": 0.6, "safety/refusal": 0.005}
SE = {"math/score": 0.004, "transfer/score": 0.02, "safety/refusal": 0.007}
N = dict.fromkeys(NOTHING, 200)


def base_row(metrics):
    return make_row("report", "s-00000000", "base-mine", 0, 0, metrics=metrics, se=SE, n=N, suite="mini@1")


def test_roles_in_which_the_base_scores_nothing_are_named_with_their_items():
    told = silence("mine", NOTHING, SE, N)
    assert "base model mine" in told
    assert "math/score (0.00 on 200 items), safety/refusal (0.01 on 200 items)" in told
    assert "transfer" not in told


def test_a_base_that_scores_in_every_role_is_not_told_of():
    assert silence("mine", {"math/score": 0.02}, {"math/score": 0.01}, {"math/score": 200}) == ""
    assert (
        silence(
            "mine", {"length/mean": 0.0, "safety/over_refusal": 0.0}, {}, {"length/mean": 9, "safety/over_refusal": 9}
        )
        == ""
    )


def test_an_objective_of_one_task_is_looked_at_too():
    told = silence("mine", {"math/own": 0.0}, {}, {"math/own": 50}, "math/own")
    assert "math/own (0.00 on 50 items)" in told


def test_it_is_told_when_the_base_has_been_scored_and_not_of_checkpoints():
    lines = EventFormatter(Plan(Sweep(name="s")))
    assert "\nwarning: base model mine scores nothing" in lines.format(base_row(NOTHING))
    assert "warning" not in lines.format(base_row({"math/score": 0.5, "transfer/score": 0.6, "safety/refusal": 0.9}))
    later = make_row("report", "s-00000000", "t-1", 1, 5, metrics=NOTHING, se=SE, n=N, suite="mini@1")
    assert "warning" not in lines.format(later)


def test_the_report_says_it_among_what_limits_the_numbers():
    rows = [base_row(NOTHING), make_row("trial", "s-00000000", "t-1", budget=10, extra={"config": {"model": "mine"}})]
    assert any("base model mine scores nothing" in note for note in summarize(rows).notes)
