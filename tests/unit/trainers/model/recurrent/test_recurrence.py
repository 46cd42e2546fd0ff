"""Models of recurrent depth: what they compute, how they train, what they are written as, and which are refused."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from evaluators.decoding import Decoding
from evaluators.engines.generate import cache_name
from evaluators.engines.huggingface import load as load_engine
from evaluators.engines.skeleton import load_again
from sweeps.errors import InputError
from tests.support.models import tiny_sft
from tests.support.models.tiny_sft import Notes, same_to_the_bit, tokenizer
from tests.unit.trainers.model.test_architectures import SHAPE
from tests.unit.trainers.model.test_loss import gradient, relative, rows
from tests.unit.trainers.model.test_workers import distance, single, together
from trainers.data.batching.packing import collate
from trainers.export import export
from trainers.model.attention import PACKED, choose_kernel, register
from trainers.model.estimates.flops import counted, counted_in, num_adapter_parameters
from trainers.model.estimates.memory import estimate
from trainers.model.files.folder import checked_folder
from trainers.model.load import load_model
from trainers.model.loss import Objective
from trainers.model.recurrent.recurrence import (
    drawn_recurrences,
    layer_runs,
    passes,
    recurrences_of,
    running_at,
    set_recurrences,
    stored_layers,
    train_range,
)
from trainers.model.recurrent.recurrent_qwen3 import RecurrentQwen3Config, RecurrentQwen3ForCausalLM, unrolled

DEPTH = {"num_hidden_layers": 4, "num_prelude_layers": 1, "num_coda_layers": 1, "num_recurrences": 3}


def made(attn="sdpa", train_recurrences=(1, 4), **more):
    torch.manual_seed(0)
    config = RecurrentQwen3Config(**{**SHAPE, **DEPTH, "train_recurrences": train_recurrences and list(train_recurrences),
                                     "tie_word_embeddings": True, **more})  # fmt: skip
    config._attn_implementation = attn
    return RecurrentQwen3ForCausalLM(config).train()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recurrent")
    made().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def run(base, folder, **how):
    return tiny_sft.run(base, folder, how.pop("snapshots", (2, 5, 9)), **how)


def test_middle_layers_run_as_often_as_asked_in_their_order():
    assert passes(DEPTH, 3) == [0, 1, 2, 1, 2, 1, 2, 3]
    assert passes({**DEPTH, "num_coda_layers": 0}, 1) == [0, 1, 2, 3]
    assert layer_runs({**DEPTH, "model_type": "recurrent_qwen3"}, 2.5) == 7


@pytest.mark.parametrize("recurrences", [1, 2, 5])
@pytest.mark.parametrize("tied", [True, False])
def test_at_a_number_of_recurrences_it_computes_what_the_plain_model_of_repeated_layers_does(recurrences, tied):
    model = made(tie_word_embeddings=tied).eval()
    plain, ids = unrolled(model, recurrences).eval(), torch.arange(24).reshape(2, 12)
    with torch.no_grad(), running_at(model, recurrences):
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        name = cache_name(model)
        cache = getattr(model(input_ids=ids[:, :7], use_cache=True), name)
        cached = model(input_ids=ids[:, 7:], **{name: cache}, use_cache=True).logits
        assert torch.allclose(cached, plain(input_ids=ids).logits[:, 7:], atol=1e-5)
    assert recurrences_of(model) == 3
    assert plain.config.model_type == "qwen3"
    assert plain.config.num_hidden_layers == 2 + 2 * recurrences == len(cache)


@pytest.mark.parametrize("recurrences", [1, 3])
def test_packed_gradients_are_those_of_one_row_at_a_time_each_pass_counted(recurrences):
    register()
    table, alone, packed = rows(), unrolled(made(), recurrences), made(PACKED)
    for i in range(len(table)):
        ids = torch.tensor(table.ids(i).tolist())
        labels = torch.where(torch.tensor(table.learn(i)), ids, -100)[1:]
        logits = alone(input_ids=ids[None], use_cache=False).logits[0, :-1]
        F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum").backward()
    set_recurrences(packed, recurrences)
    Objective(packed, choose_kernel(torch.device("cpu"), torch.float32))(collate(table, range(len(table)))).backward()
    want = {name: torch.zeros_like(p) for name, p in packed.named_parameters()}
    for name, parameter in alone.named_parameters():
        head, layer, rest = name.partition("layers.")
        place, dot, part = rest.partition(".")
        stored = passes(packed.config.to_dict(), recurrences)[int(place)] if layer else ""
        want[f"{head}{layer}{stored}{dot}{part}" if layer else name] += parameter.grad
    assert relative(gradient(packed), torch.cat([g.flatten() for g in want.values()])) < 1e-5


def test_recurrences_of_a_step_follow_from_seed_and_step_and_cover_their_range():
    config = made().config.to_dict()
    drawn = [drawn_recurrences(config, 7, step) for step in range(1, 2001)]
    assert drawn == [drawn_recurrences(config, 7, step) for step in range(1, 2001)]
    assert drawn != [drawn_recurrences(config, 8, step) for step in range(1, 2001)]
    counts = Counter(drawn)
    assert sorted(counts) == [1, 2, 3, 4]
    assert all(400 < count < 600 for count in counts.values())
    assert drawn_recurrences({**config, "train_recurrences": None}, 7, 1) == 3
    assert train_range({"model_type": "qwen3"}) == (1, 1)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"gradient_checkpointing": True}])
def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(base, tmp_path, settings):
    whole = run(base, tmp_path / "whole", **settings)
    stopped = run(base, tmp_path / "a", notes=Notes(stop_after=4), **settings)
    assert stopped.checkpoints[-1].step == 4
    rest = run(base, tmp_path / "b", resume=stopped.checkpoints[-1], **settings)
    assert same_to_the_bit(whole, rest)
    assert rest.reports[9] == pytest.approx({**whole.reports[9], **rest.reports[9]})


def test_a_branch_of_a_shared_trunk_is_the_run_that_never_branched(base, tmp_path):
    constant = {"lr_scheduler_type": "constant"}
    longer = run(base, tmp_path / "long", snapshots=(5, 12), **constant)
    branch = run(base, tmp_path / "branch", snapshots=(9,), resume=longer.checkpoints[0], **constant)
    alone = run(base, tmp_path / "alone", snapshots=(9,), **constant)
    assert same_to_the_bit(branch, alone)


def test_each_step_trains_at_the_recurrences_that_were_drawn_for_it(base, tmp_path, monkeypatch):
    seen = []
    forward = RecurrentQwen3ForCausalLM.forward

    def noted(self, *args, **kwargs):
        seen.append(recurrences_of(self))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(RecurrentQwen3ForCausalLM, "forward", noted)
    run(base, tmp_path, seed=3, snapshots=(9,))
    assert seen == [drawn_recurrences(made().config.to_dict(), 3, step) for step in range(1, 10)]
    assert len(set(seen)) > 1


def test_a_range_of_one_recurrence_is_trained_at_one(tmp_path, monkeypatch):
    seen = []
    forward = RecurrentQwen3ForCausalLM.forward

    def noted(self, *args, **kwargs):
        seen.append(recurrences_of(self))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(RecurrentQwen3ForCausalLM, "forward", noted)
    made(train_recurrences=(1, 1)).save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    run(tmp_path / "base", tmp_path, snapshots=(2,))
    assert seen == [1, 1]


def test_parameters_are_counted_once_and_operations_as_often_as_a_layer_runs():
    model = made()
    stored = counted(model.config.to_dict())
    layers = [n for n, p in model.named_parameters() if "layers.1." in n]
    assert stored.total == pytest.approx(model.num_parameters(), rel=0.02)  # norms aside
    one = sum(p.numel() for n, p in model.named_parameters() if n in layers)
    for recurrences in (1, 4):
        set_recurrences(model, recurrences)
        assert counted_in(model) == (model.num_parameters(), model.num_parameters() + 2 * (recurrences - 1) * one)
    assert stored.active - stored.total == pytest.approx(2 * 1.5 * one, rel=0.03)  # the mean of 1 to 4 is 2.5


def test_memory_is_that_of_the_most_recurrences_and_weights_of_one(base):
    config = tiny_sft.trial(base, (2,)).config
    settings = tiny_sft.trial(base, (2,), lora_rank=2).config
    from sweeps.config.blocks import TrialSettings

    shape = made().config.to_dict()
    deep = {**unrolled(made(), 4).config.to_dict()}
    ours, plain = (estimate(TrialSettings.from_config(config), s, 1) for s in (shape, deep))
    assert ours.activations == plain.activations
    assert ours.weights < plain.weights
    assert num_adapter_parameters(TrialSettings.from_config(settings), shape) == num_adapter_parameters(
        TrialSettings.from_config(settings), {**deep, "num_hidden_layers": 4}
    )


@pytest.mark.parametrize("recurrences", [None, 2])
def test_an_export_is_a_plain_model_that_transformers_loads_without_us(base, tmp_path, recurrences):
    from transformers import AutoModelForCausalLM

    checkpoint = run(base, tmp_path / "run", snapshots=(2,)).checkpoints[-1].path
    folder = export(checkpoint, tmp_path / "out", recurrences=recurrences)
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("qwen3", 2 + 2 * (recurrences or 3))
    assert not [key for key in config if "recurren" in key or "auto_map" in key or "prelude" in key]
    ours, theirs, ids = (
        load_model(checkpoint).eval(),
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        torch.arange(9)[None],
    )
    with torch.no_grad(), running_at(ours, recurrences):
        assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
    half = export(checkpoint, tmp_path / "half", dtype=torch.bfloat16)
    assert load_model(half, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_recurrences_of_a_model_without_any_are_refused(tmp_path):
    plain = tiny_sft.write_base(tmp_path / "plain")
    with pytest.raises(InputError, match="run each layer once"):
        load_engine(plain).generate([[5, 6]], [3], Decoding(recurrences=2))
    checkpoint = tiny_sft.run(plain, tmp_path / "run", (2,)).checkpoints[-1].path
    with pytest.raises(InputError, match="recurrences 2 for a model of type qwen3"):
        export(checkpoint, tmp_path / "out", recurrences=2)
    assert not (tmp_path / "out").exists()


def test_replies_at_other_recurrences_are_those_of_the_plain_model_there(base, tmp_path):
    engine, prompts = load_engine(base), [[5, 6, 7], [8, 9, 10, 11, 12]]
    usual = engine.generate(prompts, [6, 6], Decoding())
    for recurrences in (1, 5):
        plain = tmp_path / str(recurrences)
        unrolled(engine.model, recurrences).save_pretrained(plain)
        tokenizer().save_pretrained(plain)
        asked = engine.generate(prompts, [6, 6], Decoding(recurrences=recurrences))
        assert asked == load_engine(plain).generate(prompts, [6, 6], Decoding())
    assert engine.generate(prompts, [6, 6], Decoding()) == usual


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_prelude_layers": 3}, "leave a layer between"),
        ({"num_coda_layers": "1"}, "leave a layer between"),
        ({"num_recurrences": 0}, "num_recurrences 0"),
        ({"num_recurrences": True}, "num_recurrences True"),
        ({"train_recurrences": [4, 2]}, r"train_recurrences \[4, 2\]"),
        ({"train_recurrences": 3}, "train_recurrences 3"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2}, "layer_types"),
        ({"model_type": "huginn_raven"}, "Huginn repeats its layers by modelling code of its own"),
        ({"model_type": "ouro", "auto_map": {"AutoModel": "x.Y"}}, "Ouro repeats"),
        ({"model_type": "hrm_text"}, "in both directions"),
    ],
)
def test_a_config_that_makes_no_sense_or_needs_code_of_its_own_is_refused_in_words(tmp_path, changes, said):
    made().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=said):
        checked_folder(tmp_path)


def test_any_qwen3_becomes_recurrent_by_its_config_alone(tmp_path):
    plain = tiny_sft.network("sdpa", num_hidden_layers=3)
    plain.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    more = {"model_type": "recurrent_qwen3", "architectures": ["RecurrentQwen3ForCausalLM"], "num_prelude_layers": 1,
            "num_coda_layers": 1, "num_recurrences": 1}  # fmt: skip
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    model, ids = load_model(tmp_path).eval(), torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, plain.eval()(input_ids=ids).logits)


def test_two_workers_train_as_one_does(base, tmp_path):
    one = single(base, tmp_path / "one", pack_tokens=128)
    two = together(2, base, tmp_path, {"two": {"settings": {"pack_tokens": 128}}})["two"]
    assert distance(two, one) < 1e-5
    for step, report in one.reports.items():
        assert two.reports[step] == pytest.approx(report, rel=1e-4)


def hrm_shape():
    return {
        **{k: v for k, v in SHAPE.items() if k != "num_key_value_heads"},
        "prefix_lm": False,
        "H_cycles": 2,
        "L_cycles": 2,
    }


def hrm(attn):
    transformers = pytest.importorskip("transformers", minversion="5.23")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("hrm_text", **hrm_shape())
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attn).train()


def test_packed_gradients_of_hrm_text_are_those_of_one_row_at_a_time():
    register()
    table, alone, packed = rows(), hrm("eager"), hrm(PACKED)
    for i in range(len(table)):
        ids = torch.tensor(table.ids(i).tolist())
        labels = torch.where(torch.tensor(table.learn(i)), ids, -100)[1:]
        logits = alone(input_ids=ids[None], use_cache=False).logits[0, :-1]
        F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum").backward()
    Objective(packed, choose_kernel(torch.device("cpu"), torch.float32))(collate(table, range(len(table)))).backward()
    got, want = (
        torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]) for model in (packed, alone)
    )
    assert relative(got, want) < 1e-5


def test_hrm_text_trains_resumes_and_answers_at_other_cycles(tmp_path):
    hrm("eager").save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    whole = run(tmp_path / "base", tmp_path / "whole")
    stopped = run(tmp_path / "base", tmp_path / "a", notes=Notes(stop_after=4))
    assert same_to_the_bit(whole, run(tmp_path / "base", tmp_path / "b", resume=stopped.checkpoints[-1]))
    shape = json.loads((Path(whole.checkpoints[-1].path) / "config.json").read_text())
    engine = load_engine(Path(whole.checkpoints[-1].path))
    assert (stored_layers(shape), layer_runs(shape, 2)) == (4, 12)
    assert counted(shape).total == pytest.approx(engine.model.num_parameters(), rel=0.01)
    assert counted(shape).active == pytest.approx(counted_in(engine.model).active, rel=0.01)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    usual = engine.generate(prompts, [6, 6], Decoding())
    deeper = engine.generate(prompts, [6, 6], Decoding(recurrences=4))
    other = tmp_path / "deeper"
    engine.model.config.H_cycles, engine.model.config.num_hidden_layers = 4, 2 * 4 * 3
    engine.model.save_pretrained(other)
    tokenizer().save_pretrained(other)
    assert load_engine(other).generate(prompts, [6, 6], Decoding()) == deeper
    set_recurrences(engine.model, 2)
    assert engine.generate(prompts, [6, 6], Decoding()) == usual


def test_an_evaluator_keeps_the_network_from_one_checkpoint_to_the_next(base, tmp_path):
    checkpoints = [Path(c.path) for c in run(base, tmp_path, snapshots=(2, 5)).checkpoints]
    prompts, network = [[5, 6, 7], [8, 9, 10, 11, 12]], load_again(checkpoints[0]).model
    load_again(checkpoints[0]).generate(prompts, [6, 6], Decoding(recurrences=5))
    again = load_again(checkpoints[1])
    assert again.model is network
    assert again.generate(prompts, [6, 6], Decoding()) == load_engine(checkpoints[1]).generate(
        prompts, [6, 6], Decoding()
    )
