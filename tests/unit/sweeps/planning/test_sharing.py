"""What budgets share, why they share no more, and what one line would change: said only where it is so."""

import pytest

from sweeps import Sweep, grid, loguniform, randint
from sweeps.config.plan import Plan
from sweeps.planning.sharing import sharing

BUDGETS = {"steps": grid(100, 200, 400)}


def shared(space=BUDGETS, search=None, **trainer):
    fields = {} if search is None else {"search": search}
    return sharing(Plan(Sweep(name="s", space=space, trainer={"warmup_steps": 10, **trainer}, **fields)))


def test_budgets_on_one_trunk_say_what_that_saves():
    found = shared(lr_scheduler_type="wsd", decay=0.2)
    assert (found.run, found.alone, found.change) == (458, 700, {})
    assert str(found) == "458 optimizer steps (700 without shared trunks)"


@pytest.mark.parametrize(
    ("trainer", "change"),
    [
        ({"lr_scheduler_type": "cosine"}, {"trainer.lr_scheduler_type": "wsd"}),
        ({"lr_scheduler_type": "linear"}, {"trainer.lr_scheduler_type": "wsd"}),
        ({"lr_scheduler_type": "wsd", "warmup_steps": 0.05}, {"trainer.warmup_steps": 5}),
        (
            {"lr_scheduler_type": "cosine", "warmup_steps": 0.05},
            {"trainer.lr_scheduler_type": "wsd", "trainer.warmup_steps": 5},
        ),
    ],
)
def test_what_keeps_budgets_apart_is_named_with_the_lines_that_would_join_them(trainer, change):
    found = shared(**trainer)
    assert found.change == change
    assert (found.run, found.alone) == (700, 700)
    joined = shared(**{**trainer, **{name.partition(".")[2]: value for name, value in change.items()}})
    assert joined.run == found.changed < 700  # the promise is kept
    assert f"{1 - found.changed / 700:.0%} fewer" in str(found)


def test_a_sampled_sweep_is_told_the_same():
    space = {**BUDGETS, "learning_rate": loguniform(1e-4, 1e-3)}
    search = {"algorithm": "random", "trials_per_cell": 2}
    apart = shared(space, search, lr_scheduler_type="cosine")
    assert apart.change == {"trainer.lr_scheduler_type": "wsd"}
    assert apart.changed == 2 * 458


def test_budgets_that_the_search_samples_have_no_line_that_joins_them():
    space = {"steps": randint(100, 400)}
    found = shared(space, {"algorithm": "random", "trials": 3}, lr_scheduler_type="wsd")
    assert found.why == "the search samples each trial's own budget"
    assert found.change == {}


def test_a_switch_that_is_off_is_named():
    found = shared(search={"algorithm": "grid", "share_trunk": False}, lr_scheduler_type="wsd")
    assert found.change == {"search.share_trunk": True}


def test_one_budget_has_nothing_to_share_and_nothing_is_said():
    assert str(shared({"replay": grid(0.0, 0.1)}, steps=50, lr_scheduler_type="cosine")) == "100 optimizer steps"


def test_decays_that_share_nothing_are_told_why_and_what_would_join_them():
    decays = {"decay": grid(0.2, 0.5)}
    joined = shared(decays, lr_scheduler_type="wsd", steps=100)
    assert (joined.run, joined.alone) == (100 + 49, 200)
    apart = shared(decays, lr_scheduler_type="wsd", steps=100, warmup_steps=0.1)
    assert apart.change == {"trainer.warmup_steps": 10}
    assert (apart.run, apart.changed) == (200, 149)
    drawn = {**decays, "learning_rate": loguniform(1e-4, 1e-3)}
    sampled = shared(drawn, {"algorithm": "random", "trials_per_cell": 2}, lr_scheduler_type="wsd", steps=100)
    assert sampled.why == "the search draws other settings for each decay"
