"""A sweep goes on only from what it began with: data, weights, tokenizer and template are compared by content."""

from __future__ import annotations

import json
import os

import fsspec
import pytest

from cluster.preflight.inputs import FILE, check_inputs
from cluster.run_sweep import _on_workers, run
from cluster.train.functions import score_job, train_model
from cluster.train.inputs import VerifyInputsBefore
from sweeps import Sweep, grid
from sweeps.checkpoints.transfer import RemoteStorageTrainFn
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.controller.evaluation.failure import evaluation_failure
from sweeps.errors import InputError, InputsChanged, Interrupted
from sweeps.executors import storage_backoff
from sweeps.failures import FailureKind
from sweeps.journal.history import History
from sweeps.journal.writer import read_rows
from sweeps.storage.factory import open_store
from tests.support.fakes import FakeTrainer, fake_evaluate
from tests.support.models.tiny_sft import TEMPLATE, sums, write_base


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    write_base(tmp_path / "model")
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sums(8)))
    (tmp_path / "other.jinja").write_text(TEMPLATE)
    return own(tmp_path)


def own(tmp_path, **more):
    return Sweep(
        name="own",
        storage=str(tmp_path / "runs"),
        models={"mine": {"path": str(tmp_path / "model"), "chat_template": str(tmp_path / "other.jinja")}},
        tiers={"ours": {"path": str(tmp_path / "ours.jsonl")}},
        trainer={"steps": 2},
        **more,
    )


def rewrite(file, old, new):
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("ours.jsonl", b"assistant", b"assistanT", "tiers.ours"),
        ("model/model.safetensors", b"\x00\x00", b"\x00\x01", "models.mine "),
        ("model/tokenizer.json", b"<pad>", b"<paD>", "models.mine "),
        ("other.jinja", b"[", b"(", "models.mine.chat_template"),
    ],
)
def test_a_change_of_any_input_is_refused_and_the_same_input_again_is_taken(sweep, tmp_path, name, old, new, told):
    home = open_store(tmp_path / "home")
    check_inputs(sweep, home)
    check_inputs(sweep, home)
    kept = (tmp_path / name).read_bytes()
    rewrite(tmp_path / name, old, new)
    with pytest.raises(InputError, match="is not what this sweep began with") as caught:
        check_inputs(sweep, home)
    assert told in str(caught.value)
    (tmp_path / name).write_bytes(kept)
    check_inputs(sweep, home)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_damaged_list_of_inputs_is_said_and_nothing_is_taken_for_granted(sweep, tmp_path, text):
    home = open_store(tmp_path / "home")
    check_inputs(sweep, home)
    home.write(FILE, text.encode())
    with pytest.raises(InputError, match=rf"{FILE} is damaged: .*restore it from a copy"):
        check_inputs(sweep, home)


def test_what_a_sweep_gains_later_is_written_down_beside_the_rest(sweep, tmp_path):
    home = open_store(tmp_path / "home")
    check_inputs(sweep, home)
    (tmp_path / "more.jsonl").write_bytes((tmp_path / "ours.jsonl").read_bytes())
    tiers = {name: {"path": str(tmp_path / f"{name}.jsonl")} for name in ("ours", "more")}
    models = {"mine": {"path": str(tmp_path / "model"), "chat_template": str(tmp_path / "other.jinja")}}
    more = Sweep(name="own", models=models, tiers=tiers, space={"data": grid("ours", "more")}, trainer={"steps": 2})
    check_inputs(more, home)
    assert len(json.loads(home.read(FILE))) == 5


def test_a_sweep_whose_data_changed_is_refused_before_anything_runs_and_no_trial_ends(sweep, tmp_path):
    def interrupted(trial, hooks, **_):
        raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        run(sweep, backend="in-process", train=interrupted, say=lambda line: None)
    (home,) = (tmp_path / "runs").glob("own-*")
    rewrite(tmp_path / "ours.jsonl", b"assistant", b"assistanT")
    before = [row.kind for row in read_rows(home) if row.kind != "lease"]
    with pytest.raises(InputError, match=r"tiers\.ours .* is not what this sweep began with"):
        run(sweep, backend="in-process", train=interrupted, say=lambda line: None)
    after = [row.kind for row in read_rows(home) if row.kind != "lease"]
    assert [kind for kind in after[len(before) :] if kind == "end"] == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ours.jsonl", b"assistant", b"assistanT"),
        ("model/model.safetensors", b"\x00\x00", b"\x00\x01"),
        ("ours.jsonl", b"", b"gone"),
        ("other.jinja", b"", b"gone"),
        ("ours.jsonl", b"", b"closed"),
    ],
)
def test_a_trial_that_would_train_from_another_input_waits_until_it_is_restored(
    sweep, tmp_path, monkeypatch, name, old, new
):
    """Replaced while the sweep runs: the second trial would be ranked with the first, and nobody would know."""
    monkeypatch.setattr(storage_backoff, "FIRST_S", 0.01)
    sweep = own(tmp_path, space={"learning_rate": grid(1e-3, 2e-3)})
    access = os.access
    kept, said, trained_on = (tmp_path / name).read_bytes(), list[str](), list[bytes]()
    fake = FakeTrainer()

    def train(*args, **kwargs):
        trained_on.append((tmp_path / name).read_bytes())
        fake(*args, **kwargs)
        if new == b"gone":
            (tmp_path / name).unlink()
        elif new == b"closed":
            monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / name)
        else:
            rewrite(tmp_path / name, old, new)

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("paused: ") and ("sweep began with" in line or "not there" in line or "denied" in line):
            monkeypatch.setattr(os, "access", access)
            (tmp_path / name).write_bytes(kept)

    home = tmp_path / "runs" / sweep.id
    run(sweep, backend="in-process", train=VerifyInputsBefore(train, home), evaluate=fake_evaluate, say=say)
    assert {c.state for c in History(read_rows(home)).trials()} == {"completed"}
    assert trained_on == [kept, kept]
    assert any(line.startswith("paused: ") for line in said)


def test_whoever_trains_is_asked_whether_its_process_goes_on(tmp_path):
    assert VerifyInputsBefore(train_model, tmp_path).reuse
    assert not VerifyInputsBefore(FakeTrainer(), tmp_path).reuse


def test_inputs_are_looked_at_before_a_checkpoint_is_copied_from_a_bucket():
    """A trial that waits for its data is tried once a minute; each try would copy the checkpoint for nothing."""
    root = open_store("s3://bucket/sweeps")
    outer = _on_workers(train_model, root, root / "s-1", verify=True)
    assert isinstance(outer, VerifyInputsBefore)
    assert isinstance(outer.train, RemoteStorageTrainFn)
    assert (outer.train.train, outer.home, outer.reuse) == (train_model, "s3://bucket/sweeps/s-1", True)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("model/model.safetensors", b"\x00\x00", b"\x00\x01", "models.mine "),
        ("other.jinja", b"[", b"(", "models.mine.chat_template"),
    ],
)
def test_a_base_model_that_is_another_now_gets_no_score(sweep, tmp_path, monkeypatch, name, old, new, told):
    """It is scored when its first trial starts, hours after the sweep began maybe; trials are held against its scores."""
    home = open_store(tmp_path / "home")
    check_inputs(sweep, home)
    monkeypatch.setattr("evaluators.evaluate.evaluate", lambda folder, *how, **more: folder)
    (spec,) = Plan(sweep).known_trials()
    job = EvalJob("base-mine", 0, 0, spec.model.path, "mine", spec.evaluation)

    def scored():
        return score_job(job, scores=str(tmp_path / "scores"), home=str(home))

    assert scored().is_dir()
    kept = (tmp_path / name).read_bytes()
    rewrite(tmp_path / name, old, new)
    with pytest.raises(InputsChanged, match="is not what this sweep began with") as caught:
        scored()
    assert told in str(caught.value)
    assert evaluation_failure(caught.value).kind is FailureKind.STORAGE  # waits, and counts as no try
    (tmp_path / name).write_bytes(kept)
    assert scored().is_dir()


def test_what_nobody_fetches_of_a_models_folder_in_a_bucket_may_change(tmp_path, monkeypatch):
    """A page that somebody adds there while the sweep runs; trials wait for weights that are others, and for no more."""
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    remote = fsspec.filesystem("memory")
    remote.store.clear()
    for file in write_base(tmp_path / "model").iterdir():
        remote.pipe_file(f"/models/m/{file.name}", file.read_bytes())
    sweep, home = Sweep(name="own", models={"m": {"path": "memory://models/m"}}), open_store(tmp_path / "home")
    (spec,) = Plan(sweep).known_trials()
    trained = list[str]()

    def go_on() -> None:
        check_inputs(sweep, home)
        VerifyInputsBefore(lambda trial, hooks: trained.append(trial.id), str(home))(spec, object())

    earlier = {"models.m (memory://models/m)": "0123456789abcdef"}  # up to version 0.2 of every file in the folder
    home.write(FILE, json.dumps(earlier).encode())
    go_on()
    remote.pipe_file("/models/m/README.md", b"read me")
    go_on()
    assert len(trained) == 2
    remote.pipe_file("/models/m/config.json", b"{}")
    with pytest.raises(
        InputError, match=r"models\.m \(what is fetched of memory://models/m\) is not what this sweep began"
    ):
        check_inputs(sweep, home)
    with pytest.raises(InputsChanged):
        VerifyInputsBefore(lambda trial, hooks: None, str(home))(spec, object())
