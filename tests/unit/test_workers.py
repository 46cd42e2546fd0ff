"""Any number of workers gives the same run: two gloo processes with sharded weights against one process."""

import json
import multiprocessing
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from sweeps.trial import Saved
from tests.unit.tiny_sft import Notes, network, tier, tokenizer, trial, write_base
from tests.unit.two_workers import main
from trainers.attention import PACKED, register
from trainers.checkpoint import verify
from trainers.config import TrainerConfig
from trainers.learner import Learner
from trainers.loop import train
from trainers.meter import Meter
from trainers.models import load_model
from trainers.packing import collate
from trainers.rows import Rows

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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same trial by one worker, by two, and handed over between them at step 3 in both directions."""
    home = tmp_path_factory.mktemp("workers")
    base = write_base(home / "base")
    one = single(base, home / "one")
    packed_small = single(base, home / "one-small", pack_tokens=64)
    handed = one.saved[0]
    plan = {
        "world": 2,
        "base": str(base),
        "meeting": str(home / "meeting"),
        "answer": str(home / "answer.json"),
        "runs": [
            {"folder": str(home / "two"), "snapshots": SNAPSHOTS},
            {"folder": str(home / "two-small"), "snapshots": SNAPSHOTS, "settings": {"pack_tokens": 64}},
            {"folder": str(home / "one-then-two"), "snapshots": SNAPSHOTS, "resume": {"step": 3, "path": handed.path}},
            {"folder": str(home / "stopped"), "snapshots": SNAPSHOTS, "stop_after": 5},
        ],
    }
    (home / "plan.json").write_text(json.dumps(plan))
    fork = multiprocessing.get_context("fork")  # spares each worker the import of torch and transformers, 6 CPU-s
    workers = [fork.Process(target=main, args=(str(home / "plan.json"), rank)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0]
    told = json.loads((home / "answer.json").read_text())
    two = {
        Path(name).name: Run({int(k): m for k, m in run["reports"].items()}, [Saved(*s) for s in run["saved"]])
        for name, run in told.items()
    }
    back = single(base, home / "two-then-one", resume=two["two"].saved[0])
    return {"one": one, "one-small": packed_small, "two-then-one": back, **two}


def test_two_workers_end_with_the_weights_of_one(runs):
    assert distance(runs["two"], runs["one"]) < 1e-6


def test_two_workers_report_the_losses_and_gradient_norms_of_one(runs):
    assert runs["two"].reports.keys() == runs["one"].reports.keys()
    for step, metrics in runs["one"].reports.items():
        assert runs["two"].reports[step] == pytest.approx(metrics, rel=1e-5)


def test_small_packs_with_an_empty_one_among_them_give_the_same_update(runs):
    assert distance(runs["one-small"], runs["one"]) < 1e-6
    assert distance(runs["two-small"], runs["one"]) < 1e-6


def test_a_checkpoint_of_one_worker_goes_on_with_two_and_the_other_way_round(runs):
    assert distance(runs["one-then-two"], runs["one"]) < 1e-6
    assert distance(runs["two-then-one"], runs["one"]) < 1e-6


def test_all_workers_stop_at_the_step_at_which_the_first_is_asked_to(runs):
    assert [s.step for s in runs["stopped"].saved] == [3, 5]


def test_a_checkpoint_of_two_workers_is_a_plain_folder_with_its_digest(runs):
    last = runs["two"].saved[-1]
    assert verify(last.path).digest == last.digest
    assert load_model(last.path).num_parameters() == load_model(runs["one"].saved[-1].path).num_parameters()


def test_one_device_may_be_sharded_too_and_updates_alike(tmp_path):
    """What a single GPU does to compute in bf16 throughout; here in fp32, where the answer has to be the same."""
    config = TrainerConfig.from_config({"model": "m", "data": "d", "steps": 3, "precision": "fp32", "lr": 1e-2})
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
            measured = [learner.update(step, [pack], labels, Meter(device, 1)) for learner in (plain, sharded)]
            torch.testing.assert_close(measured[0], measured[1], rtol=1e-6, atol=1e-6)
        saved = sharded.save(tmp_path, 3, tokenizer(), {}, rank=0)
    finally:
        dist.destroy_process_group()
    for name, tensor in load_file(Path(saved.path) / "model.safetensors").items():
        torch.testing.assert_close(tensor, plain.network.state_dict()[name], rtol=1e-6, atol=1e-6)
