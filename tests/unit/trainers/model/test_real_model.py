"""A real model of 135M parameters takes ten steps of SFT on countdown traces.

Needs a folder with SmolLM2-135M, made by `python -m benchmarks.trainer.smollm2`; its path in DIPSWEEP_SMOLLM2.
"""

import os
import random
from itertools import permutations, product
from pathlib import Path

import pytest

from sweeps.config.trial import ModelSource, TierSource, TrialSpec
from tests.support.tiny_sft import Notes
from trainers.data.types import TierData
from trainers.loop import train
from trainers.model.load import load_model

FOLDER = os.environ.get("DIPSWEEP_SMOLLM2", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="DIPSWEEP_SMOLLM2 names no folder with SmolLM2-135M"),
]
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def search(numbers, target):
    """Every attempt in order, as text, up to the one that reaches the target; None when none does."""
    lines = []
    for (a, b, c), (first, second) in product(permutations(numbers), product(OPERATIONS, repeat=2)):
        left = OPERATIONS[first](a, b)
        result = OPERATIONS[second](left, c)
        lines.append(f"{a}{first}{b}={left}, {left}{second}{c}={result}")
        if result == target:
            return lines[-6:]
    return None


def countdown(count):
    draw, out = random.Random(0), []
    while len(out) < count:
        numbers, target = [draw.randint(1, 20) for _ in range(3)], draw.randint(5, 60)
        if lines := search(numbers, target):
            question = f"Use {', '.join(map(str, numbers))} once each to make {target}."
            answer = f"<think>{'; no: '.join(lines)}; yes</think>{lines[-1]}"
            out.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    return out


def test_smollm2_learns_from_ten_steps_on_countdown_traces(tmp_path):
    config = {
        "model": "smollm2",
        "data": "countdown",
        "steps": 10,
        "learning_rate": 2e-4,
        "warmup_steps": 2,
        "batch_tokens": 512,
        "max_length": 256,
        "logging_steps": 1,
    }
    spec = TrialSpec("t-real", "s-real", config, ModelSource(FOLDER), TierSource("unused"), (10,))
    notes = Notes()
    train(spec, notes, folder=tmp_path, data=TierData(countdown(60)))
    losses = [notes.reports[step]["train/loss"] for step in range(1, 11)]
    print("losses", [round(x, 3) for x in losses], notes.costs[-1])
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert load_model(Path(notes.checkpoints[-1].path)).num_parameters() > 130e6
