"""A pack computes what its rows would alone, for every rope type that transformers has; or the model is refused by name."""

import pytest
import torch
import torch.nn.functional as F
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sweeps.errors import InputError
from tests.unit.trainers.model.test_architectures import SHAPE
from trainers.data.batching.packing import collate, split_step
from trainers.data.chat.rows import Rows
from trainers.model.attention import PACKED, attend, choose_kernel, register
from trainers.model.loss import Objective
from trainers.model.packable import STATIC_ROPES, attention_window, check_packable

ORIGINAL = 32
LENGTHS = (50, 30, 20, 40, 8, 32, 33)
ROPES = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": ORIGINAL},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "proportional": {"partial_rotary_factor": 0.5},
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [float(i + 1) for i in range(8)], "factor": 4.0,
                 "original_max_position_embeddings": ORIGINAL},
}  # fmt: skip


def network(rope, attn, kind="llama", **settings):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {**SHAPE, "max_position_embeddings": 128, **settings}
    config = AutoConfig.for_model(
        kind, **shape, rope_parameters={"rope_type": rope, "rope_theta": 10000.0, **ROPES[rope]}
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn).eval()


def table():
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 64, (n,), generator=draw).tolist() for n in LENGTHS]
    return Rows.of([(row, [True] * len(row)) for row in ids])


def test_every_rope_type_of_transformers_is_tried_here():
    assert ROPES.keys() >= ROPE_INIT_FUNCTIONS.keys()
    assert ROPES.keys() == STATIC_ROPES | {"dynamic", "longrope"}


def test_a_rope_type_that_is_not_known_is_refused_by_name():
    model = network("default", "eager")
    model.config.rope_parameters["rope_type"] = "spiral"
    with pytest.raises(InputError, match="rotary embedding of type spiral, which packed training does not know"):
        check_packable(model)


# `default` is built in; transformers 5.3, the oldest that is taken, knows no `proportional`.
@pytest.mark.parametrize("rope", [rope for rope in ROPES if rope == "default" or rope in ROPE_INIT_FUNCTIONS])
def test_packed_rows_lose_what_they_lose_alone(rope):
    register()
    rows, alone, packed = table(), network(rope, "eager"), network(rope, PACKED)
    want = 0.0
    with torch.no_grad():
        for i in range(len(rows)):
            ids = torch.tensor(rows.ids(i).tolist())
            logits = alone(input_ids=ids[None], use_cache=False).logits[0, :-1]
            want += float(F.cross_entropy(logits.float(), ids[1:], reduction="sum"))
        apart = check_packable(packed, max(LENGTHS))
        (packs,) = split_step(LENGTHS, 400, 1, apart)
        objective = Objective(packed, choose_kernel(torch.device("cpu"), torch.float32))
        got = sum(float(objective(collate(rows, pack))) for pack in packs)
    assert got == pytest.approx(want, rel=1e-5)
    assert len(packs) == (2 if rope == "longrope" else 1)


def test_rows_beyond_a_dynamic_rope_s_length_are_refused_with_what_to_set():
    model = network("dynamic", "eager", max_position_embeddings=ORIGINAL)
    assert check_packable(model, ORIGINAL) == 0
    with pytest.raises(InputError, match=f"set max_length to {ORIGINAL} or less"):
        check_packable(model, ORIGINAL + 1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bloom", "models of type bloom cannot be trained on packed rows"),
        ("falcon", "models of type falcon cannot"),
        ("mpt", "models of type mpt cannot"),
        ("mamba", "models of type mamba cannot"),
        ("qwen3_next", "models of type qwen3_next cannot"),
        ("jamba", "models of type jamba cannot"),
        ("lfm2", "layers of kind conv"),
    ],
)
def test_layers_that_would_carry_one_row_into_the_next_are_refused_by_name(kind, message):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, num_hidden_layers=2, **(
            {"layer_types": ["conv", "full_attention"]} if kind == "lfm2" else {})))  # fmt: skip
    with pytest.raises(InputError, match=message):
        check_packable(model)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gpt_oss", {"layer_types": ["full_attention"] * 2}, "models of type gpt_oss have attention sinks"),
        ("gemma2", {}, "cap their attention scores \\(attn_logit_softcapping: 50"),
        ("qwen3", {"attention_dropout": 0.1}, "drop attention weights \\(attention_dropout: 0.1"),
    ],
)
def test_attention_that_does_more_than_plain_attention_is_refused_by_what_it_does(kind, settings, message):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, num_hidden_layers=2, **settings))
    with pytest.raises(InputError, match=message):
        check_packable(model)


@pytest.mark.parametrize(
    ("kind", "settings", "window"),
    [
        ("mistral", {"sliding_window": 64}, 64),
        ("mistral", {"sliding_window": None}, 0),
        ("phi3", {"sliding_window": 64, "pad_token_id": 0}, 64),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}, 64),
        ("qwen3", {"sliding_window": 64}, 0),
        ("llama", {"sliding_window": 64}, 0),  # of the model that it was made from: nothing reads it
    ],
)  # fmt: skip
def test_the_attention_window_of_a_model_is_that_of_its_layers(kind, settings, window):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, num_hidden_layers=2, **settings))
    assert attention_window(model) == window


def test_attention_refuses_what_it_would_not_compute():
    rows, x = table(), torch.zeros(1, 2, 8, 16)
    layout = collate(rows, [0]).layout
    choice = choose_kernel(torch.device("cpu"), torch.float32)
    with pytest.raises(InputError, match="packed attention knows no s_aux"):
        attend(torch.nn.Module(), x, x, x, None, layout=layout, choice=choice, s_aux=torch.zeros(2))
