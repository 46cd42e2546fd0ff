"""What a user can hand in besides the sweep file itself: models, data, storage, machines, each refused in one line.

The sweep file has its own table (test_sweep_files.py); so have unreadable rows (test_row_files.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cluster.cli.main as cli
from tests.unit.sweeps.config.sweep_file.test_sweep_files import BAD as FILES

HUGE = {"model_type": "qwen3", "hidden_size": 65536, "num_attention_heads": 512, "num_hidden_layers": 400,
        "intermediate_size": 262144, "vocab_size": 151936}  # fmt: skip
GOOD_MODEL: dict[str, str] = {
    "config.json": '{"model_type": "qwen3"}',
    "tokenizer_config.json": "{}",
    "model.safetensors": "",
}
ROW = json.dumps({"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}) + "\n"


def model(folder: Path, **files: str | None) -> Path:
    """A model's folder, good but for what the case changes: `name=text`, None takes a file away."""
    folder.mkdir(parents=True)
    for name, text in {**GOOD_MODEL, **{k.replace("__", "."): v for k, v in files.items()}}.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def data(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def sweep_of(tmp: Path, **blocks: Any) -> Path:
    path = tmp / "sweep.yaml"
    path.write_text(json.dumps({"name": "x", "storage": str(tmp / "runs"), **blocks}))
    return path


def with_model(tmp: Path, **files: str | None) -> Path:
    return sweep_of(tmp, models={"mine": {"path": str(model(tmp / "m", **files))}}, space={"model": {"grid": ["mine"]}})


def with_data(tmp: Path, raw: bytes, **more: Any) -> Path:
    tier = {"path": str(data(tmp / "d.jsonl", raw)), **more}
    return sweep_of(tmp, tiers={"mine": tier}, space={"data": {"grid": ["mine"]}})


def with_storage(where: Callable[[Path], str]) -> Callable[[Path], Path]:
    return lambda tmp: sweep_of(tmp, storage=where(tmp))


Case = tuple[Callable[[Path], Path], list[str]]
BAD: dict[str, Case] = {
    # model folders
    "no such model folder": (
        lambda t: sweep_of(t, models={"mine": {"path": "/nowhere/qwen"}}, space={"model": {"grid": ["mine"]}}),
        ["models.mine.path", "no folder /nowhere/qwen", "config.json, a tokenizer and safetensors"]),
    "model without config": (lambda t: with_model(t, config__json=None), ["models.mine.path", "has no config.json"]),
    "model without tokenizer": (lambda t: with_model(t, tokenizer_config__json=None), ["has no tokenizer_config.json"]),
    "pickled weights only": (
        lambda t: with_model(t, model__safetensors=None, pytorch_model__bin="x"),
        ["holds only pytorch_model.bin, which can run code when read", "needed: model.safetensors"]),
    "no weights at all": (lambda t: with_model(t, model__safetensors=None), ["holds no weights"]),
    "code of the model's own": (
        lambda t: with_model(t, config__json='{"auto_map": {"AutoModel": "evil.Model"}}'),
        ["key 'auto_map' would run or choose code"]),
    "attention of the file's choosing": (
        lambda t: with_model(t, config__json='{"_attn_implementation_internal": "evil/kernel"}'),
        ["'_attn_implementation_internal'"]),
    "code in the tokenizer": (
        lambda t: with_model(t, tokenizer_config__json='{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'),
        ["tokenizer_config.json: key 'auto_map'"]),
    "config that is no JSON": (lambda t: with_model(t, config__json="{"), ["config.json: not valid JSON"]),
    "config that is a list": (lambda t: with_model(t, config__json="[]"), ["config.json: must hold a JSON object, not list"]),
    "quantised weights": (lambda t: with_model(t, config__json='{"quantization_config": {}}'), ["the weights are quantised"]),
    "adapters alone": (lambda t: with_model(t, adapter_config__json="{}"), ["holds adapters", "merge them"]),
    # data
    "no such data file": (
        lambda t: sweep_of(t, tiers={"mine": {"path": "/nowhere/x.jsonl"}}, space={"data": {"grid": ["mine"]}}),
        ["tiers.mine.path", "no file /nowhere/x.jsonl", "JSONL, Parquet or Arrow"]),
    "a folder for a data file": (
        lambda t: sweep_of(t, tiers={"mine": {"path": str(t)}}, space={"data": {"grid": ["mine"]}}), ["no file", "JSONL"]),
    "empty data file": (lambda t: with_data(t, b""), ["tiers.mine.path", "d.jsonl"]),
    "a line that is no JSON": (lambda t: with_data(t, ROW.encode() + b"{oops\n"), ["d.jsonl:2"]),
    "a row that is no object": (lambda t: with_data(t, b"[1]\n"), ["d.jsonl:1"]),
    "bytes that are no text": (lambda t: with_data(t, b"caf\xe9\n"), ["d.jsonl:1"]),
    "wrong column names": (
        lambda t: with_data(t, b'{"question": "1+1?", "reply": "2"}\n'), ["question", "reply", "messages"]),
    "a renamed column that is not there": (
        lambda t: with_data(t, ROW.encode(), columns={"messages": "chats"}), ["chats"]),
    "a conversation without an answer": (
        lambda t: with_data(t, b'{"messages": [{"role": "user", "content": "1+1?"}]}\n'), ["d.jsonl:1", "assistant"]),
    "more bad rows than allowed": (
        lambda t: with_data(t, ROW.encode() * 3 + b"{\n", max_bad_rows=0.1),
        ["1 of 4 rows are bad (25.00%)", "max_bad_rows: 10.00%"]),
    # storage
    "a file for a storage folder": (
        with_storage(lambda t: str(data(t / "file", b"x"))), ["storage:", "file"]),
    "storage below a file": (
        with_storage(lambda t: str(data(t / "file", b"x") / "runs")), ["storage:"]),
    "no credentials for a bucket": (
        with_storage(lambda t: "s3://some-bucket/x"), ["storage:", "credentials"]),
    # resources and suites
    "unknown suite": (lambda t: sweep_of(t, evaluation={"suite": "maxi"}), ["evaluation.suite", "maxi"]),
    "suite of a folder that is not there": (lambda t: sweep_of(t, evaluation={"suite": "paper:/nowhere"}),
        ["evaluation.suite", "/nowhere"]),
}  # fmt: skip


ON_THIS_MACHINE: dict[str, Case] = {
    "more GPUs than there are": (
        lambda t: sweep_of(t, models={"tiny-s": {"gpus_per_worker": 64}}),
        ["models.tiny-s.gpus_per_worker: 1 x 64 GPU asked for, this machine has", "0 uses the CPU, --address a cluster"]),
    "GPUs for evaluators that are not there": (
        lambda t: sweep_of(t, evaluation={"workers": 32, "gpus_per_worker": 1}),
        ["evaluation.gpus_per_worker: 32 x 1 GPU asked for"]),
    "a model that no machine holds": (
        lambda t: with_model(t, config__json=json.dumps(HUGE)),
        ["models.mine: model 'mine' needs about", "on each of 1 devices", "what would help: more workers", "lora_rank: 16"]),
    "a model that it would hold with adapters alone": (
        lambda t: sweep_of(t, models={"mine": {"path": str(model(t / "m", config__json=json.dumps(HUGE)))}},
                           space={"model": {"grid": ["tiny-s", "mine"]}, "lora_rank": {"grid": [0, 16]}}),
        ["models.mine: model 'mine' needs about"]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_REGION": "us-east-1",
                        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                        "XDG_CACHE_HOME": str(tmp_path / "c"), "DIPSWEEP_CACHE": str(tmp_path / "c")}.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["dipsweep", *words])
    with pytest.raises(SystemExit) as e:
        cli.main()
    return int(e.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_before_anything_starts(
    case: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    code, err = answer(
        monkeypatch, capsys, command, str(make(tmp_path)), *(["--storage"] if command == "validate" else [])
    )
    assert code == 2, err
    assert all(part in err for part in expected), err
    assert err.startswith("sweep.yaml:1 "), err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("backend", ["--in-process", "--cpus=1"])
@pytest.mark.parametrize("case", ON_THIS_MACHINE)
def test_what_this_machine_cannot_hold_is_refused_when_it_is_to_run_here(
    case: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`validate` says nothing of it: the sweep may be meant for another machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make, expected = ON_THIS_MACHINE[case]
    file = str(make(tmp_path))
    code, err = answer(monkeypatch, capsys, "run", file, backend)
    assert code == 2, err
    assert all(part in err for part in expected), err
    assert err.startswith("sweep.yaml:1 "), err
    assert not (tmp_path / "runs").exists()
    _, elsewhere = answer(monkeypatch, capsys, "validate", file)
    assert not any(part in elsewhere for part in expected)


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("case", FILES)
def test_a_sweep_file_that_cannot_be_read_ends_every_command_with_2(
    case: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The table of test_sweep_files.py, by the commands that people use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(FILES[case][0])
    code, err = answer(monkeypatch, capsys, command, "sweep.yaml")
    assert code == 2, err
    assert all(part in err for part in FILES[case][1]), err
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.yaml"]


def test_a_fault_found_late_is_told_with_the_line_of_the_nearest_key(tmp_path: Path, monkeypatch, capsys):
    file = tmp_path / "late.yaml"
    file.write_text(
        "name: x\nmodels:\n  qwen3-1.7b:\n    workers: 1\n    path: /nowhere\nspace: {model: {grid: [qwen3-1.7b]}}\n"
    )
    code, err = answer(monkeypatch, capsys, "validate", str(file))
    assert (code, err.split(" ")[:2]) == (2, ["late.yaml:5", "models.qwen3-1.7b.path:"])
    code, err = answer(monkeypatch, capsys, "run", str(file), "--storage", str(file))
    assert (code, [line.split(" ")[0] for line in err.splitlines()]) == (2, ["--storage:", "late.yaml:5"])
