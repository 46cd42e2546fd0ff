"""The paper's models by name: their sizes, what they need, and what a sweep makes of that."""

import json

import pytest

from sweeps import Sweep, grid
from sweeps.config.blocks import TrialSettings
from sweeps.config.known_models import KNOWN, known_model
from sweeps.config.plan import Plan
from sweeps.errors import InputError, SpecError
from trainers.model.estimates.memory import HEADROOM, estimate, num_parameters
from trainers.model.load import load_model

DEVICE = 80e9
PUBLISHED = {
    "qwen3-0.6b": 0.6e9, "qwen3-1.7b": 1.7e9, "qwen3-4b": 4.0e9, "qwen3-8b": 8.2e9, "qwen3-14b": 14.8e9,
    "qwen2.5-0.5b": 0.49e9, "qwen2.5-1.5b": 1.54e9, "qwen2.5-3b": 3.09e9, "qwen2.5-7b": 7.61e9, "qwen2.5-14b": 14.7e9,
    "internlm2.5-20b": 19.9e9, "gemma3-27b": 27.0e9,
}  # fmt: skip
"""Parameters as the models' own pages give them."""


def test_the_shapes_have_the_published_numbers_of_parameters():
    assert KNOWN.keys() == PUBLISHED.keys()
    for name, model in KNOWN.items():
        assert num_parameters(model.shape.config()) == pytest.approx(PUBLISHED[name], rel=0.02), name


def needs(name, devices, **settings):
    """Bytes on each of `devices` for packs of 16,384 tokens with activation checkpointing, as the table's head says."""
    packs = {"batch_tokens": 65_536, "pack_tokens": 16_384, "max_length": 16_384, "gradient_checkpointing": True}
    config = TrialSettings.from_config({"model": name, "data": "d", "steps": 1, **packs, **settings})
    return estimate(config, KNOWN[name].shape.config(), devices).total


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_asks_for_the_fewest_devices_that_are_enough(name):
    gpus = KNOWN[name].gpus
    assert needs(name, gpus) <= HEADROOM * DEVICE
    assert gpus == 1 or needs(name, gpus // 2) > HEADROOM * DEVICE


def test_the_arithmetic_of_qwen3_4b_by_hand():
    """4.02e9 parameters x 16 bytes / 2 devices = 32.2 GB of states, plus a bf16 layer, activations and the head."""
    states = 16 * 4_022_000_000 / 2
    layer = 2 * 4_022_000_000 / 36
    inputs = 16_384 * 2560 * 4 * 36
    inside_one_layer = 16_384 * (2560 * (8 + 6 * 2) + 9728 * 3 * 2)
    head = 2048 * 151_936 * (4 + 2) + 4 * 2560 * 151_936
    assert needs("qwen3-4b", 2) == pytest.approx(states + layer + inputs + inside_one_layer + head, rel=0.01)


def test_adapters_let_the_14b_train_on_one_device():
    assert needs("qwen3-14b", 1) > 3 * DEVICE
    assert needs("qwen3-14b", 1, lora_rank=16) <= HEADROOM * DEVICE


@pytest.mark.parametrize("spelt", ["qwen3-4b", "Qwen3-4B-Base", "Qwen/Qwen3-4B-Base", "qwen3_4b"])
def test_a_model_is_known_however_it_is_spelt(spelt):
    assert known_model(spelt) is KNOWN["qwen3-4b"]
    assert known_model("mine") is None


@pytest.mark.parametrize(
    ("block", "workers", "gpus"),
    [
        ({"path": "s3://models/q"}, 8, 1.0),
        ({"path": "s3://models/q", "workers": 4}, 4, 1.0),
        ({"path": "s3://models/q", "gpus_per_worker": 0.0}, 1, 0.0),
        ({"path": "s3://models/q", "workers": 2, "gpus_per_worker": 2.0}, 2, 2.0),
    ],
)
def test_a_known_name_brings_what_it_needs_and_what_the_file_says_goes_first(block, workers, gpus):
    source = Sweep(name="x", models={"qwen3-14b": block}).model_source("qwen3-14b")
    assert (source.workers, source.gpus_per_worker) == (workers, gpus)


def test_other_names_need_one_worker_without_a_gpu():
    source = Sweep(name="x", models={"mine": {"path": "s3://models/q"}}).model_source("mine")
    assert (source.workers, source.gpus_per_worker) == (1, 0.0)


def test_a_model_with_code_of_its_own_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internlm2", "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(InputError, match="convert its weights to a Llama folder"):
        load_model(tmp_path)


def test_a_known_name_without_a_path_is_told_to_give_one():
    with pytest.raises(SpecError, match=r"models\.qwen3-4b\.path: missing; Qwen/Qwen3-4B-Base does not ship"):
        Sweep(name="x", models={"qwen3-4b": {}})


def test_packs_larger_than_a_step_are_refused_before_anything_starts():
    with pytest.raises(SpecError, match=r"trainer\.pack_tokens: got 8192, but a step has batch_tokens 4096"):
        Sweep(name="x", trainer={"pack_tokens": 8192}, space={"batch_tokens": grid(4096, 16_384)})


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"lora_rank": -1}, r"trainer\.lora_rank: got -1 \(a whole number\); expected a number >= 0"),
        ({"lora_target_modules": "attn"}, "one of all-linear, attention, mlp"),
        ({"long_rows": "cut"}, "one of drop, cut-prompt, cut-answer"),
        ({"batch_rows": 1.5}, r"trainer\.batch_rows"),
    ],
)
def test_bad_settings_of_the_worker_are_named(trainer, message):
    with pytest.raises(SpecError, match=message):
        Sweep(name="x", trainer=trainer)


def test_rank_and_rows_can_be_searched():
    sweep = Sweep(name="x", space={"lora_rank": grid(0, 8, 16), "batch_rows": grid(0, 32)})
    configs = [TrialSettings.from_config(t.config) for t in Plan(sweep).known_trials()]
    assert {(c.lora_rank, c.batch_rows) for c in configs} == {(r, b) for r in (0, 8, 16) for b in (0, 32)}
