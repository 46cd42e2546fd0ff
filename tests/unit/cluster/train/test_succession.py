"""Runs of other settings, one after the other in one process: what a run trains depends on none of those before it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.train.functions import train_model
from cluster.train.process_state import ProcessState
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved

SETTINGS: tuple[dict[str, Any], ...] = (
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"precision": "bf16", "lora_rank": 4},
    {"precision": "fp32", "gradient_checkpointing": True},
)


class Kept:
    """Hooks that keep the digests of checkpoints."""

    background_saves = True

    def __init__(self) -> None:
        self.digests: list[str] = []

    def report(self, step: int, metrics: Mapping[str, float], **rest: Mapping[str, float]) -> None: ...

    def saved(self, checkpoint: Saved) -> None:
        self.digests.append(checkpoint.digest)

    def waiting(self, reason: str) -> None: ...

    def stop_asked(self) -> bool:
        return False


@pytest.mark.parametrize("model", ["tiny-xs", "tiny-r"])
def test_weights_are_the_same_whatever_was_trained_before_in_the_process(model: str, tmp_path: Path):
    state, found = ProcessState.capture(), []
    for number, i in enumerate((0, 1, 2, 3, 2, 1, 0)):
        sweep = Sweep(
            name="succession",
            models={model: {}},
            space={"model": grid(model)},
            trainer={"steps": 3, "batch_tokens": 256, "max_length": 128, "warmup_steps": 1, **SETTINGS[i]},
            evaluation={"at": [3]},
        )
        hooks = Kept()
        train_model(Plan(sweep).known_trials()[0], hooks, folder=tmp_path / str(number), resume=None)
        assert state.doubt() == ""
        state.restore()
        found.append(hooks.digests)
    assert all(found)
    assert found == found[::-1]
    assert (
        found[0] == found[3] != found[1] != found[2]
    )  # recomputed activations change nothing; precision and adapters do
