"""Adapters on frozen weights: what is trained, what is saved, how it goes on."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError, StorageError
from tests.support.models import tiny_sft
from tests.support.models.tiny_sft import network, same_to_the_bit, write_base
from trainers.checkpoint import STATE
from trainers.export import export
from trainers.model import lora
from trainers.model.attention import PACKED, register
from trainers.model.estimates.flops import num_adapter_parameters, step_flops
from trainers.model.estimates.memory import estimate
from trainers.model.load import load_model

pytest.importorskip("peft")
SNAPSHOTS = (4, 8)
LORA = {"lora_rank": 4, "lora_alpha": 16.0, "learning_rate": 3e-2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("model") / "base")


def run(base, folder, *, snapshots=SNAPSHOTS, **how):
    return tiny_sft.run(base, folder, snapshots, **{**LORA, **how})


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    return run(base, tmp_path_factory.mktemp("whole"))


def config(**settings):
    return TrialSettings.from_config({"model": "m", "data": "d", "steps": 10, "lora_rank": 4, **settings})


def test_the_loss_falls(base, tmp_path):
    notes = run(base, tmp_path, snapshots=(40,))
    losses = [m["train/loss"] for m in notes.reports.values()]
    assert losses[-1] < 0.95 * losses[0]


def test_only_the_targets_have_moved_and_by_a_matrix_of_low_rank(base, whole):
    before = load_model(base).state_dict()
    after = load_model(whole.checkpoints[-1].path).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "_proj.weight" in name}
    change = after["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"]
    assert torch.linalg.matrix_rank(change, atol=1e-5) == 4


def test_the_optimizer_holds_adapters_only(whole):
    state = load_file(Path(whole.checkpoints[-1].path) / STATE)
    moments = {name for name in state if name.startswith("adam/")}
    assert moments
    assert all(".lora_A." in name or ".lora_B." in name for name in moments)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_it_repeats_the_run_to_the_bit(base, tmp_path, precision):
    full = run(base, tmp_path / "full", precision=precision)
    resumed = run(base, tmp_path / "resumed", precision=precision, resume=full.checkpoints[0])
    assert resumed.trained() == {step: m for step, m in full.trained().items() if step > SNAPSHOTS[0]}
    assert same_to_the_bit(resumed, full)


def test_a_checkpoint_computes_what_the_adapted_network_did(base, whole, tmp_path):
    """Merged weights on the next step's rows against adapters beside the base: the loss that the run itself reports."""
    longer = run(base, tmp_path / "longer", logging_steps=1)
    merged = run(whole.checkpoints[0].path, tmp_path / "merged", lora_rank=0, learning_rate=1e-9, logging_steps=1)
    again = run(base, tmp_path / "again", resume=whole.checkpoints[0], logging_steps=1)
    assert again.reports[5]["train/loss"] == longer.reports[5]["train/loss"]
    first = run(base, tmp_path / "first", learning_rate=1e-9, logging_steps=1)
    assert merged.reports[1]["train/loss"] < first.reports[1]["train/loss"]


def test_an_export_is_a_plain_folder_without_a_trace_of_adapters(whole, tmp_path):
    target = export(whole.checkpoints[-1].path, tmp_path / "out")
    assert not [name for name in load_file(target / "model.safetensors") if "lora" in name or "base_layer" in name]
    assert json.loads((target / "config.json").read_text())["dtype"] == "float32"
    assert load_model(target).num_parameters() == load_model(whole.checkpoints[-1].path).num_parameters()


def test_merging_adds_the_scaled_product_to_the_layer():
    register()
    model = network(PACKED)
    settings = config(lora_alpha=8.0)
    lora.attach(model, settings)
    with torch.no_grad():
        for _, parameter in lora.trainable(model):
            parameter.normal_()
    layer = model.model.layers[1].self_attn.q_proj
    out = lora.merged(dict(model.named_parameters()), settings)
    want = layer.base_layer.weight + layer.get_delta_weight("default")
    torch.testing.assert_close(out["model.layers.1.self_attn.q_proj.weight"], want)
    assert out.keys() == dict(network().named_parameters()).keys()


@pytest.mark.parametrize(
    ("kind", "attention", "mlp"),
    [
        ("phi3", {"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
        ("glm4", {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
        ("gpt_neox", {"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    ],
)
def test_targets_are_all_that_a_layer_has_under_whatever_name(kind, attention, mlp):
    model = hollow(kind)
    for targets, wanted in (("attention", attention), ("mlp", mlp), ("all-linear", attention | mlp)):
        found = lora.target_layers(model, config(lora_target_modules=targets))
        assert {name.rpartition(".")[2] for name in found} == wanted


def test_experts_are_no_linear_layers_and_get_no_adapters_in_silence():
    model = hollow("qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    for targets in ("all-linear", "mlp"):
        with pytest.raises(
            InputError, match="adapters do not reach the experts of a qwen3_moe model; expected attention"
        ):
            lora.attach(model, config(lora_target_modules=targets))
        with pytest.raises(InputError, match="do not reach the experts"):  # seen by validate, from the config alone
            estimate(config(lora_target_modules=targets), model.config.to_dict(), 1)
    lora.attach(model, config(lora_target_modules="attention"))


def hollow(kind, **settings):
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"intermediate_size": 48, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **settings))


def test_the_config_of_a_checkpoint_names_the_type_of_its_merged_weights(base, tmp_path):
    checkpoint = run(base, tmp_path, snapshots=(1,), precision="bf16").checkpoints[-1].path
    stored = load_file(Path(checkpoint) / "model.safetensors")
    as_others_load_it = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    assert {t.dtype for t in stored.values()} == {torch.float32}
    assert all(torch.equal(as_others_load_it[name], tensor) for name, tensor in stored.items())


def test_adapters_start_from_the_seed_and_change_nothing_at_first():
    register()
    first, again, other = (network(PACKED) for _ in range(3))
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        lora.attach(model, config(seed=seed))
    downs = [dict(lora.trainable(m))["model.layers.0.mlp.up_proj.lora_A.default.weight"] for m in (first, again, other)]
    assert torch.equal(downs[0], downs[1])
    assert not torch.equal(downs[0], downs[2])
    assert all(not p.any() for name, p in lora.trainable(first) if "lora_B" in name)


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp"])
def test_adapters_are_counted_from_the_config_alone(targets):
    register()
    model, settings = network(PACKED), config(lora_target_modules=targets)
    lora.attach(model, settings)
    assert num_adapter_parameters(settings, model.config.to_dict()) == sum(p.numel() for _, p in lora.trainable(model))


def test_adapters_need_a_fraction_of_the_memory_and_two_thirds_of_the_work():
    shape = network().config
    full, low = (estimate(config(lora_rank=r), shape.to_dict(), 1) for r in (0, 4))
    assert low.gradients + low.adam < 0.5 * (full.gradients + full.adam)
    assert low.weights < full.weights
    assert step_flops(shape, 1000, [0], 0, frozen=True) == pytest.approx(step_flops(shape, 1000, [0], 0) * 2 / 3)


def test_adapters_of_another_rank_are_not_taken_up(base, whole, tmp_path):
    with pytest.raises(StorageError, match="of other lora settings"):
        run(base, tmp_path, resume=whole.checkpoints[0], lora_rank=2)


def test_a_full_run_is_no_start_for_adapters_nor_the_other_way_round(base, whole, tmp_path):
    full = run(base, tmp_path / "full", lora_rank=0, learning_rate=3e-3)
    for settings, start in (({}, full), ({"lora_rank": 0}, whole)):
        with pytest.raises(StorageError, match="no optimizer state"):
            run(base, tmp_path / "next", resume=start.checkpoints[0], **settings)


def test_without_peft_the_command_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'dipsweep\[lora\]'"):
        lora.attach(network(), config())
