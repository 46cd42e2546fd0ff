"""Every setting that does nothing beside another one: refused by name, or told; where it does something, it is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.run_sweep import run
from sweeps import Sweep, choice, grid, uniform, zipped
from sweeps.config.blocks import EvaluationBlock, StoppingBlock, TrainerBlock
from sweeps.config.checks.unused import NEEDS, in_process_notes, unused_notes
from sweeps.errors import InputError, SpecError

WSD, LORA = {"lr_scheduler_type": "wsd"}, {"lora_rank": 8}
OWN = {"ours": {"path": "/data/ours.jsonl"}}
LM_EVAL = {"suite": "lm-eval:math/gsm8k"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "decay under cosine": ({"trainer": {"decay": 0.3}}, "trainer.decay"),
    "decay under constant": ({"trainer": {"decay": 0.3, "lr_scheduler_type": "constant"}}, "trainer.decay"),
    "a floor under constant": ({"trainer": {"min_lr_rate": 0.1, "lr_scheduler_type": "constant"}}, "trainer.min_lr_rate"),
    "alpha without adapters": ({"trainer": {"lora_alpha": 16.0}}, "trainer.lora_alpha"),
    "targets without adapters": ({"trainer": {"lora_target_modules": "mlp"}}, "trainer.lora_target_modules"),
    "an axis of decay under cosine": ({"space": {"decay": grid(0.1, 0.2)}}, "space.decay"),
    "an axis of decay for some schedules": (
        {"space": {"lr_scheduler_type": grid("wsd", "cosine"), "decay": grid(0.1, 0.2)}}, "space.decay"),
    "a condition on the wrong schedule": (
        {"space": {"lr_scheduler_type": grid("wsd", "cosine"),
                   "decay": grid(0.1, 0.2, when={"lr_scheduler_type": "cosine"})}}, "space.decay"),
    "a sampled alpha without adapters": (
        {"space": {"lora_alpha": uniform(8.0, 64.0)}, "search": {"algorithm": "random", "trials": 4}}, "space.lora_alpha"),
    "a sampled alpha where the rank may be 0": (
        {"space": {"lora_rank": choice(0, 8), "lora_alpha": uniform(8.0, 64.0)},
         "search": {"algorithm": "random", "trials": 4}}, "space.lora_alpha"),
    "columns of a built-in tier": ({"tiers": {"answer-only": {"columns": {"messages": "m"}}}}, "tiers.answer-only.columns"),
    "bad rows of a built-in tier": ({"tiers": {"answer-only": {"max_bad_rows": 0.1}}}, "tiers.answer-only.max_bad_rows"),
    "long rows of a built-in tier": ({"tiers": {"answer-only": {"max_long_rows": 0.1}}}, "tiers.answer-only.max_long_rows"),
    "settings of test time under lm-eval": ({"evaluation": {**LM_EVAL, "test_time": ["@8"]}}, "evaluation.test_time"),
    "a judge under lm-eval": ({"evaluation": {**LM_EVAL, "judge": "/m"}}, "evaluation.judge"),
    "all replies of lm-eval": ({"evaluation": {**LM_EVAL, "keep_replies": "all"}}, "evaluation.keep_replies"),
    "an early end under lm-eval": ({"evaluation": {**LM_EVAL, "stop_early": 0.05}}, "evaluation.stop_early"),
    "trials of a grid": ({"space": {"replay": grid(0.0, 0.1)}, "search": {"trials": 4}}, "search.trials"),
}  # fmt: skip
RULES_OF = {
    "protect": ("soft", {"dip-aware"}),
    "max_lost_winners": (0.2, {"dip-aware"}),
    "risk": (0.2, {"dip-aware"}),
    "patience": (3.0, {"dip-aware", "patient"}),
    "grace": (10, {"asha", "median", "hyperband", "patient"}),
    "reduction": (3.0, {"asha", "hyperband"}),
    "experience": ("./runs", {"dip-aware"}),
}
TAKEN: dict[str, dict[str, Any]] = {
    "decay under wsd": {"trainer": {**WSD, "decay": 0.3}},
    "a floor under linear": {"trainer": {"lr_scheduler_type": "linear", "min_lr_rate": 0.1}},
    "alpha of adapters": {"trainer": {**LORA, "lora_alpha": 16.0, "lora_target_modules": "mlp"}},
    "an axis of decay under wsd": {"trainer": WSD, "space": {"decay": grid(0.1, 0.2)}},
    "a conditional axis": {
        "space": {"lr_scheduler_type": grid("wsd", "cosine"), "decay": grid(0.1, 0.2, when={"lr_scheduler_type": "wsd"})}},
    "a default for one of several schedules": {
        "trainer": {"decay": 0.3}, "space": {"lr_scheduler_type": grid("wsd", "cosine")}},
    "pairs": {"space": {"pairs": zipped(lr_scheduler_type=["wsd", "cosine"], decay=[0.1, 0.2])}},
    "a sampled alpha": {"trainer": LORA, "space": {"lora_alpha": uniform(8.0, 64.0)},
                        "search": {"algorithm": "random", "trials": 4}},
    "limits of an own tier": {"tiers": {"ours": {**OWN["ours"], "columns": {"messages": "m"}, "max_bad_rows": 0.1}}},
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=list(REFUSED))
def test_a_setting_that_nothing_would_use_is_refused(case: str):
    keys, where = REFUSED[case]
    with pytest.raises(SpecError) as refused:
        Sweep(name="x", **keys)
    assert [fault.where for fault in refused.value.faults] == [where]


@pytest.mark.parametrize("case", TAKEN, ids=list(TAKEN))
def test_one_that_has_an_effect_is_taken(case: str):
    assert Sweep(name="x", **TAKEN[case])


@pytest.mark.parametrize("rule", ["none", "dip-aware", "asha", "median", "hyperband", "patient"])
@pytest.mark.parametrize("setting", RULES_OF)
def test_a_setting_of_another_rule_is_refused(rule: str, setting: str):
    value, rules = RULES_OF[setting]
    if rule in rules:
        taken = Sweep(name="x", stopping={"rule": rule, setting: value}).stopping
        # What the rule is made with; experience reaches it through the sweep's first row.
        assert taken.rule_settings == ({} if setting == "experience" else {setting: value})
    else:
        with pytest.raises(SpecError, match=f"stopping.{setting}: got .* but rule '{rule}' has no {setting}"):
            Sweep(name="x", stopping={"rule": rule, setting: value})


def test_every_rule_setting_of_the_schema_stands_in_the_table():
    assert {*RULES_OF, "rule", "top"} == set(StoppingBlock.model_fields)


def test_what_may_be_meant_is_told():
    sweep = Sweep(name="x", models={"a": {"path": "/a"}, "b": {"path": "/b"}}, tiers=OWN | {"more": {"path": "/m.jsonl"}},
                  trainer={"learning_rate": 1e-3}, space={"learning_rate": grid(1e-4, 2e-4)})  # fmt: skip
    assert unused_notes(sweep) == [
        "models.b is not used: no trial has this model",
        "tiers.more is not used: no trial has this data",
        "trainer.learning_rate 0.001 is not used: space.learning_rate gives every trial its own",
    ]
    assert unused_notes(Sweep(name="x", space={"learning_rate": grid(1e-4, 2e-4)})) == []


def test_what_a_run_in_one_process_leaves_out_is_told():
    sweep = Sweep(
        name="x", models={"tiny-s": {"workers": 2}}, evaluation={"workers": 3, "backlog": 2}, limits={"weight": 2.0}
    )
    told = in_process_notes(sweep)
    assert [line.split(" is not used")[0] for line in told] == [
        "models.tiny-s.workers 2", "evaluation.workers 3", "evaluation.backlog 2", "limits.weight 2"
    ]  # fmt: skip
    assert in_process_notes(Sweep(name="x")) == []


@pytest.mark.parametrize("option", [{"cpus": 2}, {"dashboard": True}, {"address": "auto"}])
def test_options_of_ray_are_refused_without_ray(option: dict[str, Any], tmp_path: Path):
    with pytest.raises(InputError, match=f"{next(iter(option))}: got .*starts and joins no Ray"):
        run(Sweep(name="x"), storage=tmp_path, backend="in-process", **option)
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_ray_started_here_are_refused_beside_an_address(tmp_path: Path):
    with pytest.raises(InputError, match="got cpus beside address auto"):
        run(Sweep(name="x"), storage=tmp_path, address="auto", cpus=2)


def test_the_table_names_settings_of_the_schema():
    assert {name for need in NEEDS for name in (need.setting, need.control)} <= set(TrainerBlock.model_fields)
    assert {"test_time", "judge", "keep_replies"} <= set(EvaluationBlock.model_fields)
