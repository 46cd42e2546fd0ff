"""Any number of workers gives the same run: two gloo processes with sharded weights against one process."""

import json
import multiprocessing
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from sweeps.config.blocks import TrialSettings
from sweeps.config.trial import Saved
from tests.support.models.plain_replies import by_transformers, evaluated
from tests.support.models.tiny_sft import Notes, network, tier, tokenizer, trial, write_base
from tests.support.models.two_workers import main
from trainers.checkpoint import verify
from trainers.data.batching.packing import collate
from trainers.data.chat.rows import Rows
from trainers.export import export
from trainers.loop import train
from trainers.model.attention import PACKED, register
from trainers.model.load import load_model
from trainers.step import Learner
from trainers.throughput import ThroughputMeter

SNAPSHOTS = (3, 8)


class Run(NamedTuple):
    reports: dict[int, dict[str, float]]
    saved: list[Saved]


def single(base, folder, resume=None, **settings):
    notes = Notes()
    train(trial(base, SNAPSHOTS, **settings), notes, folder=folder, resume=resume, data=tier())
    return Run(notes.trained(), notes.checkpoints)


def distance(a, b):
    """Relative distance of the last weights of two runs."""
    left, right = (load_file(Path(run.saved[-1].path) / "model.safetensors") for run in (a, b))
    assert left.keys() == right.keys()
    apart = sum(float((left[k] - right[k]).norm() ** 2) for k in left)
    return (apart / sum(float(right[k].norm() ** 2) for k in right)) ** 0.5


def together(world, base, home, runs):
    """Runs trainings one after another as a group of `world` processes; returns what rank 0 was told."""
    plan = {
        "world": world,
        "base": str(base),
        "meeting": str(home / f"meeting-{world}"),
        "answer": str(home / "answer"),
    }
    plan["runs"] = [{"folder": str(home / name), "snapshots": SNAPSHOTS, **run} for name, run in runs.items()]
    (home / "plan.json").write_text(json.dumps(plan))
    fork = multiprocessing.get_context("fork")  # spares each worker the import of torch and transformers, 6 CPU-s
    workers = [fork.Process(target=main, args=(str(home / "plan.json"), rank)) for rank in range(world)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0] * world
    told = json.loads((home / "answer").read_text())
    return {
        Path(name).name: Run({int(k): m for k, m in run["reports"].items()}, [Saved(*s) for s in run["saved"]])
        for name, run in told.items()
    }


def start(saved):
    return {"step": saved.step, "path": saved.path}


LORA = {"lora_rank": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same trial by one worker, by two, and handed over between one, two and three of them at step 3."""
    home = tmp_path_factory.mktemp("workers")
    base = write_base(home / "base")
    one, low = single(base, home / "one"), single(base, home / "low", **LORA)
    two = together(2, base, home, {
        "two": {},
        "two-small": {"settings": {"pack_tokens": 64}},
        "one-then-two": {"resume": start(one.saved[0])},
        "stopped": {"stop_after": 5},
        "low-two": {"settings": LORA},
        "low-one-then-two": {"settings": LORA, "resume": start(low.saved[0])},
    })  # fmt: skip
    three = together(3, base, home, {"two-then-three": {"resume": start(two["two"].saved[0])}})
    alone = {
        "one": one,
        "low": low,
        "one-small": single(base, home / "one-small", pack_tokens=64),
        "two-then-one": single(base, home / "two-then-one", resume=two["two"].saved[0]),
    }
    return {**alone, **two, **three}


def test_two_workers_end_with_the_weights_of_one(runs):
    assert distance(runs["two"], runs["one"]) < 1e-6


def test_two_workers_report_the_losses_and_gradient_norms_of_one(runs):
    assert runs["two"].reports.keys() == runs["one"].reports.keys()
    for step, metrics in runs["one"].reports.items():
        assert runs["two"].reports[step] == pytest.approx(metrics, rel=1e-5)


def test_small_packs_with_an_empty_one_among_them_give_the_same_update(runs):
    assert distance(runs["one-small"], runs["one"]) < 1e-6
    assert distance(runs["two-small"], runs["one"]) < 1e-6


@pytest.mark.parametrize("handed", ["one-then-two", "two-then-one", "two-then-three"])
def test_a_checkpoint_goes_on_with_another_number_of_workers_and_the_batch_stays_the_same(runs, handed):
    assert distance(runs[handed], runs["one"]) < 1e-6
    assert runs[handed].reports[8] == pytest.approx(runs["one"].reports[8], rel=1e-5)


def test_two_workers_train_adapters_as_one_does_and_take_them_up(runs):
    assert distance(runs["low-two"], runs["low"]) < 1e-6
    assert distance(runs["low-one-then-two"], runs["low"]) < 1e-6
    assert distance(runs["low"], runs["one"]) > 1e-3


def test_all_workers_stop_at_the_step_at_which_the_first_is_asked_to(runs):
    assert [s.step for s in runs["stopped"].saved] == [3, 5]


def test_a_checkpoint_of_two_workers_is_a_plain_folder_with_its_digest(runs):
    last = runs["two"].saved[-1]
    assert verify(last.path).digest == last.digest
    assert load_model(last.path).num_parameters() == load_model(runs["one"].saved[-1].path).num_parameters()


@pytest.mark.parametrize("name", ["two", "low-two"])
def test_an_export_of_what_two_workers_trained_says_what_the_checkpoint_said(runs, name, tmp_path):
    checkpoint, prompts = runs[name].saved[-1].path, ["1+2=", "3+4+5=", "7+8+9+1="]
    assert by_transformers(export(checkpoint, tmp_path / "out"), prompts) == evaluated(checkpoint, prompts)


def test_one_device_may_be_sharded_too_and_updates_alike(tmp_path):
    """What a single GPU does to compute in bf16 throughout; here in fp32, where the answer has to be the same."""
    config = TrialSettings.from_config(
        {"model": "m", "data": "d", "steps": 3, "precision": "fp32", "learning_rate": 1e-2}
    )
    draw = torch.Generator().manual_seed(0)
    table = Rows.of([(torch.randint(0, 64, (n,), generator=draw).tolist(), [True] * n) for n in (9, 30, 17)])
    pack, labels = collate(table, [0, 1, 2]), sum(table.labels())
    register()
    device = torch.device("cpu")
    plain = Learner(config, network(PACKED), device, world=1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = Learner(config, network(PACKED), device, world=1, sharded=True)
        for step in (1, 2, 3):
            measured = [
                learner.update(step, [pack], labels, ThroughputMeter(device, 1)) for learner in (plain, sharded)
            ]
            torch.testing.assert_close(measured[0], measured[1], rtol=1e-6, atol=1e-6)
        snapshot = sharded.snapshot(3, {}, 0, own=True)
        assert snapshot is not None
        saved = sharded.write(snapshot, tmp_path, tokenizer())
    finally:
        dist.destroy_process_group()
    for name, tensor in load_file(Path(saved.path) / "model.safetensors").items():
        torch.testing.assert_close(tensor, plain.network.state_dict()[name], rtol=1e-6, atol=1e-6)
