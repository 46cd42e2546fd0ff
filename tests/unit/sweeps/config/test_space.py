"""Paired settings, conditional axes and counts of trials: what a space unfolds to, and what it refuses."""

from __future__ import annotations

import pytest

from sweeps import Sweep, choice, grid, loguniform, zipped
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.yaml import loads
from sweeps.errors import SpecError

PAIRS = zipped(model=["tiny-xs", "tiny-s", "tiny-m"], learning_rate=[4e-3, 3e-3, 1e-3])


def test_paired_settings_change_together_and_are_crossed_with_the_grids():
    plan = Plan(Sweep(name="z", space={"size": PAIRS, "replay": grid(0.0, 0.1)}))
    pairs = [(t.config["model"], t.config["learning_rate"], t.config["replay"]) for t in plan.known_trials()]
    assert pairs == [(m, r, replay) for m, r in PAIRS_ROWS for replay in (0.0, 0.1)]


PAIRS_ROWS = [("tiny-xs", 4e-3), ("tiny-s", 3e-3), ("tiny-m", 1e-3)]


def test_yaml_and_python_say_pairs_and_conditions_alike():
    text = """
name: z
space:
  size: {zip: {model: [tiny-xs, tiny-s, tiny-m], learning_rate: [4.0e-3, 3.0e-3, 1.0e-3]}}
  lora_rank: {grid: [0, 8], when: {model: tiny-m}}
  lora_alpha: {grid: [16.0, 32.0], when: {lora_rank: [8]}}
"""
    python = Sweep(name="z", space={
        "size": PAIRS,
        "lora_rank": grid(0, 8, when={"model": "tiny-m"}),
        "lora_alpha": grid(16.0, 32.0, when={"lora_rank": 8}),
    })  # fmt: skip
    assert loads(text) == python
    assert Sweep(**python.to_json()) == python
    lora = [(t.config["model"], t.config["lora_rank"], t.config["lora_alpha"]) for t in Plan(python).known_trials()]
    assert lora == [
        ("tiny-xs", 0, 32.0),
        ("tiny-s", 0, 32.0),
        ("tiny-m", 0, 32.0),
        ("tiny-m", 8, 16.0),
        ("tiny-m", 8, 32.0),
    ]


def test_a_condition_may_name_an_axis_that_stands_later():
    space = {"decay": grid(0.1, 0.2, when={"lr_scheduler_type": "wsd"}), "lr_scheduler_type": grid("cosine", "wsd")}
    assert Plan(Sweep(name="z", space=space)).cells == [
        {"lr_scheduler_type": "cosine"},
        {"lr_scheduler_type": "wsd", "decay": 0.1},
        {"lr_scheduler_type": "wsd", "decay": 0.2},
    ]


def test_only_budgets_that_exist_share_a_trunk():
    """A zip of model and steps gives each model one budget: there is no longer run to turn off from."""
    wsd = {"lr_scheduler_type": "wsd", "warmup_steps": 2}
    paired = Plan(Sweep(name="z", space={"size": zipped(model=["tiny-xs", "tiny-s"], steps=[10, 40])}, trainer=wsd))
    assert [paired.branch_of(t.config) for t in paired.known_trials()] == [None, None]
    crossed = Plan(Sweep(name="z", space={"model": grid("tiny-xs", "tiny-s"), "steps": grid(10, 40)}, trainer=wsd))
    assert [t.config["steps"] for t in crossed.known_trials() if crossed.branch_of(t.config)] == [10, 10]


ZIP = {"model": ["tiny-s", "tiny-m"], "learning_rate": [1e-3, 2e-3]}
BAD = {
    "unequal columns": ({"size": {"zip": {**ZIP, "learning_rate": [1e-3]}}}, "model has 2, learning_rate has 1"),
    "one column": ({"size": {"zip": {"model": ["tiny-s"]}}}, "pairs at least two settings"),
    "no list": ({"size": {"zip": {"model": "tiny-s", "steps": [1]}}}, "zip takes a list for each setting"),
    "a row twice": ({"size": {"zip": {"model": ["tiny-s"] * 2, "steps": [4, 4]}}}, "lists a row twice"),
    "an unknown column": (
        {"size": {"zip": {**ZIP, "lr": [1, 2]}}},
        r"space\.size\.zip\.lr: is now space\.learning_rate",
    ),
    "a value out of bounds": (
        {"size": {"zip": {**ZIP, "steps": [0, 1]}}},
        r"zip\.steps: got 0 .* expected a number >= 1",
    ),
    "a name that is a setting": ({"model": {"zip": ZIP}}, "'model' is a setting"),
    "a setting twice": ({"size": {"zip": ZIP}, "model": {"grid": ["tiny-s"]}}, "has an axis already, in space.size"),
    "a condition on no axis": (
        {"decay": {"grid": [0.1], "when": {"lr_scheduler_typ": "wsd"}}},
        "is no axis of this space",
    ),
    "a condition on itself": ({"decay": {"grid": [0.1], "when": {"decay": 0.1}}}, "this axis itself"),
    "a value that never is": (
        {"lr_scheduler_type": {"grid": ["wsd"]}, "decay": {"grid": [0.1], "when": {"lr_scheduler_type": "cosine"}}},
        "which the axis never has; its values: wsd",
    ),
    "conditions in a circle": (
        {"decay": {"grid": [0.1, 0.2], "when": {"replay": 0}}, "replay": {"grid": [0, 0.1], "when": {"decay": 0.1}}},
        "go round in a circle",
    ),
    "no mapping": ({"decay": {"grid": [0.1], "when": "wsd"}}, r"got when: 'wsd'; expected \{NAME: value\}"),
    "a list of kinds": ({"decay": {"grid": [0.1], "choice": [0.2], "when": {}}}, "expected exactly one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_spaces_that_make_no_sense_are_refused(case: str):
    space, message = BAD[case]
    with pytest.raises(SpecError, match=message):
        Sweep(name="z", space=space)


def test_a_grid_cannot_wait_for_a_sampled_axis():
    space = {"lr_scheduler_type": choice("cosine", "wsd"), "decay": grid(0.1, 0.2, when={"lr_scheduler_type": "wsd"})}
    with pytest.raises(SpecError, match="crossed before 'lr_scheduler_type' is sampled; make it a choice"):
        Sweep(name="z", space=space, search={"algorithm": "random"})


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"trials": 1}, "got 1, but the grid axes have 2 cells, and each is run; expected at least 2"),
        ({"trials": 5, "repeats": 2}, "expected a multiple of search.repeats, 2"),
        ({"trials": 2, "repeats": 2}, "expected at least 4"),
        ({"trials": 4, "trials_per_cell": 2}, "got trials and trials_per_cell; expected one of them"),
        ({"trials": 200_000}, "200,000 trials are more than 100,000"),
    ],
)
def test_counts_that_do_not_fit_are_refused(search, message):
    space = {"data": grid("verified-long-cot", "answer-only"), "learning_rate": loguniform(1e-5, 1e-3)}
    with pytest.raises(SpecError, match=message):
        Sweep(name="n", space=space, search={"algorithm": "random", **search})


@pytest.mark.parametrize(
    ("search", "total"),
    [({}, 2), ({"trials": 3}, 3), ({"trials_per_cell": 3}, 6), ({"trials": 8, "repeats": 2}, 8), ({"repeats": 2}, 4)],
)
def test_trials_are_counted_in_all(search, total):
    space = {"data": grid("verified-long-cot", "answer-only"), "learning_rate": loguniform(1e-5, 1e-3)}
    assert Plan(Sweep(name="n", space=space, search={"algorithm": "random", **search})).total == total
