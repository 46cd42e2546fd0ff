"""A model whose weights do not belong to its config is refused: from the headers before anything starts, and when loaded."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from sweeps.errors import InputError
from tests.support.models.hollow_models import write_hollow
from tests.support.models.tiny_sft import network, write_base
from trainers.model.files.weights import check_finite, check_weights, stored_tensors
from trainers.model.load import load_model, model_without_weights


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(base, tmp_path):
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def rewrite(folder, change):
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def check(folder):
    return check_weights(folder, model_without_weights(folder))


def refused(folder, message):
    """Both ways of looking refuse the folder, in the same words."""
    with pytest.raises(InputError, match=message):
        check(folder)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_weights_that_fit_are_taken(folder):
    assert check(folder) == ""
    load_model(folder)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_names_with_a_wrapper_s_prefix_are_refused(folder, prefix):
    rewrite(folder, lambda tensors: {prefix + name: t for name, t in tensors.items()})
    refused(folder, f"the names begin with '{prefix}'")


def test_a_layer_that_is_missing_is_refused(folder):
    rewrite(folder, lambda tensors: {n: t for n, t in tensors.items() if ".layers.1." not in n})
    refused(folder, "lacks model.layers.1.input_layernorm.weight")


def test_layers_without_a_place_are_refused(folder):
    configure(folder, num_hidden_layers=1, layer_types=["full_attention"])
    refused(folder, r"holds model\.layers\.1\..*, for which the config has no place")


def test_a_bias_without_a_place_is_refused_and_a_value_head_is_not(folder):
    rewrite(folder, lambda tensors: tensors | {"v_head.summary.weight": torch.zeros(2)})
    assert check(folder) == ""
    load_model(folder)
    rewrite(folder, lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})
    refused(folder, r"holds model\.layers\.0\.self_attn\.q_proj\.bias, for which the config has no place")


def test_untied_weights_without_a_head_are_refused(folder):
    configure(folder, tie_word_embeddings=False)
    refused(folder, "lacks lm_head.weight")


def test_another_shape_is_refused(folder):
    configure(folder, intermediate_size=48)
    refused(folder, r"mlp\.down_proj\.weight of shape \[32, 64\] where the config asks for \[32, 48\]")


def test_weights_that_are_not_finite_are_refused(folder):
    def spoil(tensors):
        tensors["model.norm.weight"][3] = float("nan")
        return tensors

    rewrite(folder, spoil)
    with pytest.raises(InputError, match=r"no finite numbers: model\.norm\.weight"):
        check_finite(folder, stored_tensors(folder))
    with pytest.raises(InputError, match=r"no finite numbers: model\.norm\.weight"):
        load_model(folder)


def test_the_trainers_state_in_a_checkpoint_is_none_of_its_weights(folder):
    save_file({"adam/model": torch.full((2,), torch.nan)}, folder / "trainer.safetensors")
    check_finite(folder, stored_tensors(folder))


def sharded(folder):
    network().save_pretrained(folder, max_shard_size="30KB")
    (folder / "model.safetensors").unlink()
    return sorted(folder.glob("model-*.safetensors"))


def test_a_shard_that_is_missing_is_named(folder):
    first, *_ = sharded(folder)
    assert check(folder) == ""
    first.unlink()
    refused(folder, f"lacks {first.name}, which model.safetensors.index.json names")


def test_a_shard_that_is_cut_short_is_named(folder):
    first, *_ = sharded(folder)
    first.write_bytes(first.read_bytes()[:-100])
    refused(folder, f"{first.name} is cut short")


def test_a_pointer_of_git_lfs_is_called_one(folder):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    (folder / "model.safetensors").write_bytes(pointer)
    refused(folder, "is a Git LFS pointer")


def test_the_weights_of_another_dtype_fit(folder):
    rewrite(folder, lambda tensors: {n: t.to(torch.bfloat16) for n, t in tensors.items()})
    assert check(folder) == ""


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16},
    "gpt_oss": {"num_local_experts": 4, "layer_types": ["full_attention", "full_attention"]},
    "olmoe": {"num_experts": 4, "pad_token_id": 0, "eos_token_id": 1},
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_experts_are_compared_one_by_one_as_they_stand_in_files(kind, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64}  # fmt: skip
    config = AutoConfig.for_model(kind, **shape, **MIXTURES[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert check(tmp_path) == ""
    names = [name for name in load_file(tmp_path / "model.safetensors") if "experts" in name and ".1." in name]
    rewrite(tmp_path, lambda tensors: {n: t for n, t in tensors.items() if n != names[-1]})
    with pytest.raises(InputError, match=f"lacks .*{re.escape(names[-1])}"):
        check(tmp_path)


def test_a_model_of_twenty_billion_parameters_is_looked_at_by_its_headers(tmp_path):
    from transformers import AutoConfig

    shape = {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8,
             "head_dim": 128, "intermediate_size": 27648, "vocab_size": 152064, "tie_word_embeddings": False}  # fmt: skip
    folder = write_hollow(tmp_path / "model", AutoConfig.for_model("qwen3", **shape))
    shards = sorted(folder.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in shards) > 40e9
    assert check(folder) == ""
    with open(shards[3], "r+b") as file:
        file.truncate(shards[3].stat().st_size - 2)
    with pytest.raises(InputError, match=f"{shards[3].name} is cut short"):
        check(folder)


def test_the_packaged_models_fit():
    from trainers.model.files.builtin import BUILTIN, builtin_folder

    assert [check(builtin_folder(name)) for name in BUILTIN] == [""] * len(BUILTIN)
