"""Another chat template for a model, through a whole run: training, evaluation of base and checkpoints, export, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.run_sweep import run
from sweeps import Sweep
from sweeps.config.sweep_file.yaml import load
from sweeps.errors import InputError, Interrupted
from tests.support.models.tiny_sft import TEMPLATE, sums, write_base
from trainers.export import export
from trainers.model.load import load_tokenizer

CLOSED = (
    "{% for m in messages %}{{ '[' + m.role[0] + ']' }}"
    "{{ '<think>' + m.reasoning_content + '</think>' if m.reasoning_content else '' }}{{ m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[a]' if thinking else '[a]<think></think>' }}{% endif %}"
)
"""Its generation prompt closes the thought, unless it is asked not to."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    write_base(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(CLOSED)
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sums(40)))
    (tmp_path / "items.jsonl").write_text(json.dumps({"prompt": "1+2=", "answer": 3}) + "\n")
    (tmp_path / "plain.jinja").write_text(TEMPLATE)
    return tmp_path


def sweep(home: Path, template: str) -> Sweep:
    chosen = f", chat_template: {template}" if template else ""
    (home / "own.yaml").write_text(
        f"name: own\nstorage: {home}/runs\nmodels: {{mine: {{path: model{chosen}}}}}\ntiers: {{ours: {{path: ours.jsonl}}}}\n"
        "objective: {metric: math/items}\ntrainer: {steps: 2, batch_tokens: 128, max_length: 64, precision: fp32}\n"
        "evaluation: {at: [2], files: [{path: items.jsonl, role: math, scorer: number, max_new_tokens: 4}]}\n"
    )
    return load(home / "own.yaml")


@pytest.mark.parametrize(("template", "prompt"), [("plain.jinja", "[u]1+2=</s>[a]"), ("thinking", "[u]1+2=</s>[a]")])
def test_training_evaluation_and_export_all_use_the_template_that_was_chosen(home, monkeypatch, template, prompt):
    from evaluators.engines import base

    monkeypatch.chdir(home / "model")  # a file is found beside the sweep file, wherever the command runs
    asked = []
    encode = base.encode_prompts

    def spied(tokenizer, prompts):
        encoded = encode(tokenizer, prompts)
        asked.extend(tokenizer.decode(ids) for ids in encoded.ids)
        return encoded

    monkeypatch.setattr("evaluators.evaluate.encode_prompts", spied)
    results = run(sweep(home, template), backend="in-process", say=lambda line: None)
    assert {trial.state for trial in results.summary.trials} == {"completed"}
    assert [text.replace(" ", "") for text in asked] == [prompt, prompt]  # the base, and the checkpoint
    (place,) = (home / "runs").glob("own-*/trials/*/attempt-1/step-*2")
    export(place, home / "out")
    tokenizer = load_tokenizer(home / "out")
    talk = [{"role": "user", "content": "1+2="}]
    assert tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False) == prompt


def test_without_it_the_rows_are_refused_and_the_refusal_says_which_template_would_do(home):
    from cluster.preflight.checks import preflight
    from sweeps.errors import SpecError

    with pytest.raises(SpecError, match=r"models\.NAME\.chat_template: thinking turns thoughts on in it"):
        preflight(sweep(home, ""))


def test_a_template_that_changed_is_not_gone_on_with(home):
    def interrupted(trial, hooks, **_):
        raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        run(sweep(home, "plain.jinja"), backend="in-process", train=interrupted, say=lambda line: None)
    (home / "plain.jinja").write_text(TEMPLATE.replace("'[", "'("))
    with pytest.raises(InputError, match=r"models\.mine\.chat_template .* is not what this sweep began with"):
        run(sweep(home, "plain.jinja"), backend="in-process", say=lambda line: None)
