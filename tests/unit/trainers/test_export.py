"""An export is what was evaluated: transformers alone loads it and says the same, whatever was trained and however."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sweeps.errors import InputError, StorageError, StorageUnavailable
from tests.support.models.plain_replies import by_transformers, evaluated
from tests.support.models.tiny_sft import Notes, network, tier, tokenizer, trial
from trainers.export import export, new_folder
from trainers.loop import train
from trainers.model.files.builtin import builtin_folder

PROMPTS = ["1+2=", "3+4+5=", "7+8+9+1="]
CHATML = (
    "{% for m in messages %}{{ '[' + m.role[0] + ']' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[a]' }}{% endif %}"
)
"""Ends turns with a token that is not the tokenizer's eos."""


def trained(base: Path, folder: Path, **settings: object) -> str:
    notes = Notes()
    train(trial(base, (2, 4), **settings), notes, folder=folder, resume=None, data=tier())
    return notes.checkpoints[-1].path


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("own_end", [False, True])
def test_an_export_says_what_the_checkpoint_said(tmp_path: Path, tied: bool, rank: int, own_end: bool):
    base, made = tmp_path / "base", tokenizer()
    network(tie_word_embeddings=tied).save_pretrained(base)
    if own_end:
        made.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
        made.chat_template = CHATML
    made.save_pretrained(base)
    checkpoint = trained(base, tmp_path / "run", lora_rank=rank, learning_rate=1e-2)
    out = export(checkpoint, tmp_path / "out")
    expected = evaluated(checkpoint, PROMPTS)
    assert by_transformers(out, PROMPTS) == expected
    assert expected != evaluated(base, PROMPTS)
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings["eos_token_id"] == sorted(
        {made.eos_token_id, made.convert_tokens_to_ids("<|im_end|>")} if own_end else {1}
    )
    assert settings["pad_token_id"] == made.pad_token_id
    config = json.loads((out / "config.json").read_text())
    assert config["tie_word_embeddings"] is tied


@pytest.mark.parametrize("name", ["tiny-xs", "tiny-r"])
def test_models_that_ship_are_exported_as_what_they_are(tmp_path: Path, name: str):
    prompts = ["What is 1 + 2?", "Sort 3 1 2.", "9"]
    checkpoint = trained(builtin_folder(name), tmp_path / "run", batch_tokens=256)
    assert by_transformers(export(checkpoint, tmp_path / "out"), prompts) == evaluated(checkpoint, prompts)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageUnavailable),
        (SafetensorError("I/O error: No space left on device (os error 28)"), StorageUnavailable),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_export_that_is_cut_short_leaves_its_folder_as_it_was(
    there: bool, fault: BaseException, said: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint, target = trained(builtin_folder("tiny-xs"), tmp_path / "run", batch_tokens=256), tmp_path / "a" / "out"
    target.mkdir(parents=True) if there else None

    def cut_short(folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr("trainers.export.write_stop_tokens", cut_short)
        with pytest.raises(said):
            export(checkpoint, target)
    assert [each.name for each in (tmp_path / "a").rglob("*")] == (["out"] if there else [])
    assert (export(checkpoint, target) / "model.safetensors").is_file()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["out"]
    with pytest.raises(InputError, match="is not empty"):
        export(checkpoint, target)


def test_two_exports_to_one_folder_do_not_mix(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()

    def other(made: Path) -> None:
        (made / "a").write_text("ours")
        (out / "a").write_text("theirs")

    with pytest.raises(InputError, match="not empty any more"), new_folder(out) as made:
        other(made)
    assert [each.read_text() for each in out.iterdir()] == ["theirs"]


def test_a_folder_that_may_not_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/out was not exported: .*file"), new_folder(tmp_path / "file" / "out"):
        raise AssertionError("it was made")


@pytest.mark.slow
@pytest.mark.optional
@pytest.mark.parametrize("rank", [0, 4])
def test_a_published_model_with_its_own_template(tmp_path: Path, rank: int):
    folder = Path(os.environ.get("DIPSWEEP_SMOLLM2", ""))
    if not (folder / "config.json").is_file():
        pytest.skip("DIPSWEEP_SMOLLM2 names no folder (dipsweep fetch smollm2-135m)")
    prompts = ["What is 1 + 2?", "Name a colour."]
    settings = {"batch_tokens": 300, "max_length": 128, "learning_rate": 1e-4, "lora_rank": rank}
    checkpoint = trained(folder, tmp_path / "run", **settings)
    out = export(checkpoint, tmp_path / "out")
    assert by_transformers(out, prompts) == evaluated(checkpoint, prompts)
    assert (out / "chat_template.jinja").read_text() == (folder / "chat_template.jinja").read_text()
