from __future__ import annotations

from dataclasses import replace

import pytest

from sweeps import Sweep, choice, grid, loguniform, uniform
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.controller.searcher import OptunaSearch, Result, make_searcher
from sweeps.errors import SpecError
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping.base import NeverStop
from tests.support.rows import make_row


def plan(algorithm: str = "optuna-tpe", trials: int = 12, **space) -> Plan:
    space = space or {
        "data": grid("verified-long-cot", "answer-only"),
        "learning_rate": loguniform(1e-5, 1e-2),
        "replay": choice(0.0, 0.1, 0.2),
    }
    return Plan(Sweep(name="s", seed=7, space=space, search={"algorithm": algorithm, "trials_per_cell": trials}))


def outcome(config, number: int) -> Result:
    value = -abs(config["learning_rate"] - 1e-3) + config["replay"]
    return Result("pruned" if number % 4 == 3 else "completed", {10: value / 2, 20: value})


def run(searcher, asked=(), stop=10**9):
    """Asks and tells one at a time; `asked` are the suggestions of an earlier driver, all told already."""
    asked = list(asked)
    for s in asked:
        searcher.restore(s)
        searcher.tell(s.number, outcome(s.config, s.number))
    while len(asked) < stop and (s := searcher.ask()) is not None:
        asked.append(s)
        searcher.tell(s.number, outcome(s.config, s.number))
    return asked


@pytest.mark.parametrize("algorithm", ["random", "qmc", "optuna-tpe", "optuna-nsga2"])
def test_a_search_that_was_cut_off_goes_on_as_if_nothing_had_happened(algorithm: str):
    whole = run(make_searcher(plan(algorithm)))
    assert len(whole) == 24
    for cut in (1, 9, 17):
        first = run(make_searcher(plan(algorithm)), stop=cut)
        again = run(make_searcher(plan(algorithm)), asked=first)
        assert [s.config for s in again] == [s.config for s in whole], (algorithm, cut)


def test_pruned_is_told_as_pruned_with_its_steps_and_failed_as_failed():
    searcher = make_searcher(plan())
    assert isinstance(searcher, OptunaSearch)
    results = [
        Result("pruned", {10: 0.2, 20: 0.1}),
        Result("completed", {20: 0.5}),
        Result("failed", {}),
        Result("completed", {}),
    ]
    for result in results:
        s = searcher.ask()
        assert s is not None
        searcher.tell(s.number, result)
    told = [t for study in searcher.studies for t in study.trials]
    assert [t.state.name for t in told] == ["PRUNED", "FAIL", "COMPLETE", "FAIL"]  # cells take turns: 0, 2 | 1, 3
    assert told[0].intermediate_values == {10: 0.2, 20: 0.1}
    assert told[2].value == 0.5


@pytest.mark.parametrize("before", [Result("failed"), Result("failed", {10: 0.3})])
def test_what_a_trial_comes_to_that_had_failed_and_was_tried_again_is_learnt(before: Result):
    def told(searcher):
        return [(t.state.name, t.value) for t in searcher.studies[0].trials]

    first = make_searcher(plan())
    s = first.ask()
    assert s is not None
    for searcher in (first, make_searcher(plan())):
        searcher.restore(s)  # takes nothing from the one that asked it itself
        searcher.tell(s.number, before)
        assert told(searcher) == [("FAIL", None)]
        for value in (0.5, 0.9):
            searcher.tell(s.number, Result("completed", {20: value}))  # what comes after a value changes nothing
        assert told(searcher) == [("FAIL", None), ("COMPLETE", 0.5)]
        assert searcher.studies[0].best_params == {k: s.config[k] for k in ("learning_rate", "replay")}


def test_each_cell_has_a_study_of_its_own_and_cells_take_turns():
    searcher = make_searcher(plan(trials=3))
    data = [searcher.ask().config["data"] for _ in range(6)]
    assert data == ["verified-long-cot", "answer-only"] * 3


def test_a_space_with_few_points_ends_when_they_are_used_up():
    searcher = make_searcher(plan("random", 50, replay=choice(0.0, 0.1, 0.2)))
    configs = [s.config["replay"] for s in run(searcher)]
    assert sorted(configs) == [0.0, 0.1, 0.2]


def test_a_grid_asks_every_cell_once_per_repeat_and_then_no_more():
    searcher = make_searcher(Plan(Sweep(name="g", space={"steps": grid(4, 8)}, search={"repeats": 2})))
    asked = run(searcher)
    assert [(s.config["steps"], s.config["seed"]) for s in asked] == [(4, 0), (8, 0), (4, 1), (8, 1)]
    assert searcher.ask() is None


def test_repeats_of_sampled_trials_differ_in_the_seed_only():
    sweep = Sweep(
        name="r",
        space={"learning_rate": loguniform(1e-5, 1e-3)},
        search={"algorithm": "random", "trials": 6, "repeats": 2},
    )
    asked = run(make_searcher(Plan(sweep)))
    assert [s.config["learning_rate"] for s in asked[:3]] == [s.config["learning_rate"] for s in asked[3:]]
    assert [s.config["seed"] for s in asked] == [0, 0, 0, 1, 1, 1]


def budgets(algorithm: str = "optuna-tpe") -> Plan:
    space = {"steps": grid(10, 20), "replay": uniform(0.0, 0.5)}
    trainer = {"lr_scheduler_type": "wsd", "warmup_steps": 2}
    search = {"algorithm": algorithm, "trials": 16}
    return Plan(Sweep(name="b", seed=7, space=space, trainer=trainer, search=search))


def test_a_configuration_is_drawn_once_and_tried_with_every_budget():
    asked = run(make_searcher(budgets()))
    assert [s.config["steps"] for s in asked] == [10, 20] * 8
    drawn = [s.config["replay"] for s in asked]
    assert drawn[::2] == drawn[1::2]
    assert len(set(drawn)) == 8


def test_a_configuration_is_judged_at_its_longest_budget_and_shorter_ones_are_fidelities_of_it():
    searcher = make_searcher(budgets())
    assert isinstance(searcher, OptunaSearch)
    first = [searcher.ask() for _ in range(6)]
    results = [
        Result("completed", {5: 0.1, 10: 0.3}), Result("completed", {5: 0.1, 20: 0.7}),  # the longer one decides
        Result("completed", {10: 0.4}), Result("pruned", {5: 0.2, 15: 0.1}),  # how far it came, by step
        Result("failed"), Result("failed"),
    ]  # fmt: skip
    for suggestion, result in zip(first, results, strict=True):
        assert suggestion is not None
        searcher.tell(suggestion.number, result)
    [study] = searcher.studies
    whole, cut, lost = study.trials
    assert (whole.state.name, whole.value) == ("COMPLETE", 0.7)
    assert whole.intermediate_values == {5: 0.1, 10: 0.3, 20: 0.7}
    assert (cut.state.name, cut.intermediate_values) == ("PRUNED", {5: 0.2, 10: 0.4, 15: 0.1})
    assert lost.state.name == "FAIL"


def test_the_longest_run_is_told_at_once_without_waiting_for_its_branches():
    searcher = make_searcher(budgets())
    assert isinstance(searcher, OptunaSearch)
    _, long = searcher.ask(), searcher.ask()
    assert long is not None
    searcher.tell(long.number, Result("completed", {20: 0.7}))
    assert searcher.studies[0].trials[0].value == 0.7


@pytest.mark.parametrize("algorithm", ["random", "qmc", "optuna-tpe"])
def test_a_search_over_budgets_that_was_cut_off_goes_on_the_same(algorithm: str):
    whole = run(make_searcher(budgets(algorithm)))
    for cut in (1, 4, 9):
        first = run(make_searcher(budgets(algorithm)), stop=cut)
        assert [s.config for s in run(make_searcher(budgets(algorithm)), asked=first)] == [s.config for s in whole]


CONDITIONAL = {
    "lr_scheduler_type": choice("cosine", "wsd"),
    "decay": uniform(0.1, 0.5, when={"lr_scheduler_type": "wsd"}),
    "replay": grid(0.0, 0.1),
}


@pytest.mark.parametrize("algorithm", ["random", "qmc", "optuna-tpe", "optuna-gp", "optuna-nsga2"])
def test_an_axis_that_is_not_active_is_absent_from_what_optuna_is_told(algorithm: str):
    def conditional() -> OptunaSearch:
        searcher = make_searcher(plan(algorithm, 6, **CONDITIONAL))
        assert isinstance(searcher, OptunaSearch)
        return searcher

    def told(searcher: OptunaSearch, asked=(), stop: int = 10**9):
        asked = list(asked)
        for s in asked:
            searcher.restore(s)
            searcher.tell(s.number, Result("completed", {4: s.config["decay"]}))
        while len(asked) < stop and (s := searcher.ask()) is not None:
            asked.append(s)
            searcher.tell(s.number, Result("completed", {4: s.config["decay"]}))
        return asked

    whole = told(searcher := conditional())
    trials = [t for study in searcher.studies for t in study.trials if t.state.name == "COMPLETE"]
    assert {frozenset(t.params) for t in trials} == {
        frozenset({"lr_scheduler_type"}), frozenset({"lr_scheduler_type", "decay"})
    }  # fmt: skip
    for t in trials:
        assert ("decay" in t.params) == (t.params["lr_scheduler_type"] == "wsd")
    cosine = [s.config["decay"] for s in whole if s.config["lr_scheduler_type"] == "cosine"]
    assert cosine == [0.2, 0.2]  # once a cell: nothing else is sampled there
    again = told(conditional(), asked=told(conditional(), stop=3))
    assert [s.config for s in again] == [s.config for s in whole]


def test_trials_are_spread_evenly_and_cells_with_nothing_to_sample_run_once():
    space = {"data": grid("verified-long-cot", "answer-only", "corrupted-cot"), "learning_rate": loguniform(1e-5, 1e-3)}
    seven = Plan(Sweep(name="n", space=space, search={"algorithm": "random", "trials": 7}))
    data = [s.config["data"] for s in run_all(seven)]
    assert seven.total == len(data) == 7
    assert [data.count(d) for d in space["data"].values] == [3, 2, 2]
    tied = {**space, "learning_rate": loguniform(1e-5, 1e-3, when={"data": ["verified-long-cot"]})}
    plan = Plan(Sweep(name="n", space=tied, search={"algorithm": "random", "trials_per_cell": 4}))
    data = [s.config["data"] for s in run_all(plan)]
    assert plan.total == len(data) == 6
    assert [data.count(d) for d in space["data"].values] == [4, 1, 1]


def run_all(plan: Plan):
    searcher = make_searcher(plan)
    return list(iter(searcher.ask, None))


def test_trials_fit_whole_configurations_and_added_ones_are_filled_up():
    with pytest.raises(
        SpecError, match="tried with each of the 2 budgets of steps; expected a multiple of 2, such as 8"
    ):
        Sweep(
            name="b",
            space={"steps": grid(10, 20), "replay": uniform(0.0, 0.5)},
            search={"algorithm": "random", "trials": 7},
        )
    more = replace(budgets("random"), more=1)
    assert more.total == 18
    assert [s.config["steps"] for s in run_all(more)] == [10, 20] * 9


def test_where_bests_count_a_pruned_trial_is_told_with_what_its_best_checkpoint_is_worth():
    searcher = make_searcher(plan())
    assert isinstance(searcher, OptunaSearch)
    results = [
        Result("pruned", {10: 0.6, 20: 0.1}, best=0.55),
        Result("completed", {20: 0.5}, best=0.45),
        Result("failed", {10: 0.9}, best=0.9),
    ]
    for result in results:
        s = searcher.ask()
        assert s is not None
        searcher.tell(s.number, result)
    told = [t for study in searcher.studies for t in study.trials]
    assert [(t.state.name, t.value) for t in told] == [("COMPLETE", 0.55), ("FAIL", None), ("COMPLETE", 0.45)]


def test_a_sweep_tells_its_search_the_best_checkpoint_less_its_luck():
    sweep = Sweep(
        name="s", space={"learning_rate": loguniform(1e-5, 1e-2)}, objective={"at": "best"},
        search={"algorithm": "optuna-tpe", "trials": 3},
    )  # fmt: skip
    told = []
    plan_of = Plan(sweep)
    searcher = make_searcher(plan_of)
    searcher.tell = lambda number, result: told.append(result)
    controller = SweepController(plan_of, MemoryJournal(), NeverStop(sweep.goal), searcher=searcher)
    record = controller._record
    config = searcher.ask().config
    record.write(make_row("trial", sweep.id, "t-1", config=config, budget=400, number=0))
    for step, value in ((100, 0.3), (200, 0.6), (400, 0.32)):
        record.write(
            make_row(
                "report",
                sweep.id,
                "t-1",
                step=step,
                metrics={"transfer/score": value},
                se={"transfer/score": 0.1},
                suite="s",
            )
        )
    record.write(make_row("end", sweep.id, "t-1", step=400, of="scoring", status="pruned"))
    (result,) = told
    assert result.by_step == {100: 0.3, 200: 0.6, 400: 0.32}
    assert 0.32 < result.best < 0.55
    assert result.value == result.best
