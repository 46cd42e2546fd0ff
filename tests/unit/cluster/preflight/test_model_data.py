"""Before anything starts, model folder, weights, tokenizer, template and data are put together as a trial would."""

from __future__ import annotations

import json

import fsspec
import pytest

from cluster.preflight.checks import preflight
from cluster.run_sweep import run
from evaluators.engines.base import encode_prompts
from sweeps import Sweep
from sweeps.errors import InputError, SpecError
from tests.support.fakes import fake_evaluate
from tests.support.models.tiny_sft import TEMPLATE, sums, tokenizer, write_base
from tests.support.plugin_package import install
from trainers.model.load import load_tokenizer

STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}{% endfor %}"
    + TEMPLATE
)


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    return write_base(tmp_path / "model")


def rows(conversations):
    return [{"messages": conversation} for conversation in conversations]


def sweep(tmp_path, base, data, *, tier=None, model=None, **trainer):
    path = tmp_path / "ours.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return Sweep(
        name="own",
        storage=str(tmp_path / "runs"),
        models={"mine": {"path": str(base), **(model or {})}},
        tiers={"ours": {"path": str(path), **(tier or {})}},
        trainer={"steps": 2, "batch_tokens": 4096, **trainer},
    )


def test_a_good_pair_is_fine_and_its_rows_are_described(tmp_path, base):
    (note,) = preflight(sweep(tmp_path, base, rows(sums(20)))).notes
    assert note == "tier ours: 20 rows read as messages of role and content"


def test_rows_that_the_template_refuses_are_bad_rows_with_their_number(tmp_path, base):
    (base / "chat_template.jinja").write_text(STRICT)
    talks = sums(20)
    talks[4] = [{"role": "system", "content": "think"}, *talks[4]]
    with pytest.raises(SpecError, match=r"ours\.jsonl:5: the chat template refuses it: no system role here"):
        preflight(sweep(tmp_path, base, rows(talks)))
    (_, note) = preflight(sweep(tmp_path, base, rows(talks), tier={"max_bad_rows": 0.05})).notes
    assert "1 rows are left out" in note


def test_another_template_is_a_way_out(tmp_path, base):
    (base / "chat_template.jinja").write_text(STRICT)
    (tmp_path / "better.jinja").write_text(TEMPLATE)
    talks = [[{"role": "system", "content": "think"}, *talk] for talk in sums(20)]
    preflight(sweep(tmp_path, base, rows(talks), model={"chat_template": str(tmp_path / "better.jinja")}))


def test_rows_that_are_too_long_are_told_with_what_would_keep_them_and_refused_beyond_a_share(tmp_path, base):
    lengths = [len(tokenizer()(tokenizer().apply_chat_template(t, tokenize=False))["input_ids"]) for t in sums(100)]
    with pytest.raises(
        SpecError, match=rf"longer than 40 tokens and are dropped; max_length: {sorted(lengths)[-2]} would"
    ):
        preflight(sweep(tmp_path, base, rows(sums(100)), max_length=40))
    notes = preflight(sweep(tmp_path, base, rows(sums(100)), tier={"max_long_rows": 1.0}, max_length=40)).notes
    assert f"{sum(n > 40 for n in lengths)} of 100 rows" in notes[-1]


def test_a_token_without_a_row_in_the_embedding_is_refused(tmp_path, base):
    bigger = tokenizer()
    bigger.add_tokens([f"<extra_{i}>" for i in range(40)])
    bigger.save_pretrained(base)
    talks = [[talk[0], {**talk[1], "content": "<extra_39>" + talk[1]["content"]}] for talk in sums(5)]
    preflight(sweep(tmp_path, base, rows(sums(5))))
    with pytest.raises(SpecError, match=r"hold token \d+ \('<extra_39>'\), but the embedding has 64 rows"):
        preflight(sweep(tmp_path, base, rows(talks)))


def test_weights_that_do_not_fit_are_refused(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(SpecError, match=r"models\.mine: .*where the config asks for \[48, 32\]|\[32, 48\]"):
        preflight(sweep(tmp_path, base, rows(sums(5))))


def test_an_end_token_that_is_not_the_tokenizer_s_is_told(tmp_path, base):
    other = tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    other.chat_template = TEMPLATE.replace("</s>", "<|im_end|>")
    other.save_pretrained(base)
    notes = preflight(sweep(tmp_path, base, rows(sums(5)))).notes
    assert "replies end with '<|im_end|>'" in notes[0]


def test_a_tier_is_described_in_numbers_once_for_each_length_limit(tmp_path, base):
    talks = [*sums(9), sums(1)[0], [*sums(1)[0][:1], {"role": "assistant", "content": "no thought"}]]
    (row,) = preflight(sweep(tmp_path, base, rows(talks))).tiers
    lengths = sorted(
        len(tokenizer()(tokenizer().apply_chat_template(t, tokenize=False), add_special_tokens=False)["input_ids"])
        for t in talks
    )
    assert (row.model, row.tier, row.row_limit, row.long_rows) == ("mine", "ours", 4096, "drop")
    assert row.counts["rows"] == row.counts["conversations"] == row.counts["measured"] == 11
    assert (row.counts["tokens"], row.counts["duplicates"], row.counts["long"]) == (sum(lengths), 1, 0)
    assert (row.lengths["0"], row.lengths["50"], row.lengths["100"]) == (lengths[0], lengths[5], lengths[-1])
    assert row.shares["reasoning"] == pytest.approx(10 / 11)
    assert row.ends == {"</s>": 11}
    assert row.evaluation == {"prompts": row.evaluation["prompts"], "seen": 0, "touched": 0}


def test_text_that_the_tokenizer_cannot_write_is_told(tmp_path, base):
    talks = [[*talk[:1], {"role": "assistant", "content": "\u00e9t\u00e9 " + talk[1]["content"]}] for talk in sums(5)]
    found = preflight(sweep(tmp_path, base, rows(talks)))
    assert found.tiers[0].counts["unknown"] == 10
    assert "10 of " in found.notes[-1]
    assert "tokens are '<unk>', which stands for text that the tokenizer cannot write" in found.notes[-1]


@pytest.fixture
def elsewhere(tmp_path, base):
    """The model and forty rows at memory:// addresses: their file system, and a sweep on them."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for file in base.iterdir():
        fs.pipe_file(f"/bucket/model/{file.name}", file.read_bytes())
    lines = "".join(json.dumps({"messages": talk}) + "\n" for talk in sums(40))
    fs.pipe_file("/bucket/ours.jsonl", lines.encode())
    made = Sweep(
        name="own",
        storage=str(tmp_path / "runs"),
        models={"mine": {"path": "memory://bucket/model"}},
        tiers={"ours": {"path": "memory://bucket/ours.jsonl"}},
        trainer={"steps": 2, "batch_tokens": 4096},
    )
    return fs, made


def test_model_and_data_elsewhere_are_put_together_by_headers_alone(elsewhere, tmp_path):
    fs, made = elsewhere
    found = preflight(made)
    assert found.tiers[0].counts["rows"] == 40
    weights = fs.info("/bucket/model/model.safetensors")["size"]
    (outline,) = (tmp_path / "cache" / "outlines").iterdir()
    assert (outline / "model.safetensors").stat().st_size == weights
    assert not (tmp_path / "cache" / "fetched" / "model.safetensors").exists()
    (note,) = [line for line in preflight(made, reach=False).notes if "not put together" in line]
    assert "--storage looks there" in note


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.safetensors", lambda data: data[:-8], "is cut short: got"),
        ("model.safetensors", lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (
            "config.json",
            lambda data: data.replace(b'"intermediate_size": 64', b'"intermediate_size": 48'),
            "config asks for",
        ),
    ],
)
def test_what_is_wrong_with_a_model_elsewhere_is_found_there(elsewhere, name, change, message):
    fs, made = elsewhere
    data = fs.cat_file(f"/bucket/model/{name}")
    assert change(data) != data
    fs.pipe_file(f"/bucket/model/{name}", change(data))
    with pytest.raises(SpecError, match=message):
        preflight(made)


def test_a_tier_of_which_nothing_is_left_is_refused(tmp_path, base):
    with pytest.raises(SpecError, match=r"no row is left to train on: 20 of 20 rows .* longer than 4 tokens"):
        preflight(sweep(tmp_path, base, rows(sums(20)), tier={"max_long_rows": 1.0}, max_length=4))


def test_replay_without_replay_rows_is_refused_before_a_trial_says_so(tmp_path, base):
    with pytest.raises(SpecError, match=r"replay is 0\.5, but the tier has no replay rows"):
        preflight(sweep(tmp_path, base, rows(sums(20)), replay=0.5))


def test_rows_beyond_the_positions_of_a_model_are_told(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    assert "its context is 16 (" in preflight(sweep(tmp_path, base, rows(sums(20)))).notes[-1]
    yarn = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 16, "rope_theta": 10_000.0}
    stretched = {**config, "max_position_embeddings": 16, "rope_parameters": yarn}
    (base / "config.json").write_text(json.dumps(stretched))
    assert not [note for note in preflight(sweep(tmp_path, base, rows(sums(20)))).notes if "context" in note]


def test_a_config_that_contradicts_itself_is_refused_with_what_it_says(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(SpecError, match=r"transformers cannot build its model: .*num_hidden_layers"):
        preflight(sweep(tmp_path, base, rows(sums(5))))


def test_the_cards_of_a_tier_with_and_without_replay_are_two(tmp_path, base):
    talks = [*rows(sums(6)), *({**row, "replay": True} for row in rows(sums(4)))]
    made = sweep(tmp_path, base, talks)
    both = Sweep(**{**made.to_json(), "space": {"replay": {"grid": [0.0, 0.5]}}})
    found = preflight(both).tiers
    assert [(row.replay, row.counts["rows"]) for row in found] == [(False, 6), (True, 10)]
    assert len({row.key for row in found}) == 2


def test_rows_beyond_an_attention_window_are_refused_where_a_cpu_trains(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    windowed = {"use_sliding_window": True, "sliding_window": 40, "layer_types": ["sliding_attention"] * 2}
    (base / "config.json").write_text(json.dumps({**config, **windowed}))
    data = rows(sums(20))
    with pytest.raises(SpecError, match=r"exceed the model's attention window of 40.*max_length to 40 or less"):
        preflight(sweep(tmp_path, base, data))
    preflight(sweep(tmp_path, base, data, model={"gpus_per_worker": 1}))
    with pytest.raises(SpecError, match="window of 40, which attention on a CPU or in fp32 does not know"):
        preflight(sweep(tmp_path, base, data, model={"gpus_per_worker": 1}, precision="fp32"))
    preflight(sweep(tmp_path, base, data, max_length=40, long_rows="cut-answer"))
    preflight(sweep(tmp_path, base, data, max_length=40, tier={"max_long_rows": 1.0}))


def test_what_the_loop_that_ships_cannot_train_another_one_may(tmp_path, base, monkeypatch):
    install(
        tmp_path / "site",
        {"own_loop.py": "def train(trial, hooks, *, folder, resume) -> None: ..."},
        "[dipsweep.trainers]\nown-loop = own_loop:train\n",
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    config = json.loads((base / "config.json").read_text())
    windowed = {"use_sliding_window": True, "sliding_window": 40, "layer_types": ["sliding_attention"] * 2}
    (base / "config.json").write_text(json.dumps({**config, **windowed, "attention_dropout": 0.1}))
    with pytest.raises(SpecError, match=r"drop attention weights \(attention_dropout: 0\.1"):
        preflight(sweep(tmp_path, base, rows(sums(5))))
    own = sweep(tmp_path, base, rows(sums(5)), loop="own-loop")
    notes = "\n".join(preflight(Sweep(**{**own.to_json(), "objective": {"metric": "perf/mfu"}})).notes)
    assert "drop attention weights (attention_dropout: 0.1" in notes
    assert "whether own-loop can is not looked at" in notes
    assert "tokens exceed the model's attention window of 40" in notes


def test_one_row_beyond_an_attention_window_is_found_among_many_that_are_dropped_or_short(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    windowed = {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["sliding_attention"] * 2}
    (base / "config.json").write_text(json.dumps({**config, **windowed}))

    def talk(length):
        return [{"role": "user", "content": "1" * (length - 12)}, {"role": "assistant", "content": "2"}]

    def tokens(one):
        return len(tokenizer()(tokenizer().apply_chat_template(one, tokenize=False))["input_ids"])

    data = [talk(30)] * 90 + [talk(70)] + [talk(200)] * 2
    assert tokens(data[0]) <= 64 < tokens(data[90]) <= 100 < tokens(data[91])
    with pytest.raises(
        SpecError, match=rf"rows of {tokens(data[90])} tokens exceed the model's attention window of 64"
    ):
        preflight(sweep(tmp_path, base, rows(data), tier={"max_long_rows": 1.0}, max_length=100))


def test_data_that_cannot_be_trained_on_is_refused_whoever_scores(tmp_path, base):
    own = sweep(tmp_path, base, rows(sums(5)), tier={"max_long_rows": 1.0}, max_length=8)
    with pytest.raises(SpecError, match="no row is left to train on"):
        run(own, backend="in-process", evaluate=fake_evaluate, say=lambda line: None)


def test_what_a_sweep_would_ask_is_not_looked_at_where_a_function_of_the_callers_own_scores(tmp_path, base):
    """A suite whose files are elsewhere, thoughts that the tokenizer cannot close."""
    own = sweep(tmp_path, base, rows(sums(20)))
    asked = {"suite": f"paper:{tmp_path}/elsewhere", "test_time": ["think=8"]}
    own = Sweep(**{**own.to_json(), "evaluation": asked})
    with pytest.raises(SpecError, match="elsewhere"):
        preflight(own)
    assert preflight(own, scores=False).tiers


def asking(tmp_path, base, *items):
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps({"answer": "x", **item}) + "\n" for item in items))
    files = [{"path": str(file), "role": "general"}]
    return Sweep(**{**sweep(tmp_path, base, rows(sums(5))).to_json(), "evaluation": {"files": files},
                    "objective": {"metric": "general/talk"}})  # fmt: skip


WITH_SYSTEM = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (STRICT, "the chat template refuses it: no system role here"),
        (
            TEMPLATE.replace("{{ '['", "{{ '' if m.role == 'system' else '['"),
            r"drops the content of message 0 \(system\)",
        ),
    ],
)
def test_what_an_evaluation_cannot_ask_a_model_is_told_before_the_first_checkpoint_waits(
    tmp_path, base, template, fault
):
    (base / "chat_template.jinja").write_text(template)
    with pytest.raises(SpecError, match=rf"item 0 of general/talk cannot be asked: .*{fault}"):
        preflight(asking(tmp_path, base, WITH_SYSTEM))
    with pytest.raises(InputError, match=fault):
        encode_prompts(load_tokenizer(base), [tuple(WITH_SYSTEM["messages"])])
    preflight(asking(tmp_path, base, {"prompt": "Hi"}))


def test_items_that_leave_no_room_for_a_reply_are_counted(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    notes = preflight(asking(tmp_path, base, {"prompt": "1" * 80}, {"prompt": "1" * 20})).notes
    assert any(
        "warning: model mine: 1 of the evaluation's prompts fill its context of 64 tokens" in note for note in notes
    )


def test_a_template_whose_thoughts_evaluation_cannot_part_from_answers_is_told(tmp_path, base):
    def notes(begin, end):
        thought = f"{{{{ '{begin}' + m.reasoning_content + '{end}' if m.reasoning_content }}}}"
        (base / "chat_template.jinja").write_text(
            "{% for m in messages %}[{{ m.role[0] }}]" + thought + "{{ m.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}[a]{% endif %}"
        )
        return "\n".join(preflight(sweep(tmp_path, base, rows(sums(5)))).notes)

    told = "warning: model mine: its chat template ends thoughts without </think>"
    assert told in notes("[THINK]", "[/THINK]")
    assert told not in notes("<think>", "</think>")


def test_items_that_hold_a_control_token_of_a_model_are_counted(tmp_path, base):
    notes = preflight(asking(tmp_path, base, WITH_SYSTEM, {"prompt": "What is </s>?"})).notes
    assert (
        "warning: model mine: 1 of the evaluation's prompts hold '</s>', by which its chat template parts messages"
        in notes
    )
