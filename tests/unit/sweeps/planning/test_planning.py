"""A plan's arithmetic: work, machines in time, speeds from journals, and limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli.plan_view import cost_text
from sweeps import Sweep, grid, loguniform
from sweeps.config.plan import Plan
from sweeps.journal.state import SweepState
from sweeps.planning import devices
from sweeps.planning.clock import DoesNotFit, timeline
from sweeps.planning.decoding import LAYER_S, Network, Replies, answer_seconds
from sweeps.planning.devices import PEAK_BF16, published_mfu
from sweeps.planning.estimate import Range, estimate
from sweeps.planning.speeds import (
    CLUSTER_START_S,
    EVALUATOR_PROCESS_S,
    GROUP_START_S,
    REUSED_S,
    START_UP_S,
    Figure,
    Measured,
    Speed,
    flops_per_token,
    key_of,
    measured_speeds,
    published_speed,
    speeds_from_json,
    speeds_to_json,
)
from sweeps.planning.work import TrialWork, planned_work
from tests.support.rows import make_row

QWEN3_4B = {
    "num_hidden_layers": 36, "hidden_size": 2560, "intermediate_size": 9728, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True,
}  # fmt: skip


def sweep(**more) -> Sweep:
    fields = {
        "name": "planned",
        "space": {"data": grid("verified-long-cot"), "steps": grid(100, 200, 400)},
        "trainer": {"lr_scheduler_type": "wsd", "warmup_steps": 10, "batch_tokens": 1000},
        "evaluation": {"at": {"every": 50}},
    }
    return Sweep(**{**fields, **more})


def item(trial: str, *, gpus: float = 1.0, workers: int = 1, parent: str = "") -> TrialWork:
    return TrialWork(trial, "m", "d", 100, 1, workers, workers, gpus * workers, {}, parent, 50 if parent else 0)


def speeds(plan: Plan, *, step: float = 1.0, evaluation: float = 10.0, start_up: float = 5.0, error: float = 0.0):
    one = Speed(Figure(step, error, "a"), Figure(evaluation, error, "b"), Figure(start_up, error, "c"), tokens=1000)
    return {key_of(w.config, w.workers): one for w in planned_work(plan)}


def test_shared_steps_and_scores_are_counted_once():
    short, middle, long = planned_work(Plan(sweep()))
    assert (short.budget, short.fork, short.steps) == (100, 81, 19)
    assert (middle.fork, long.fork, long.steps) == (161, 0, 400)
    assert (short.evaluations, middle.evaluations, long.evaluations) == (1, 1, 8)
    assert {short.parent, middle.parent} == {long.trial}


def test_a_sampled_sweep_has_as_many_trials_as_its_plan():
    plan = Plan(
        sweep(
            space={"data": grid("answer-only"), "learning_rate": loguniform(1e-4, 1e-3)},
            search={"algorithm": "optuna-tpe", "trials": 7},
        )
    )
    drawn = planned_work(plan)
    assert len(drawn) == plan.total == 7
    assert len({w.config["learning_rate"] for w in drawn}) == 7


def test_cost_is_work_times_speed():
    plan = Plan(sweep())
    cost = estimate(plan, speeds(plan))
    (model,) = cost.models
    assert (model.steps, model.alone) == (19 + 39 + 400, 700)
    assert model.training.value == pytest.approx(458.0)
    assert (model.evaluation.value, model.base.value) == (pytest.approx(10 * 10.0), pytest.approx(10.0))
    assert model.start_up.value == pytest.approx(15.0)
    assert model.tokens == 458_000


def test_a_range_is_as_wide_as_its_source_deserves():
    plan = Plan(sweep())
    cost = estimate(plan, speeds(plan, error=0.25))
    whole = cost.device_seconds
    assert whole.low == pytest.approx(whole.value / 1.25)
    assert whole.high == pytest.approx(whole.value * 1.25)


def test_branches_wait_for_their_trunk():
    spans = {
        s.trial: s
        for s in timeline([item("a", parent="t"), item("b"), item("t")], {"a": 5, "b": 7, "t": 20}, [2], gpus=True)
    }
    assert spans["t"].start == spans["b"].start == 0
    assert (spans["a"].start, spans["a"].end) == (20, 25)


def test_a_trial_of_several_workers_spreads_over_nodes_only_where_none_holds_it():
    work = [item("wide", workers=4), item("small")]
    spans = {s.trial: s for s in timeline(work, {"wide": 10, "small": 10}, [4, 1], gpus=True)}
    assert (spans["wide"].node, spans["small"].node) == (0, 1)
    spread = timeline([item("wide", workers=4)], {"wide": 10}, [2, 2], gpus=True)
    assert spread[0].end == 10


def test_an_elastic_trial_runs_on_the_workers_there_is_room_for_and_as_much_longer():
    wide = replace(item("wide", workers=4), fewest=2)
    (span,) = timeline([wide], {"wide": 10}, [3], gpus=True)
    assert (span.start, span.end) == (0, pytest.approx(10 * 4 / 3))
    with pytest.raises(DoesNotFit, match="needs 2 x 1 GPUs; the nodes have 1"):
        timeline([wide], {"wide": 10}, [1], gpus=True)


def test_a_trial_that_never_fits_is_named():
    with pytest.raises(DoesNotFit, match=r"needs 8 x 1 GPUs; the nodes have 4"):
        timeline([item("big", workers=8)], {"big": 1}, [4], gpus=True)


def test_wall_clock_time_is_that_of_the_machines():
    plan = Plan(sweep(trainer={"lr_scheduler_type": "cosine", "batch_tokens": 1000}))
    one, two = (estimate(plan, speeds(plan, evaluation=0.0), [n]).wall for n in (1.0, 2.0))
    assert one is not None
    assert two is not None
    # One CPU has to start the evaluator too; of two one is idle for long.
    assert one.value == pytest.approx(700 + 15 + EVALUATOR_PROCESS_S + CLUSTER_START_S)
    assert two.value == pytest.approx(400 + 5 + 105 + CLUSTER_START_S)  # 400 beside 200, then 100 where the 200 ran


def test_cpus_that_evaluators_share_have_to_do_the_work_of_both():
    plan = Plan(sweep(trainer={"lr_scheduler_type": "cosine", "batch_tokens": 1000}))
    loads = {k: replace(s, loads=Figure(3.0, 0.0, "x")) for k, s in speeds(plan, evaluation=10.0).items()}
    checkpoints = 2 + 4 + 8  # of 100, 200 and 400 steps, every 50
    work = 700 + 3 * 5 + 10 * (checkpoints + 1) + EVALUATOR_PROCESS_S + 3
    both = estimate(plan, loads, [1.0]).wall
    assert both is not None
    assert both.value == pytest.approx(work + CLUSTER_START_S)
    reserved = plan.sweep.model_copy(
        update={"evaluation": plan.sweep.evaluation.model_copy(update={"cpus_per_worker": 1})}
    )
    apart = estimate(Plan(reserved), loads, [1.0, 1.0]).wall
    assert apart is not None
    assert apart.value == pytest.approx(700 + 15 + 10 + CLUSTER_START_S)  # and the last checkpoint
    with pytest.raises(DoesNotFit, match="needs 1 x 1 CPUs; the nodes have 0 beside 1 x 1 for evaluators"):
        estimate(Plan(reserved), loads, [1.0])


def test_the_first_evaluation_of_an_evaluator_loads_what_all_need_and_counts_once():
    plan = Plan(sweep())
    loads = {k: replace(s, loads=Figure(3.0, 0.0, "x")) for k, s in speeds(plan).items()}
    (model,) = estimate(plan, loads).models
    assert model.base.value == pytest.approx(10.0 + 3.0)
    (alone,) = estimate(plan, loads, in_process=True).models
    assert alone.base.value == pytest.approx(10.0)


def test_starting_stands_beside_the_wall_clock_and_is_no_part_of_a_sweep_in_one_process():
    plan = Plan(sweep())
    known = {
        k: replace(s, start_up=Figure(8.0, 0.0, "x"), reused=Figure(2.0, 0.0, "x")) for k, s in speeds(plan).items()
    }
    on_ray, alone = estimate(plan, known, [4.0]), estimate(plan, known, [4.0], in_process=True)
    assert on_ray.starts is not None
    assert on_ray.starts.cluster == Range(CLUSTER_START_S, CLUSTER_START_S / 1.5, CLUSTER_START_S * 1.5)
    assert (on_ray.starts.new, on_ray.starts.again) == (8.0, 2.0)
    assert "8 s of that is Ray itself; an attempt takes 8 s in new processes, 2 s in those of another" in cost_text(
        on_ray
    )
    assert alone.starts is not None
    assert alone.starts.cluster.value == 0.0
    assert estimate(plan, known).starts is None


def test_what_starts_took_is_learnt_from_earlier_sweeps():
    config = {**planned_work(Plan(sweep()))[0].config}
    told = {
        "perf/start_up_s": 6.0,
        "perf/start_up/data_s": 0.5,
        "perf/start_up/model_s": 1.5,
        "perf/reused_processes": 0.0,
    }
    again = {
        "perf/start_up_s": 0.3,
        "perf/start_up/data_s": 0.1,
        "perf/start_up/model_s": 0.1,
        "perf/reused_processes": 1.0,
    }
    rows = [make_row("trial", "s", name, config=config) for name in ("a", "b")]
    for name, metrics, begin in (("a", told, 2.5), ("b", again, 0.4)):
        rows.append(make_row("attempt", "s", name, 1, 0, extra={"workers": 1}))
        for step in (10, 20):
            rows.append(
                make_row("report", "s", name, 1, step, metrics=metrics if step == 10 else {},
                         progress={"tokens": step * 1000.0}, cost={"cpu_s": begin + step * 0.5})
            )  # fmt: skip
    rows.insert(0, make_row("sweep", "s", extra={"spec": {"evaluation": {"suite": "mini", "items": 20}}}))
    rows += [
        make_row("eval", "s", "base-tiny-s", 0, 0, cost={"cpu_s": 2.7}, extra={"status": "done"}),
        *(make_row("eval", "s", name, 1, 20, cost={"cpu_s": 0.3}, extra={"status": "done"}) for name in ("a", "b")),
    ]
    (found,) = measured_speeds([rows], "mini", source="here").values()
    speed = found.over(next(iter(speeds(Plan(sweep())).values())))
    assert speed.start_up.seconds == pytest.approx(4.0 + 2.5)  # process and imports, then what training counts itself
    assert speed.next_start.seconds == pytest.approx(0.1 + 0.4)
    assert speed.loads.seconds == pytest.approx(2.7 - 0.3)
    assert speed.start_up.source == "start-up: here"
    several = found.of_several(0.5)
    assert (several.step.seconds, several.new.seconds) == (found.step.seconds / 2, found.new.seconds + GROUP_START_S)
    assert several.evaluation == found.evaluation
    assert SweepState(rows).start_ups.read().before_training == pytest.approx(4.0 + 0.1)


def test_limits_say_by_how_much_they_are_passed():
    models = {"qwen3-4b": {"path": "/models/q", "workers": 1, "gpus_per_worker": 1}}
    limits = {"gpu_hours": 1.0, "usd": 10.0, "usd_per_gpu_hour": 3.0}
    plan = Plan(sweep(models=models, space={"model": grid("qwen3-4b"), "steps": grid(7200)}, limits=limits))
    over = estimate(plan, speeds(plan, evaluation=0, start_up=0)).over_limits(plan)
    assert [line.split(";")[0] for line in over] == ["limits.gpu_hours is 1"]
    assert "needs about 2 " in over[0]
    assert "100% more" in over[0]


def test_speed_is_read_from_the_journals_of_earlier_sweeps():
    config = {**planned_work(Plan(sweep()))[0].config}
    spec = {"evaluation": {"suite": "mini", "items": 20}}
    rows = [
        make_row("sweep", "s", extra={"spec": spec}),
        make_row("trial", "s", "t", config=config),
        make_row("attempt", "s", "t", 1, 0, extra={"workers": 1}),
        *(make_row("report", "s", "t", 1, n, progress={"tokens": n * 1000.0}, cost={"cpu_s": 3.0 + n * 0.5})
          for n in (10, 20, 40)),
        make_row("eval", "s", "t", 1, 40, cost={"cpu_s": 4.0}, extra={"status": "done"}),
    ]  # fmt: skip
    ((key, found),) = measured_speeds([rows], "mini", source="here").items()
    assert key == key_of(config, 1)
    assert found.step is not None
    assert found.step.seconds * 1000 == pytest.approx(0.5)
    assert found.start_up is not None
    assert found.start_up.seconds == pytest.approx(3.0)
    assert found.evaluation is not None
    assert (found.evaluation.seconds, found.items) == (pytest.approx(4.0), 20)
    assert measured_speeds([rows], "gym", source="here")[key].evaluation is None


def test_a_pace_leaves_out_the_first_steps_of_a_process_which_take_longer():
    config = {**planned_work(Plan(sweep()))[0].config}
    costs = {4: 2.0, 8: 2.8, 12: 3.4, 16: 3.8, 20: 4.2, 24: 4.6}  # 0.2, then 0.15, then 0.1 a step
    rows = [
        make_row("trial", "s", "t", config=config),
        make_row("attempt", "s", "t", 1, 0, extra={"workers": 1}),
        *(
            make_row("report", "s", "t", 1, n, progress={"tokens": n * 1000.0}, cost={"cpu_s": c})
            for n, c in costs.items()
        ),
    ]
    found = measured_speeds([rows], "mini", source="here")[key_of(config, 1)]
    assert found.step is not None
    assert found.step.seconds * 1000 == pytest.approx(0.1)
    assert found.start_up is not None
    assert found.start_up.seconds == pytest.approx(2.0 - 4 * 0.1)


def test_a_published_figure_is_that_of_the_nearest_size_and_says_so():
    assert published_mfu(1e9).parameters == 0.6e9
    assert published_mfu(14e9).parameters == 8e9
    config = {"batch_rows": 0, "batch_tokens": 65_536, "max_length": 8192, "lora_rank": 0, "precision": "bf16"}
    speed = published_speed(
        config, QWEN3_4B, 4_022_000_000, workers=2, on_gpu=True, gpu="H100", replies=[Replies(100, 50, 1000)]
    )
    flops = flops_per_token(QWEN3_4B, 4_022_000_000, 8192, frozen=False) * 65_536
    assert speed.step.seconds == pytest.approx(flops / (PEAK_BF16["H100"] * 0.259 * 2))
    assert "benchmarks.trainer.gpu" in speed.step.source


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags : fpu avx2 avx512_bf16 vaes", True),
        ("Features : fp asimd bf16 i8mm", True),
        ("flags : fpu avx2 avx512f", False),
    ],
)
def test_bf16_on_a_cpu_is_as_fast_as_its_instructions_are(flags, has, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: flags)
    devices.cpu_has_bf16.cache_clear()
    assert devices.cpu_has_bf16() is has

    def step(precision):
        config = {"batch_rows": 0, "batch_tokens": 1024, "max_length": 512, "lora_rank": 0, "precision": precision}
        replies = [Replies(100, 50, 1000)]
        return published_speed(config, QWEN3_4B, 4_022_000_000, workers=1, on_gpu=False, gpu="", replies=replies).step

    assert (step("bf16").seconds < 0.5 * step("fp32").seconds) is has
    assert has or step("bf16").seconds == step("fp32").seconds
    devices.cpu_has_bf16.cache_clear()


def test_processes_start_once_on_each_machine_and_are_there_for_what_follows():
    plan = Plan(sweep())
    slow, quick = Figure(30.0, 0.0, "assumed"), Figure(1.0, 0.0, "assumed")
    known = {key: replace(speed, start_up=slow, reused=quick) for key, speed in speeds(plan).items()}

    def start_up(**more) -> float:
        return sum(m.start_up.value for m in estimate(plan, known, **more).models)

    assert start_up() == 30 + 1 + 1
    assert start_up(nodes=[1.0, 1.0]) == 30 + 30 + 1
    assert start_up(nodes=[8.0]) == 3 * 30
    assert start_up(in_process=True) == 3 * 1
    assert speeds_from_json(speeds_to_json(known)) == known


def test_what_was_measured_stands_for_attempts_that_find_their_processes():
    guess = published_speed(
        {"max_length": 256, "batch_tokens": 512, "batch_rows": 0, "precision": "bf16", "lora_rank": 0},
        {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100},
        100_000, workers=1, on_gpu=False, gpu="H100", replies=[Replies(10, 20, 50)],
    )  # fmt: skip
    found = Measured(start_up=Figure(0.7, 0.1, "earlier sweeps")).over(guess)
    assert found.next_start.seconds == 0.7
    assert found.start_up == guess.start_up
    assert guess.start_up.seconds - guess.next_start.seconds == pytest.approx(START_UP_S["CPU"] - REUSED_S["CPU"])


def test_a_node_is_full_when_its_cpus_are():
    """Workers with one GPU and 8 CPUs each: a node of 8 GPUs and 16 CPUs has room for two of them."""
    items = [TrialWork(f"t{i}", "m", "d", 100, 1, workers=1, cpus=8.0, gpus=1.0, config={}) for i in range(4)]
    took = {item.trial: 10.0 for item in items}
    free = timeline(items, took, [8.0], gpus=True)
    tight = timeline(items, took, [8.0], gpus=True, cpus=[16.0])
    assert [span.start for span in free] == [0.0] * 4
    assert [span.start for span in tight] == [0.0, 0.0, 10.0, 10.0]
    with pytest.raises(DoesNotFit, match="needs 1 x 1 GPUs and 8 CPUs; the nodes have 8 and 4 CPUs or more"):
        timeline(items, took, [8.0], gpus=True, cpus=[4.0])


SMALL = Network(layers=30, active=135_000_000, total=135_000_000, kv_values=2 * 30 * 3 * 64)
LARGE = Network(layers=36, active=4_022_000_000, total=4_022_000_000, kv_values=2 * 36 * 8 * 128)


def test_a_small_model_decodes_as_fast_as_its_layers_are_launched_until_the_longest_reply_ends():
    """One batch of 77 replies of at most 256 tokens: 30 layers, once per token of the longest reply."""
    one = answer_seconds(SMALL, [Replies(77, 80, 256)], 512, gpu="H200")
    assert one == pytest.approx(256 * 30 * LAYER_S["transformers"], rel=0.05)
    assert answer_seconds(SMALL, [Replies(8, 80, 256)], 512, gpu="H200") == pytest.approx(one, rel=0.1)
    assert answer_seconds(SMALL, [Replies(77, 80, 256)] * 3, 512, gpu="H200") == pytest.approx(3 * one)
    assert answer_seconds(SMALL, [Replies(77, 80, 512)], 1024, gpu="H200") == pytest.approx(2 * one, rel=0.05)


def test_a_large_batch_of_a_large_model_is_bound_by_arithmetic_and_a_single_row_by_memory():
    many = answer_seconds(LARGE, [Replies(2048, 10, 1024)], 4096, engine="vllm", gpu="A100")
    tokens = 2048 * 512
    assert many > tokens * 2 * LARGE.active / PEAK_BF16["A100"]
    alone = answer_seconds(LARGE, [Replies(1, 10, 1024)], 2048, engine="vllm", gpu="A100")
    assert alone > 1024 * 2 * LARGE.total / 2.0e12
    assert answer_seconds(LARGE, [], 2048, engine="vllm", gpu="A100") == 0.0


def test_vllm_needs_no_longer_for_replies_that_fit_beside_others():
    kinds = [Replies(20, 50, 64), Replies(20, 50, 512)]
    together = answer_seconds(SMALL, kinds, 4096, engine="vllm", gpu="H100")
    assert together == pytest.approx(answer_seconds(SMALL, kinds[1:], 4096, engine="vllm", gpu="H100"), rel=0.01)
    assert together < answer_seconds(SMALL, kinds, 4096, engine="transformers", gpu="H100") / 5


def test_a_probe_of_few_items_is_scaled_as_batches_grow_and_not_by_the_items():
    """A base's evaluation, which loads what it needs, does not count beside one of a trained checkpoint."""
    config = {"model": "tiny-s", "precision": "fp32", "lora_rank": 0}
    rows = [
        make_row("sweep", "s", spec={"evaluation": {"suite": "mini", "items": 8}}),
        make_row("trial", "s", "t", config=config, budget=20),
        make_row("attempt", "s", "t", 1, 0, workers=1),
        *(make_row("report", "s", "t", 1, n, progress={"tokens": n * 10.0}, cost={"gpu_s": n * 0.5}) for n in (4, 8)),
        make_row("eval", "s", "base-tiny-s", 0, 0, cost={"gpu_s": 30.0, "cpu_s": 31.0}, extra={"status": "done"}),
        make_row("eval", "s", "t", 1, 20, cost={"gpu_s": 4.0, "cpu_s": 3.9}, extra={"status": "done"}),  # both at once
    ]
    (found,) = measured_speeds([rows], "mini", source="here").values()
    assert found.evaluation is not None
    assert (found.evaluation.seconds, found.items) == (4.0, 8)
    assert found.over(next(iter(speeds(Plan(sweep())).values())), 1.5).evaluation.seconds == 6.0
