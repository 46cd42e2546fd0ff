"""A checkpoint is whole or it is none."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from sweeps.checkpoints import manifest
from sweeps.checkpoints.transfer import push
from sweeps.config.trial import ModelSource, Saved
from sweeps.errors import InputError, StorageDenied, StorageError, StorageFull, StorageUnavailable
from sweeps.storage.factory import open_store
from tests.support.models.tiny_sft import network, tokenizer, write_base
from trainers import checkpoint
from trainers.checkpoint import read_manifest, seal, step_folder, verify
from trainers.export import export
from trainers.model.load import load_model, load_tokenizer, model_folder


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.fixture
def sealed(base):
    checkpoint.write_state(base, {"adam/x/step": torch.ones(()), **checkpoint.random_states()}, {"step": 40})
    return base, seal(base, 40)


def test_folders_sort_by_step(tmp_path):
    folders = [step_folder(tmp_path, step) for step in (40, 9, 100_000)]
    assert [f.name for f in sorted(folders)] == ["step-000009", "step-000040", "step-100000"]


def test_the_manifest_names_every_file_with_size_and_digest(sealed):
    folder, saved = sealed
    manifest = verify(folder)
    assert manifest.step == saved.step == 40
    assert {"model.safetensors", "config.json", "tokenizer.json", checkpoint.STATE} <= manifest.files.keys()
    size, digest = manifest.files["model.safetensors"]
    assert size == (folder / "model.safetensors").stat().st_size
    assert saved.digest == manifest.digest == f"sha256:{digest}"


def test_without_a_manifest_there_is_no_checkpoint(base):
    with pytest.raises(StorageError, match="never finished; use an earlier one"):
        read_manifest(base)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 1}', '{"step": 1, "digest": "", "files": {"a": 3}}'])
def test_a_manifest_that_makes_no_sense_says_so(base, text):
    (base / "manifest.json").write_text(text)
    with pytest.raises(StorageError, match="is not a manifest"):
        read_manifest(base)


def test_damage_of_every_kind_is_found_and_named_at_once(sealed):
    folder, _ = sealed
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StorageError) as caught:
        verify(folder)
    assert "model.safetensors has changed" in str(caught.value)
    assert "config.json has 2 bytes" in str(caught.value)
    assert "tokenizer.json is missing" in str(caught.value)


def test_weights_alone_cannot_be_resumed_from(base):
    with pytest.raises(StorageError, match="can be scored or exported, but not resumed from"):
        checkpoint.read_state(base)


def test_random_states_come_back(sealed):
    tensors, facts = checkpoint.read_state(sealed[0])
    assert facts["step"] == 40
    checkpoint.restore_random_states(tensors)
    again = torch.rand(3)
    checkpoint.restore_random_states(tensors)
    assert torch.equal(torch.rand(3), again)


def test_a_checkpoint_holds_data_formats_only(sealed):
    assert {file.suffix for file in sealed[0].iterdir()} == {".safetensors", ".json", ".jinja"}


FULL = [
    OSError(28, "No space left on device"),
    OSError(122, "Disk quota exceeded"),
    SafetensorError("I/O error: No space left on device (os error 28)"),
]
AWAY = [OSError(30, "Read-only file system"), OSError(5, "Input/output error"), OSError(116, "Stale file handle")]


class Disk:
    """Writes half a checkpoint and fails, so many times."""

    def __init__(self, target: Path, error: Exception, failures: int) -> None:
        self.target, self.error, self.left = target, error, failures

    def __call__(self) -> Saved:
        self.target.mkdir()
        (self.target / "half").write_text("x")
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return Saved(4, str(self.target), "sha256:0")


@pytest.mark.parametrize("error", FULL + AWAY, ids=str)
def test_a_checkpoint_waits_for_a_disk_without_room(tmp_path, monkeypatch, error: Exception):
    monkeypatch.setattr(checkpoint, "_sleep", lambda seconds, give_up: None)
    target = tmp_path / "step-000004"
    waits: list[str] = []
    assert checkpoint.write_patiently(target, Disk(target, error, 2), waiting=waits.append).step == 4
    (said,) = waits
    assert "checkpoint step-000004" in said
    assert "training waits for it" in said
    assert [p.name for p in target.iterdir()] == ["half"]


@pytest.mark.parametrize("error", FULL + AWAY, ids=str)
def test_a_disk_that_stays_full_is_the_storages_fault_and_leaves_nothing_half(tmp_path, error: Exception):
    target = tmp_path / "step-000004"
    kind = StorageFull if error in FULL else StorageUnavailable
    with pytest.raises(kind, match=r"checkpoint step-000004 .*was not written: .*(no room is left|cannot be used now)"):
        checkpoint.write_patiently(target, Disk(target, error, 9), give_up=lambda: True)
    assert not target.exists()


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), SafetensorError("… (os error 13)")], ids=str
)
def test_a_folder_that_may_not_be_written_any_more_is_the_storages_fault(tmp_path, error: Exception):
    target = tmp_path / "step-000004"
    with pytest.raises(StorageDenied, match=r"checkpoint step-000004 .*this user may not read or write here"):
        checkpoint.write_patiently(target, Disk(target, error, 1))
    assert not target.exists()


def test_a_folder_that_is_gone_or_has_become_a_file_is_waited_for(tmp_path, monkeypatch):
    attempt = tmp_path / "attempt-1"
    attempt.write_text("what somebody put there")
    monkeypatch.setattr(checkpoint, "_sleep", lambda seconds, give_up: attempt.unlink())

    def write() -> Saved:
        return Saved(4, str(checkpoint.fresh(attempt / "step-000004")), "sha256:0")

    waits: list[str] = []
    assert checkpoint.write_patiently(attempt / "step-000004", write, waiting=waits.append).step == 4
    assert "Not a directory" in waits[0]


def test_an_error_of_the_code_is_not_waited_for(tmp_path):
    target = tmp_path / "step-000004"
    mistakes = [OSError(number, os.strerror(number)) for number in (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOMEM)]
    more = [ValueError("no number"), SafetensorError("invalid shape"), SafetensorError("… (os error 12)")]
    for error in (*mistakes, *more):
        with pytest.raises(type(error)) as e:
            checkpoint.write_patiently(target, Disk(target, error, 1))
        assert e.value is error
        shutil.rmtree(target, ignore_errors=True)


def test_a_file_of_a_checkpoint_that_may_not_be_read_is_not_called_damaged(sealed, monkeypatch):
    def refuse(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(manifest, "sha256", refuse)
    with pytest.raises(StorageDenied):
        verify(sealed[0])


def test_another_checkpoint_in_its_place_is_not_exported(sealed, tmp_path):
    path = sealed[0]
    manifest = read_manifest(path)
    with pytest.raises(StorageError, match="holds other weights than its sweep wrote there"):
        export(path, tmp_path / "out", digest="sha256:another")
    assert not (tmp_path / "out").exists()
    assert export(path, tmp_path / "out", digest=manifest.digest) == tmp_path / "out"


def test_an_export_is_a_plain_folder_that_transformers_reads(sealed, tmp_path):
    target = export(sealed[0], tmp_path / "out")
    assert not {p.name for p in target.iterdir()} & {checkpoint.STATE, checkpoint.FACTS, "manifest.json"}
    ids = torch.tensor([load_tokenizer(target)("1+2=")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(load_model(target)(ids).logits, load_model(sealed[0])(ids).logits)


def test_an_export_to_bf16_halves_the_weights(sealed, tmp_path):
    target = export(sealed[0], tmp_path / "out", dtype=torch.bfloat16)
    assert load_model(target, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert json.loads((target / "config.json").read_text())["dtype"] == "bfloat16"
    assert (target / "model.safetensors").stat().st_size < 0.6 * (sealed[0] / "model.safetensors").stat().st_size


def test_an_export_neither_overwrites_nor_copies_damage(sealed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="is not empty"):
        export(sealed[0], tmp_path / "out")
    (sealed[0] / "config.json").write_text("{}")
    with pytest.raises(StorageError, match="damaged"):
        export(sealed[0], tmp_path / "other")


def test_an_export_of_a_checkpoint_in_a_bucket_is_that_of_the_folder(sealed, tmp_path, s3_url):
    push(sealed[0], open_store(s3_url), "trials/t/step-000002")
    far = export(f"{s3_url}/trials/t/step-000002", tmp_path / "far")
    near = export(sealed[0], tmp_path / "near")
    files = sorted(p.name for p in near.iterdir())
    assert sorted(p.name for p in far.iterdir()) == files
    assert all((far / name).read_bytes() == (near / name).read_bytes() for name in files)
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
    with pytest.raises(StorageError, match="never finished"):
        export(f"{s3_url}/trials/t/step-000004", tmp_path / "other")


def config_with(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "'auto_map' would run or choose code"),
        ({"_attn_implementation": "someone/kernel"}, "'_attn_implementation'"),
        ({"_attn_implementation_internal": "someone/kernel"}, "'_attn_implementation_internal'"),
        ({"text_config": {"auto_map": {}}}, "'auto_map'"),
        ({"trust_remote_code": True}, "'trust_remote_code'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"model_type": "no-such-model"}, "cannot load it"),
    ],
)
def test_a_model_folder_that_asks_for_code_is_refused(base, keys, message):
    config_with(base, **keys)
    with pytest.raises(InputError, match=message):
        load_model(base)


def test_pickled_weights_are_refused_by_name(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pytorch_model\.bin, which can run code when read"):
        load_model(base)


def test_what_is_missing_is_said(base, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not ship with dipsweep"):
        load_model("nobody")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        load_tokenizer(base)
    (base / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(base)


def test_a_tokenizer_without_an_end_is_refused(base):
    endless = tokenizer()
    endless.eos_token = None
    endless.save_pretrained(base)
    with pytest.raises(InputError, match="no eos_token"):
        load_tokenizer(base)


def test_loading_keeps_every_weight(base):
    want, got = network().state_dict(), load_model(base).state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_a_chosen_template_that_somebody_changed_in_the_cache_is_put_there_anew(base, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    source = ModelSource(str(base), chat_template=str(tmp_path / "own.jinja"))
    folder = model_folder("mine", source)
    (folder / "chat_template.jinja").write_text("")  # as a power cut leaves it
    assert (model_folder("mine", source) / "chat_template.jinja").read_text() == "{{ messages }}"
