"""Generation settings of a base, as its checkpoints have them."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from tests.support.models.tiny_sft import run, write_base
from trainers.model.generation import context_of


@pytest.mark.parametrize(
    ("base", "saved"),
    [
        (
            {"temperature": 0.9, "top_p": 0.6},
            {"do_sample": True, "temperature": 0.9, "top_p": 0.6, "eos_token_id": [1]},
        ),
        ({"do_sample": True, "top_k": 20, "eos_token_id": 1}, {"do_sample": True, "top_k": 20, "eos_token_id": [1]}),
        ({"length_penalty": 2.0, "pad_token_id": 0}, {"pad_token_id": 0, "eos_token_id": [1]}),
        ({"eos_token_id": [1, 5]}, {"eos_token_id": [1, 5]}),
    ],
)
def test_settings_that_transformers_does_not_save_fail_no_trial(tmp_path, base, saved):
    folder = write_base(tmp_path / "base")
    (folder / "generation_config.json").write_text(json.dumps(base))
    checkpoint = Path(run(folder, tmp_path / "run", (1,)).checkpoints[-1].path)
    found = json.loads((checkpoint / "generation_config.json").read_text())
    del found["transformers_version"]
    assert found == saved


LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("kind", "positions", "rope", "context"),
    [
        ("qwen3", 64, {"rope_type": "default"}, 64),
        ("qwen3", 64, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ("qwen3", 128, {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}, 64),
        ("qwen3", 64, {"rope_type": "yarn", "factor": 4.0}, 256),
        ("llama", 128, {**LLAMA3, "original_max_position_embeddings": 8}, 128),
        ("olmo3", 64, {"full_attention": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
                       "sliding_attention": {"rope_type": "default"}}, 128),
    ],
)  # fmt: skip
def test_a_context_is_what_vllm_makes_of_it(kind, positions, rope, context):
    assert context_of(AutoConfig.for_model(kind, max_position_embeddings=positions, rope_parameters=rope)) == context
