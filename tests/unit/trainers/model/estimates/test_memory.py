"""What a run needs is said before it starts."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from tests.support.models.tiny_sft import Notes, network, tier, trial, write_base
from trainers import loop
from trainers.model.estimates import memory
from trainers.model.estimates.flops import counted, counted_in, feed_forward_width, num_parameters, step_flops
from trainers.model.estimates.memory import HEADROOM, check, device_bytes, estimate

QWEN3_4B = {
    "num_hidden_layers": 36,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
H200 = 141 * 10**9


def config(**settings):
    return TrialSettings.from_config({"model": "m", "data": "d", "steps": 10, "batch_tokens": 16_384, **settings})


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_from_the_config_alone(tied):
    model = network(tie_word_embeddings=tied)
    assert num_parameters(model.config.to_dict()) == pytest.approx(model.num_parameters(), rel=0.02)


def test_qwen3_4b_has_its_four_billion_parameters():
    assert num_parameters(QWEN3_4B) == pytest.approx(4.02e9, rel=0.01)


MIXTRAL = {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "intermediate_size": 14_336, "num_local_experts": 8, "num_experts_per_tok": 2,
           "vocab_size": 32_000}  # fmt: skip
QWEN3_30B = {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
             "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
             "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151_936}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "total", "active", "width"), [(MIXTRAL, 46.7e9, 12.9e9, 2 * 14_336), (QWEN3_30B, 30.5e9, 3.35e9, 8 * 768)]
)
def test_a_mixture_of_experts_has_all_its_experts_in_memory_and_asks_some_of_them(model, total, active, width):
    """Published: Mixtral-8x7B 46.7B, 12.9B active; Qwen3-30B-A3B 30.5B, 3.3B active."""
    assert counted(model).total == pytest.approx(total, rel=0.01)
    assert counted(model).active == pytest.approx(active, rel=0.01)
    assert feed_forward_width(model) == width
    need = estimate(config(precision="fp32"), model, world=1)
    assert need.states == 16 * counted(model).total


def test_a_mixture_that_transformers_does_not_know_is_not_estimated_but_told(caplog):
    unknown = {**MIXTRAL, "model_type": "mixture-of-mine"}
    assert check(config(), unknown, 1, H200) is None
    assert "cannot build its mixture of 8 experts" in caplog.text


def test_a_loaded_mixture_counts_what_a_token_passes_through():
    small = {**MIXTRAL, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 128,
             "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    values = dict(small)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    assert counted_in(made) == counted(small)
    assert counted(small).total - counted(small).active == 2 * 3 * 32 * 64 * 6  # six of eight experts in two layers


def test_states_take_sixteen_bytes_a_parameter_and_are_shared_among_workers():
    need = estimate(config(precision="fp32"), QWEN3_4B, world=1)
    assert need.weights + need.gradients + need.adam == 16 * num_parameters(QWEN3_4B)
    shared = estimate(config(precision="fp32"), QWEN3_4B, world=8)
    assert shared.adam == need.adam // 8


def test_recomputing_and_smaller_packs_lower_the_activations_only():
    whole, recomputed = (estimate(config(gradient_checkpointing=r), QWEN3_4B, 1) for r in (False, True))
    halved = estimate(config(pack_tokens=8_192), QWEN3_4B, 1)
    assert recomputed.activations < whole.activations / 4
    assert halved.activations == whole.activations // 2
    assert whole.adam == recomputed.adam == halved.adam


def test_what_fits_is_let_through_in_silence(caplog):
    assert check(config(pack_tokens=4096), QWEN3_4B, 1, H200).total < H200
    assert not caplog.records


def test_states_that_cannot_fit_are_refused_with_the_numbers_and_the_knobs():
    with pytest.raises(InputError) as caught:
        check(config(precision="fp32"), QWEN3_4B, 1, 60 * 10**9)
    for part in (
        "about",
        "on each of 1 devices of 60.0 GB",
        "workers",
        "pack_tokens",
        "gradient_checkpointing",
        "precision: bf16",
    ):
        assert part in str(caught.value)


def test_activations_that_may_not_fit_are_a_warning(caplog):
    check(config(), QWEN3_4B, 1, 80 * 10**9)
    assert "gradient_checkpointing: true" in caplog.text


def test_a_worker_of_half_a_device_is_held_against_half_of_it_and_refused_by_the_whole(caplog):
    need = estimate(config(), QWEN3_4B, 1)
    device = int(need.total / HEADROOM) + 1
    assert check(config(), QWEN3_4B, 1, device) == check(config(), QWEN3_4B, 1, device, share=2.0) == need
    assert not caplog.records
    assert check(config(), QWEN3_4B, 1, device, share=0.5) == need
    assert "for each of 1 workers, which reserve 0.5 of a device of" in caplog.text
    assert "gpus_per_worker: 1 (now 0.5)" in caplog.text
    with pytest.raises(InputError, match=r"which reserve 0\.5 of a device"):
        check(config(), QWEN3_4B, 1, need.states - 1, share=0.5)


def test_operations_of_a_step_follow_weights_labels_and_row_lengths():
    model = network().config
    layers = 2 * (32 * 16 * (2 * 2 + 2 * 1) + 3 * 32 * 64)
    head = 64 * 32
    attention = 6 * 2 * 2 * 16
    assert step_flops(model, layers + head, [10, 20], 12) == 6 * layers * 30 + 6 * head * 12 + attention * 500


def test_a_shape_that_cannot_be_read_is_let_through():
    assert check(config(), {"n_embd": 768}, 1, H200) is None


def test_the_memory_of_this_machine_is_known():
    assert 2**28 < device_bytes(torch.device("cpu")) < 2**50


def test_a_model_that_no_memory_of_this_machine_can_hold_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    base = write_base(tmp_path / "base")
    monkeypatch.setattr(memory, "device_bytes", lambda device: 100_000)
    monkeypatch.setattr(loop, "load_model", None)
    with pytest.raises(InputError, match=r"needs about 0\.0 GB .* on each of 1 devices of 0\.0 GB; what would help"):
        loop.train(trial(base, (2,)), Notes(), folder=tmp_path / "run", data=tier())


def test_a_loop_holds_what_it_needs_against_the_share_of_a_device_that_its_workers_reserve(tmp_path, monkeypatch):
    base, shares = write_base(tmp_path / "base"), []

    def looked(*given, share):
        shares.append(share)
        raise InputError("looked at")

    monkeypatch.setattr(memory, "check", looked)
    monkeypatch.setattr(loop, "_device", lambda trial: torch.device("cpu"))
    for gpus in (0.0, 0.5, 2.0):
        spec = trial(base, (2,))
        spec = replace(spec, model=replace(spec.model, gpus_per_worker=gpus))
        with pytest.raises(InputError, match="looked at"):
            loop.train(spec, Notes(), folder=tmp_path / "run", data=tier())
    assert shares == [1.0, 0.5, 2.0]
