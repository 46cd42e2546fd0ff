"""Every architecture of the paper trains as it computes: packed gradients are those of one row at a time, by transformers."""

import pytest
import torch
import torch.nn.functional as F

from tests.unit.trainers.model.test_loss import gradient, relative, rows
from trainers.data.batching.packing import collate
from trainers.model.attention import PACKED, choose_kernel, register
from trainers.model.estimates.memory import num_parameters
from trainers.model.load import keeps_names, load_model
from trainers.model.loss import Objective

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "intermediate_size": 64, "max_position_embeddings": 512,
}  # fmt: skip
EXTRA = {"gemma3_text": {"sliding_window": 512, "query_pre_attn_scalar": 16}, "phi3": {"pad_token_id": 0}}


def network(kind, attn):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **EXTRA.get(kind, {}))
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn).train()


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "gemma3_text"])
def test_packed_gradients_of_an_architecture_are_those_of_one_row_at_a_time(kind):
    register()
    table, alone, packed = rows(), network(kind, "eager"), network(kind, PACKED)
    want = 0.0
    for i in range(len(table)):
        ids = torch.tensor(table.ids(i).tolist())
        labels = torch.where(torch.tensor(table.learn(i)), ids, -100)[1:]
        logits = alone(input_ids=ids[None], use_cache=False).logits[0, :-1]
        loss = F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
        loss.backward()
        want += float(loss.detach())
    got = Objective(packed, choose_kernel(torch.device("cpu"), torch.float32))(collate(table, range(len(table))))
    got.backward()
    assert float(got.detach()) == pytest.approx(want, rel=1e-5)
    assert relative(gradient(packed), gradient(alone)) < 1e-5
    assert len(packed.base_model.layers) == 2  # what sharding goes by


def test_of_a_model_that_sees_pictures_the_language_model_is_trained(tmp_path):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**SHAPE, **EXTRA["gemma3_text"]}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    whole.save_pretrained(tmp_path)
    model = load_model(tmp_path, attn=PACKED)
    assert model.config.model_type == "gemma3_text"
    want = whole.model.language_model.state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in model.model.state_dict().items())
    assert num_parameters(whole.config.to_dict()) == pytest.approx(model.num_parameters(), rel=0.02)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "gemma3_text", "mistral", "phi3", "olmo2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_loaded_from_memory_is_the_one_loaded_from_its_files(tmp_path, kind, tied):
    made = network(kind, "eager")
    if not tied:
        made.config.tie_word_embeddings = False
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone() + 1)
    made.generation_config.update(temperature=0.7, top_k=5, do_sample=True, eos_token_id=[3, 5])
    made.save_pretrained(tmp_path)
    assert keeps_names(tmp_path)
    theirs = load_model(tmp_path, attn=PACKED)
    in_memory = {name: tensor.detach().clone() for name, tensor in theirs.named_parameters()}  # tied ones once
    ours = load_model(tmp_path, attn=PACKED, weights_in_memory=in_memory)
    assert type(ours) is type(theirs)
    for part in ("named_parameters", "named_buffers"):
        left, right = (dict(getattr(model, part)()) for model in (ours, theirs))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)
    assert all(tensor.data_ptr() != in_memory[name].data_ptr() for name, tensor in ours.named_parameters())
    for folder, model in (("ours", ours), ("theirs", theirs)):
        model.save_pretrained(tmp_path / folder)
    for file in (tmp_path / "theirs").iterdir():
        assert file.read_bytes() == (tmp_path / "ours" / file.name).read_bytes(), file.name


def test_a_model_whose_weights_are_rearranged_when_saved_is_never_loaded_from_memory(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen3_moe", **SHAPE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert not keeps_names(tmp_path)
