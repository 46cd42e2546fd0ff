"""A search that begins from earlier sweeps: what of them fits, what it is told, and that a replay needs only the sweep's row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from sweeps import Sweep, choice, grid, loguniform, uniform
from sweeps.config.objective import Constraint, Goal
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.yaml import load
from sweeps.config.trial import trial_id
from sweeps.controller.controller import SweepController
from sweeps.controller.earlier_trials import best_score, gather_points, place_of
from sweeps.controller.searcher import OptunaSearch, make_searcher
from sweeps.errors import InputError, SpecError
from sweeps.journal.history import History
from sweeps.journal.writer import MemoryJournal, SweepJournal
from sweeps.stopping.base import NeverStop
from tests.support.rows import make_row

Y = "transfer/score"


def sweep_of(name: str = "new", points_from=(), low: float = 1e-4, **more) -> Sweep:
    search = {"algorithm": "optuna-tpe", "trials": 12, **({"points_from": list(points_from)} if points_from else {})}
    space = {"learning_rate": loguniform(low, 1e-2), "replay": choice(0.0, 0.1)}
    return Sweep(**{"name": name, "space": space, "search": search, **more})


def recorded(root: Path, sweep: Sweep, trials: dict[float, float], *, status: str = "completed", replay=0.1) -> str:
    """Writes the journal of a sweep whose trials have these rates and ended at these scores."""
    plan = Plan(sweep)
    with SweepJournal(root / sweep.id) as journal:
        journal.append(
            make_row("sweep", sweep.id, name=sweep.name, spec=sweep.to_json(), trials=len(trials), version=1)
        )
        for number, (rate, score) in enumerate(trials.items()):
            config = plan.config(plan.cells[0], {"learning_rate": rate, "replay": replay}, 0)
            trial = trial_id(config)
            rows = [
                make_row("trial", sweep.id, trial, config=config, budget=config["steps"], number=number),
                make_row("attempt", sweep.id, trial, 1, 0),
                *(
                    make_row(
                        "report", sweep.id, trial, 1, step, metrics={Y: score * share}, se={Y: 0.01}, suite="mini@1"
                    )
                    for step, share in ((100, 1.1), (config["steps"], 1.0))
                ),
                make_row("end", sweep.id, trial, 1, config["steps"], of="training", status=status),
                make_row("end", sweep.id, trial, 1, config["steps"], of="scoring", status=status),
            ]
            for row in rows:
                journal.append(row)
    return sweep.id


def gather(root: Path, sweep: Sweep):
    said: list[str] = []
    return gather_points(Plan(sweep), sweep.search.points_from, root, said.append), said


def test_trials_of_the_same_question_are_told_as_finished_ones(tmp_path):
    old = recorded(tmp_path, sweep_of("old"), {1e-3: 0.5, 3e-3: 0.8})
    new = sweep_of(points_from=[old])
    points, said = gather(tmp_path, new)
    searcher = make_searcher(Plan(new))
    assert isinstance(searcher, OptunaSearch)
    searcher.begin(points)
    told = searcher.studies[0].trials
    assert [(t.params["learning_rate"], t.value, t.state.name) for t in told] == [
        (1e-3, 0.5, "COMPLETE"),
        (3e-3, 0.8, "COMPLETE"),
    ]
    assert told[0].intermediate_values == {100: pytest.approx(0.55), 400: 0.5}
    assert points["tried"] == []
    assert said == [f"search.points_from: {old}: 2 told to the search as finished trials"]


def test_pruned_trials_are_told_as_pruned_and_where_bests_count_with_their_best(tmp_path):
    ends = gather(tmp_path, sweep_of(points_from=[recorded(tmp_path, sweep_of("old"), {1e-3: 0.5}, status="pruned")]))[
        0
    ]
    at_best = {"objective": {"at": "best"}}
    old = recorded(tmp_path, sweep_of("old", **at_best), {1e-3: 0.5}, status="pruned")
    bests = gather(tmp_path, sweep_of(points_from=[old], **at_best))[0]
    states = []
    for points, more in ((ends, {}), (bests, at_best)):
        searcher = make_searcher(Plan(sweep_of(**more)))
        searcher.begin(points)
        states.append([(t.state.name, t.value is not None) for t in searcher.studies[0].trials])
    assert states == [[("PRUNED", False)], [("COMPLETE", True)]]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"trainer": {"batch_tokens": 4096}}, "batch_tokens differs"),
        ({"objective": {"metric": "general/score"}}, "the objective differs"),
        ({"evaluation": {"items": 50}}, "evaluation.items differs"),
        ({"trainer": {"steps": 200}}, "steps differs"),
        ({"tiers": {"verified-long-cot": {"path": "/data/x.jsonl"}}}, "tier verified-long-cot differs"),
    ],
)
def test_where_something_else_differs_the_best_settings_are_tried_first(tmp_path, more, why):
    source = sweep_of("old", **more)
    old = recorded(tmp_path, source, {2e-4: 0.5, 1e-3: 0.9, 5e-3: 0.7, 8e-3: 0.1})
    new = sweep_of(points_from=[old])
    points, said = gather(tmp_path, new)
    assert points["told"] == []
    metric = source.objective.metric
    if metric == Y:  # by the other metric none was scored, so none is known to be good
        assert [p["params"]["learning_rate"] for p in points["tried"]] == [1e-3, 5e-3, 2e-4]
        searcher = make_searcher(Plan(new))
        searcher.begin(points)
        rates = [searcher.ask().config["learning_rate"] for _ in range(4)]
        assert rates[:3] == [1e-3, 5e-3, 2e-4]
        assert rates[3] not in rates[:3]
    assert f"4 results left out: {why}, so scores do not compare" in said[0]


PAPER = {"batch_rows": 32, "long_rows": "cut-answer", "lr_scheduler_type": "cosine"}


def test_a_trial_trained_as_the_paper_does_is_not_one_of_a_sweep_that_does_not(tmp_path):
    space = {"learning_rate": loguniform(1e-4, 1e-2)}
    old = sweep_of("old", space=space, trainer={**PAPER, "compat": "paper"})
    recorded(tmp_path, old, {1e-3: 0.5}, replay=0.0)
    points, said = gather(tmp_path, sweep_of(points_from=[old.id], space=space, trainer=PAPER))
    assert points["told"] == []
    assert "compat differs" in said[0]
    same = sweep_of(points_from=[old.id], space=space, trainer={**PAPER, "compat": "paper"})
    assert len(gather(tmp_path, same)[0]["told"]) == 1


def test_a_trial_of_any_sampled_model_fits(tmp_path):
    space = {"learning_rate": loguniform(1e-4, 1e-2), "model": choice("tiny-s", "tiny-m"), "replay": choice(0.0, 0.1)}
    config = {**Plan(sweep_of()).config({}, {"learning_rate": 1e-3, "replay": 0.1}, 0), "model": "tiny-m"}
    fit, why = place_of(Plan(sweep_of(space=space)), config)
    assert (fit and fit.params["model"], why) == ("tiny-m", "")


@pytest.mark.parametrize(("changes", "told"), [({"learning_rate": 2e-3}, 1), ({"decay": 0.3}, 2)])
def test_a_warm_clone_is_no_run_of_its_own_settings(tmp_path, changes, told):
    space = {"learning_rate": loguniform(1e-4, 1e-2), "decay": uniform(0.1, 0.5)}
    trainer = {"lr_scheduler_type": "wsd", "warmup_steps": 2, "steps": 100}
    old, new = (sweep_of(name, space=space, trainer=trainer, **more) for name, more in (
        ("old", {}), ("new", {"points_from": ["old"]})))  # fmt: skip
    config = Plan(old).config({}, {"learning_rate": 1e-3, "decay": 0.2}, 0)
    clone, rows = {**config, **changes}, [make_row("sweep", old.id, name="old", spec=old.to_json(), version=1)]
    parent = {"parent": trial_id(config), "fork_step": 50}
    for one, keys in ((config, {}), (clone, parent)):
        trial = trial_id(one)
        rows += [
            make_row("trial", old.id, trial, config=one, budget=100, **keys),
            make_row("attempt", old.id, trial, 1, 50 if keys else 0, **keys),
            make_row("report", old.id, trial, 1, 100, metrics={Y: 0.5}, suite="mini@1"),
            make_row("end", old.id, trial, 1, 100, of="scoring", status="completed"),
        ]
    with SweepJournal(tmp_path / "old") as journal:
        for row in rows:
            journal.append(row)
    points, said = gather(tmp_path, new)
    assert len(points["told"]) == told
    assert told == 2 or "it began from a run of other settings" in said[0]


def test_the_best_settings_of_a_sweep_that_ranks_by_best_checkpoints_are_those_of_their_bests(tmp_path):
    source = sweep_of("old", objective={"at": "best"})
    recorded(tmp_path, source, {2e-4: 0.5, 1e-3: 0.9}, status="pruned")
    points, _ = gather(tmp_path, sweep_of(points_from=[source.id]))
    assert [p["params"]["learning_rate"] for p in points["tried"]] == [1e-3, 2e-4]


def test_the_best_that_counts_for_a_search_meets_the_constraints_if_any_does():
    history = History(
        make_row("report", "s", trial, 1, step, metrics={Y: score, "safety/score": safety}, suite="m")
        for trial in ("some", "none")
        for step, score, safety in ((1, 0.5, 0.9 if trial == "some" else 0.1), (2, 0.9, 0.1), (3, 0.4, 0.2))
    )
    goal = Goal(Y, at="best", constraints=(Constraint("safety/score", at_least=0.8),))
    assert [best_score(history, trial, goal) for trial in ("some", "none")] == [0.5, 0.9]
    assert best_score(history, "some", Goal(Y, at="best")) == 0.9


def test_what_lies_outside_of_the_space_is_left_out_and_said(tmp_path):
    old = recorded(tmp_path, sweep_of("old", low=1e-6), {1e-5: 0.9, 1e-3: 0.5})
    points, said = gather(tmp_path, sweep_of(points_from=[old]))
    assert [p["params"]["learning_rate"] for p in points["told"]] == [1e-3]
    assert "1 result left out: learning_rate lies outside of this sweep's" in said[0]
    other = sweep_of("other", points_from=[old], models={"mine": {"path": "/models/mine"}})
    assert "2 results left out: model tiny-s is not that of this sweep" in gather(tmp_path, other)[1][0]


def test_a_storage_stands_for_its_sweeps_and_none_at_a_place_is_refused(tmp_path):
    for i in range(2):
        recorded(tmp_path / "runs", sweep_of(f"old-{i}"), {1e-3: 0.5 + i})
    points, said = gather(tmp_path, sweep_of(points_from=[str(tmp_path / "runs")]))
    assert len(points["told"]) == len(said) == 2
    with pytest.raises(InputError, match="'nothing-12345678', where there is no sweep"):
        gather(tmp_path / "runs", sweep_of(points_from=["nothing-12345678"]))


def test_folders_are_those_beside_the_sweep_file_and_a_sweep_named_twice_counts_once(tmp_path, monkeypatch):
    old = recorded(tmp_path / "runs", sweep_of("old"), {1e-3: 0.5})
    file, elsewhere = tmp_path / "files" / "new.yaml", tmp_path / "elsewhere"
    for folder in (file.parent, elsewhere):
        folder.mkdir()
    places = ["../runs", f"../runs/{old}", old, "s3://bucket/sweeps"]
    file.write_text(
        yaml.safe_dump({**sweep_of().to_json(), "search": {**sweep_of().to_json()["search"], "points_from": places}})
    )
    monkeypatch.chdir(elsewhere)
    read = load(file).search.points_from
    assert [os.path.realpath(place) for place in read[:2]] == [str(tmp_path / "runs"), str(tmp_path / "runs" / old)]
    assert read[2:] == places[2:]
    points, _ = gather(tmp_path / "runs", sweep_of(points_from=read[:3]))
    assert len(points["told"]) == 1
    assert sweep_of(points_from=["./runs"]).search.points_from == [str(elsewhere / "runs")]


def test_the_budget_that_counts_is_the_longest_of_its_group(tmp_path):
    old = recorded(tmp_path, sweep_of("old"), {1e-3: 0.5})
    budgets = {"learning_rate": loguniform(1e-4, 1e-2), "replay": choice(0.0, 0.1), "steps": grid(100, 400)}
    points, _ = gather(tmp_path, sweep_of(points_from=[old], space=budgets))
    assert [p["by_step"] for p in points["told"]] == [{"100": pytest.approx(0.55), "400": 0.5}]
    shorter = {**budgets, "steps": grid(100, 200)}
    points, said = gather(tmp_path, sweep_of(points_from=[old], space=shorter))
    assert points["told"] == []
    assert [p["params"]["learning_rate"] for p in points["tried"]] == [1e-3]
    assert "steps differs" in said[0]


def run(new: Sweep, points: dict, rows=()) -> tuple[list, SweepController]:
    """Asks for all trials and ends each; with rows it goes on with a journal that has them."""
    journal = MemoryJournal()
    for row in rows:
        journal.append(row)
    controller = SweepController(Plan(new), journal, NeverStop(new.goal), points=lambda: points)
    record = controller._record
    while (s := record.searcher.ask()) is not None:
        trial = trial_id(s.config)
        record.write(
            make_row("trial", new.id, trial, config=s.config, budget=400, number=s.number, search=dict(s.state))
        )
        record.write(make_row("report", new.id, trial, step=400, metrics={Y: s.config["learning_rate"]}, suite="m"))
        record.write(make_row("end", new.id, trial, step=400, of="scoring", status="completed"))
    return journal.rows(), controller


def test_a_sweep_that_goes_on_asks_the_same_without_the_earlier_ones(tmp_path):
    """Told results and points to be tried stand in its first row: nothing is read again."""
    same = recorded(tmp_path, sweep_of("old"), {1e-3: 0.5, 3e-3: 0.8, 5e-4: 0.1, 2e-4: 0.0, 6e-3: 0.3, 4e-3: 0.7})
    other = recorded(tmp_path, sweep_of("fast", trainer={"steps": 200}), {2e-3: 0.9})
    new = sweep_of(points_from=[same, other])
    points, _ = gather(tmp_path, new)
    rows, _ = run(new, points)
    asked = [r.config["learning_rate"] for r in rows if r.kind == "trial"]
    assert asked[0] == 2e-3
    assert asked != [r.config["learning_rate"] for r in run(new, {})[0] if r.kind == "trial"]
    for cut in (4, 10, 19):
        again, _ = run(new, {"told": [], "tried": []}, rows[: cut - cut % 3 + 1])
        assert [r.config["learning_rate"] for r in again if r.kind == "trial"] == asked


def test_only_searches_that_learn_take_them():
    for algorithm in ("random", "optuna-nsga2"):
        with pytest.raises(SpecError, match=r"points_from.*expected optuna-tpe or optuna-gp"):
            sweep_of(search={"algorithm": algorithm, "trials": 4, "points_from": "old-12345678"})
    with pytest.raises(SpecError, match="points_from"):
        Sweep(name="s", space={"replay": grid(0.0, 0.1)}, search={"points_from": ["old-12345678"]})


def test_they_are_part_of_the_id_only_where_there_are_any():
    assert sweep_of(points_from=["old-12345678"]).id != sweep_of().id
    assert "points_from" not in sweep_of().to_json(identity=True)["search"]
