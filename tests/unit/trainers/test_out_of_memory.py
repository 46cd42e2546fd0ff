"""Out of memory, whoever says it: one more try from the last checkpoint, then the trial fails and says what to change."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import ray
import torch

from cluster.train.worker import explain
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.controller.attempts import LESS_MEMORY
from sweeps.controller.controller import SweepController
from sweeps.errors import out_of_memory
from sweeps.executors.local import InProcess
from sweeps.failures import FailureKind
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import NeverStop
from tests.support.fakes import FakeTrainer, Paced, fake_evaluate

SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 4000000000000 bytes"),
    MemoryError(),
    ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory"),
]


@pytest.mark.parametrize("error", SAID, ids=lambda e: type(e).__module__)
def test_on_ray_it_is_told_apart_from_an_error_of_the_trial(error: Exception):
    failure = explain(error)
    assert (failure.kind, failure.retryable, bool(failure.detail)) == (FailureKind.OUT_OF_MEMORY, True, True)
    assert explain(RuntimeError("shapes do not match")).kind is FailureKind.USER
    assert not out_of_memory(ValueError("the optimiser was out of memory of its past"))


def test_a_real_refusal_of_the_allocator_is_known():
    with pytest.raises(RuntimeError) as e:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(e.value)


@pytest.mark.parametrize(("times", "ends"), [(1, "completed"), (2, "failed")])
def test_in_this_process_it_is_tried_once_more_and_the_sweep_goes_on(times: int, ends: str, tmp_path: Path):
    sweep = Sweep(name="oom", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})
    begins: list[tuple[float, int]] = []

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        replay = float(trial.config["replay"])
        begins.append((replay, resume.step if resume else 0))
        short = replay == 0.0 and len(begins) <= times

        class Short(Paced):
            saves = 0

            def saved(self, checkpoint: Saved) -> None:
                super().saved(checkpoint)
                self.saves += 1
                if short and self.saves == 2:
                    raise SAID[0]

        FakeTrainer()(trial, Short(hooks), folder=folder, resume=resume)

    controller = SweepController(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))
    InProcess(controller, train, fake_evaluate, tmp_path).run()
    first, second = controller.history.trials()
    assert (first.state, second.state) == (ends, "completed")
    assert [step > 0 for replay, step in begins if replay == 0.0] == [False, True]
    if ends == "failed":
        assert first.reason == "oom"
        assert "CUDA out of memory" in first.detail
        assert LESS_MEMORY in first.detail


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (ValueError("Memory map failed: Cannot allocate memory (os error 12)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("CUDA out of memory is a sentence here"), False),
    ],
    ids=str,
)
def test_memory_that_the_kernel_refuses_is_memory_too(error: Exception, is_it: bool):
    assert out_of_memory(error) is is_it
    assert (explain(error).kind is FailureKind.OUT_OF_MEMORY) is is_it
