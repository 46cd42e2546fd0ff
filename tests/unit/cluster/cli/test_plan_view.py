"""`dipsweep plan` as a person sees it: table, machines, limits and where the figures are from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.cli.plan_view import (
    label_lines,
    label_tokens,
    machines_of,
    parse_nodes,
    row_lines,
    step_lines,
    storage_lines,
)
from cluster.cli.render import plan_text
from cluster.jobs.list_nodes import nodes_of, nodes_text
from cluster.preflight.cost import StorageUse, predicted, speeds_for, step_speeds, storage_use
from sweeps import Sweep, grid, randint
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.yaml import load
from sweeps.errors import InputError, LimitError
from sweeps.journal.rows import TierRow
from sweeps.planning.devices import published_mfu
from sweeps.planning.estimate import Range
from sweeps.planning.progress import duration
from sweeps.planning.speeds import EVALUATOR_LOADS_S, REUSED_S, START_UP_S

SWEEP = """
name: planned
models: {qwen3-4b: {path: s3://models/qwen3-4b, workers: 2, gpus_per_worker: 1}}
space: {model: {grid: [qwen3-4b]}, steps: {grid: [500, 1000]}}
trainer: {batch_tokens: 65536, max_length: 8192, lr_scheduler_type: wsd, warmup_steps: 50}
evaluation: {items: 20}
"""


@pytest.fixture
def plan(tmp_path: Path):
    def run(*options: str, more: str = ""):
        path = tmp_path / "planned.yaml"
        path.write_text(SWEEP + more)
        return CliRunner().invoke(app, ["plan", str(path), "--storage", str(tmp_path / "none"), *options])

    return run


def test_a_small_price_is_no_price_of_zero(plan):
    said = plan("--gpu", "H100", more="limits: {usd_per_gpu_hour: 0.001}\n").output
    (amounts,) = re.findall(r"on reserved GPUs, (\S+) USD \((\S+) to (\S+)\)", said)
    assert all(float(amount) > 0 for amount in amounts)


def test_time_of_reserved_gpus_is_told_apart_where_evaluators_reserve_none(plan):
    cost = json.loads(plan("--json").output)["cost"]
    assert 0 < 3600 * cost["gpu_hours"]["value"] < cost["device_seconds"]["value"]
    (line,) = (line for line in plan().output.splitlines() if line.startswith("in all  "))
    assert f"of device time, {duration(3600 * cost['gpu_hours']['value'])} (" in line
    assert line.endswith(") of it on reserved GPUs")


def test_machines_are_given_as_devices_or_as_nodes():
    assert parse_nodes(8, None) == [8]
    assert parse_nodes(None, "2x4") == [4.0, 4.0]
    assert parse_nodes(None, None) == []
    with pytest.raises(InputError, match="got '2 by 4'; expected COUNTxDEVICES"):
        parse_nodes(None, "2 by 4")
    with pytest.raises(InputError, match="got '²x4'; expected COUNTxDEVICES"):
        parse_nodes(None, "²x4")
    for gpus in (float("nan"), float("inf"), -3.0):
        with pytest.raises(InputError, match=f"--gpus: got {gpus:g}; expected a number, such as 8"):
            parse_nodes(gpus, None)
    with pytest.raises(InputError, match="expected one of them"):
        parse_nodes(8, "2x4")


def test_a_plan_says_cost_time_memory_and_where_each_figure_is_from(plan):
    text = plan("--nodes", "1x2").output
    assert "of 1,500" in text  # steps without shared prefixes
    assert "on 1 node of 2 GPUs" in text
    assert "memory       qwen3-4b" in text
    assert "benchmarks.trainer.gpu, Qwen3-4B" in text
    assert "stop rule" not in text  # none, so nothing is saved
    assert "\nrows  " not in text  # steps are counted in tokens


def test_what_the_stop_rule_saves_is_a_range_with_its_source(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    more = "\nstopping: {rule: dip-aware}\n"
    (line,) = [x for x in plan(more=more).output.splitlines() if x.startswith("stop rule")]
    assert "rehearsals on 108 recorded fine-tunes of tiny models" in line
    saving = json.loads(plan("--json", more=more).output)["cost"]["saving"]
    assert 0 <= saving["low"] <= saving["share"] <= saving["high"] < 1


def test_the_same_is_there_for_scripts(plan):
    cost = json.loads(plan("--json").output)["cost"]
    (model,) = cost["models"]
    assert (model["trials"], model["alone"], model["devices"]) == (2, 1500, 2)
    assert model["steps"] == 1000 + 500 - 401
    total = cost["gpu_hours"]
    assert total["low"] < total["value"] < total["high"]


def test_base_scores_memory_labels_and_missing_files_are_there_for_scripts_too(plan, tmp_path):
    told = json.loads(plan("--json", more=f"tiers: {{verified-long-cot: {{path: {tmp_path}/none.jsonl}}}}\n").output)
    (model,), (memory,) = told["cost"]["models"], told["memory"]
    once = model["evaluation"]["value"] / model["evaluations"]
    assert model["base"]["value"] == pytest.approx(once + EVALUATOR_LOADS_S["GPU"])  # a new evaluator loads first
    parts = memory["need"]
    assert parts["total"] == sum(v for name, v in parts.items() if name != "total")
    assert parts["adam"] == pytest.approx(8 * 4.02e9 / 2, rel=0.01)
    assert told["missing"] == [f"tiers.verified-long-cot.path: no file {tmp_path}/none.jsonl on this machine"]
    assert told["label_tokens"] is None


def test_models_and_files_that_are_missing_are_named_all_at_once(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nmodels: {mine: {path: /not/here}}\ntiers: {ours: {path: none.jsonl}}\n"
        "space: {model: {grid: [mine]}, data: {grid: [ours]}}\n"
    )
    done = CliRunner().invoke(app, ["plan", str(path)])
    assert str(done.exception).splitlines() == [
        "s.yaml:2 models.mine.path: no folder /not/here on this machine",
        f"s.yaml:3 tiers.ours.path: no file {tmp_path}/none.jsonl on this machine",
    ]


def test_what_a_journal_keeps_as_predicted_counts_the_processes_that_start_side_by_side(tmp_path):
    plan = Plan(Sweep(name="s", space={"replay": grid(0.0, 0.1)}))
    one, two = (predicted(plan, tmp_path, nodes=nodes)["device_seconds"]["value"] for nodes in ([], [2.0]))
    assert two - one == pytest.approx(START_UP_S["CPU"] - REUSED_S["CPU"])


def test_steps_of_budgets_that_the_search_draws_are_said_to_be_drawn():
    space = {"steps": randint(10, 1000)}
    (line,) = (line for line in plan_text(Plan(Sweep(name="p", space=space, search={"algorithm": "random", "trials": 4})))
               .splitlines() if line.startswith("in all "))  # fmt: skip
    assert ", of random draws; every model" in line


def test_a_sampled_plan_says_how_many_configurations_it_draws_and_with_how_many_budgets():
    sampled = Plan(
        Sweep(
            name="s",
            space={
                "steps": {"grid": [10, 20]},
                "data": {"grid": ["answer-only", "concise-cot"]},
                "replay": {"uniform": [0.0, 0.5]},
            },
            search={"algorithm": "random", "trials": 24, "repeats": 2},
        )
    )
    head = plan_text(sampled).splitlines()[0]
    assert head.endswith("24 trials in 4 grid cells: 6 sampled configurations, each with 2 budgets, 2 times")


def test_a_plan_over_a_limit_says_by_how_much(plan):
    done = plan(more="limits: {gpu_hours: 0.5}\n")
    assert isinstance(done.exception, LimitError)
    (over,) = json.loads(plan("--json", more="limits: {gpu_hours: 0.5}\n").output)["over_limits"]
    assert over.startswith("limits.gpu_hours is 0.5; the plan needs about")
    assert "limits.gpu_hours is 0.5; the plan needs about" in str(done.exception)


def test_an_unknown_device_is_refused_with_the_known_ones(plan):
    assert "got 'B200'; expected one of H100, H200, A100, L40S" in str(plan("--gpu", "B200").exception)


def test_a_machine_that_is_too_small_is_refused(plan):
    assert "needs 2 x 1 GPUs; the nodes have 1" in str(plan("--gpus", "1").exception)


def test_states_that_a_device_cannot_hold_are_refused_and_activations_told(tmp_path):
    def planned(gpu: str, workers: int):
        path = tmp_path / "planned.yaml"
        path.write_text(SWEEP.replace("qwen3-4b", "qwen3-14b").replace("workers: 2", f"workers: {workers}"))
        return CliRunner().invoke(app, ["plan", str(path), "--storage", str(tmp_path), "--gpu", gpu])

    refused = planned("H100", 2)
    assert isinstance(refused.exception, InputError)
    assert "on each H100; does not fit; what would help: more workers (now 2;" in str(refused.exception)
    told = planned("L40S", 8).output
    assert "does not fit; what would help: more workers (now 8;" in told
    assert "gradient_checkpointing: true" in told


def test_a_worker_of_half_a_device_has_half_of_its_memory(tmp_path):
    path = tmp_path / "planned.yaml"
    path.write_text(SWEEP.replace("gpus_per_worker: 1", "gpus_per_worker: 0.5"))
    done = CliRunner().invoke(app, ["plan", str(path), "--storage", str(tmp_path), "--gpu", "H100", "--gpus", "1"])
    assert "of 40 GB on the 0.5 of an H100 that each worker reserves" in done.output
    assert "does not fit; what would help: more workers (now 2;" in done.output
    assert "on 1 node of 1 GPU" in done.output  # both workers on it


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[4] / "examples/paper").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_experiments_of_the_paper_plan_without_their_models_and_data(path: Path):
    done = CliRunner().invoke(app, ["plan", str(path), "--nodes", "4x8", "--gpu", "H200", "--json"])
    cost = json.loads(done.output)["cost"]
    assert cost["wall"]["value"] > 3600
    assert row_lines(Plan(load(path))) == [
        "rows         taken for 5,000 tokens in the mean, 0.25 of max_length: assumed, of every tier alike"
    ]
    assert all(model["on_gpu"] for model in cost["models"])


def test_checkpoints_are_counted_in_bytes(plan):
    text = plan().output
    told = json.loads(plan("--json").output)["storage"]
    size = told["written"] / told["checkpoints"]
    assert size == pytest.approx(12 * 4.02e9, rel=0.01)  # Qwen3-4B
    assert told["kept"] == 4 * size  # three of the long trial, and the only one that the branch writes itself
    assert f"{told['checkpoints']} checkpoints (fp32 weights and Adam's moments)" in text


H100S = {"CPU": 96.0, "GPU": 8.0, "memory": 2.0**40, "accelerator_type:H100": 1.0, "node:10.0.0.1": 1.0}
HEAD = {"CPU": 4.0, "memory": 16 * 2.0**30, "node:10.0.0.0": 1.0}


def test_nodes_of_a_cluster_are_told_by_size_and_those_that_run_nothing_left_out():
    nodes = nodes_of(
        [HEAD, H100S, {**H100S, "memory": 2.0**40 - 4096}, {"memory": 2.0**30}]
    )  # alike but for some bytes
    assert nodes_text(nodes) == "2 x (8 H100, 96 CPU, 1024 GiB), 1 x (4 CPU, 16 GiB)"


def test_a_sweep_on_gpus_plans_with_the_nodes_that_have_some_and_their_kind():
    plan = Plan(Sweep(name="s", models={"qwen3-1.7b": {"path": "/models/q"}}, space={"replay": grid(0.0, 0.1)}))
    devices, cpus, kind, said = machines_of(plan, nodes_of([HEAD, H100S]), None)
    assert (devices, cpus, kind) == ([8.0], [96.0], "H100")
    assert said == "nodes        1 x (8 H100, 96 CPU, 1024 GiB), 1 x (4 CPU, 16 GiB)"
    both = nodes_of([H100S, {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100-40G": 1.0}])
    assert machines_of(plan, both, None)[2] == "A100"
    assert machines_of(plan, both, None)[3].endswith("; all taken as A100")
    assert machines_of(plan, both, "H200")[2] == "H200"
    with pytest.raises(InputError, match="trains on GPUs; the cluster has 1 x"):
        machines_of(plan, nodes_of([HEAD]), None)
    with pytest.raises(InputError, match="no speed of such GPUs is published"):
        machines_of(plan, nodes_of([{"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0}]), None)


def test_a_sweep_on_cpus_plans_with_the_cpus_of_all_nodes():
    plan = Plan(Sweep(name="s", space={"replay": grid(0.0, 0.1)}))
    assert machines_of(plan, nodes_of([HEAD, H100S]), None)[0] == [4.0, 96.0]


def test_the_storage_line_tells_what_moves_and_how_fast():
    use = StorageUse(written=12 * 10**9, kept=3 * 10**9, checkpoints=10, read=4 * 10**9)
    (line,) = storage_lines(use, Range(100.0, 90.0, 110.0))
    assert "12.0 GB written in 10 checkpoints" in line
    assert "4.0 GB read by evaluators and branches, 160.0 MB/s on average; at most 3.0 GB kept" in line
    assert "/s" not in storage_lines(use)[0]


def test_evaluators_read_the_weights_alone_and_branches_all_of_their_parents():
    plan = Plan(
        Sweep(
            name="s", space={"steps": grid(100, 400)},
            trainer={"lr_scheduler_type": "wsd", "warmup_steps": 10}, evaluation={"at": {"every": 100}},
        )
    )  # fmt: skip
    use = storage_use(plan)
    one = use.written // use.checkpoints
    assert use.read == 5 * one // 3 + one  # five scored checkpoints, one branch


def test_a_step_tells_its_time_and_on_gpus_the_utilisation_that_it_came_from():
    plan = Plan(Sweep(name="s", models={"qwen3-1.7b": {"path": "/nowhere"}}, space={"replay": grid(0.0, 0.1)}))
    (one,) = step_speeds(plan, speeds_for(plan, gpu="H100"), "H100")
    assert one.mfu == pytest.approx(published_mfu(1.72e9).mfu, rel=0.05)
    assert f"MFU {one.mfu:.0%}" in step_lines([one])[0]
    (tiny,) = step_speeds(Plan(Sweep(name="s")), speeds_for(Plan(Sweep(name="s")), gpu="H100"), "H100")
    assert tiny.mfu is None


def test_tokens_that_are_learnt_from_are_those_of_the_tiers_cards():
    plan = Plan(
        Sweep(
            name="s",
            space={"data": grid("verified-long-cot", "answer-only")},
            trainer={"steps": 100, "batch_tokens": 1000},
        )
    )
    cards = [
        TierRow("e", model="tiny-s", tier=tier, counts={"tokens": 1000, "label_tokens": n})
        for tier, n in (("verified-long-cot", 600), ("answer-only", 100))
    ]
    found = label_tokens(plan, [cards])
    assert (found.tokens, found.labels) == (200_000, 70_000)
    assert label_lines(found) == ["labels       70.0k of 200.0k tokens are learnt from (cards of the tiers)"]
    (said,) = label_lines(label_tokens(plan, [cards[:1]]))
    assert said.endswith("not known before a sweep here, or --probe, has counted answer-only for tiny-s")
