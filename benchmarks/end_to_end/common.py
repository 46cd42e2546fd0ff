"""What every way of the comparison shares: the cells, the data, when a model is scored, and by what."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIERS = ("verified-long-cot", "answer-only", "corrupted-cot")
METRIC = "transfer/score"
MOST_ROWS = 84
"""Rows that an optimizer step can hold: six packs of 256 tokens, each of 14 rows of the shortest tier."""
ITEMS = 100
"""Questions of a task while the sweep runs, by the items of seed 0; what was found is scored again on those of seed 1."""


SIZES: dict[str, dict[str, list[Any]]] = {
    "full": {"data": list(TIERS), "replay": [0.05, 0.2], "lr": [1.5e-3, 3e-3], "steps": [100, 200, 400]},
    "third": {"data": list(TIERS[:2]), "replay": [0.05, 0.2], "lr": [3e-3], "steps": [100, 200, 400]},
    "small": {"data": list(TIERS[:2]), "replay": [0.2], "lr": [3e-3], "steps": [20, 40]},
}
"""36 cells, 12 of them, and 4 that only try the machinery."""


def space() -> dict[str, list[Any]]:
    """The axes of the comparison, at the size that the environment names."""
    return SIZES[os.environ.get("E2E_SIZE", "full")]


def seed() -> int:
    """The seed of the runs, of their order of rows too; the items that score them stay the same."""
    return int(os.environ.get("E2E_SEED", "0"))


def cells() -> list[dict[str, Any]]:
    """Every combination of the axes."""
    axes = space()
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def name_of(cell: dict[str, Any]) -> str:
    """Returns `verified-long-cot r0.2 lr0.003 s400`."""
    return f"{cell['data']} r{cell['replay']:g} lr{cell['lr']:g} s{cell['steps']}"


def scored_at(budget: int) -> set[int]:
    """The steps at which a run is scored: its budget, halved twice per octave, down to a sixty-fourth; as dipsweep does."""
    from sweeps.config.plan import snapshot_steps

    return set(snapshot_steps("log", budget))


def base_model() -> Path:
    from trainers.model.files.builtin import builtin_folder

    return builtin_folder("tiny-s")


def conversations(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns rows for TRL, prompt and completion: the tier once, mixed with replay as the cell says, and no more than the budget
    can use. The trainer goes through them as often as it needs: every further row would be tokenised for nothing."""
    from sweeps.config.trial import TierSource
    from trainers.data.sources.datasets import load

    data = load(cell["data"], TierSource(), seed=0)
    draw = random.Random(seed())
    primary, replay = list(data.primary), list(data.replay)
    draw.shuffle(primary)
    draw.shuffle(replay)
    once, mixed = round(len(primary) / (1 - cell["replay"])), (itertools.cycle(primary), itertools.cycle(replay))
    rows = (next(mixed[draw.random() < cell["replay"]]) for _ in range(min(cell["steps"] * MOST_ROWS, once)))
    return [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]


def sft(cell: dict[str, Any], schedule: str, out: str, report: Callable[[int, float], bool]) -> None:
    """Trains one cell with TRL's `SFTTrainer`, as its documentation shows it; keeps the model when it ran to its budget.

    It is saved before the last score is reported: schedulers may end the process at that report.

    Args:
        schedule: `wsd` (decay over the last fifth) or `cosine`.
        report: takes step and score after each evaluation; False ends the run.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base_model())
    model = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.float32)
    score, at = scorer(tokenizer), scored_at(cell["steps"])

    class Report(TrainerCallback):  # type: ignore[misc, no-any-unimported, unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == cell["steps"]:
                more["model"].save_pretrained(out)
                tokenizer.save_pretrained(out)
            if state.global_step in at and not report(state.global_step, score(more["model"])):
                control.should_training_stop = True

    how = {
        "wsd": {
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": {"num_decay_steps": round(0.2 * cell["steps"]), "min_lr_ratio": 0.0},
        },
        "cosine": {"lr_scheduler_type": "cosine"},
    }[schedule]
    with tempfile.TemporaryDirectory() as scratch:
        args = SFTConfig(
            output_dir=scratch, max_steps=cell["steps"], learning_rate=cell["lr"], warmup_steps=10, **how, seed=seed(),
            per_device_train_batch_size=6, max_length=256, packing=True, packing_strategy="bfd", completion_only_loss=True,
            adam_beta2=0.98, weight_decay=0.01, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        rows = Dataset.from_list(conversations(cell))
        SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[Report()]).train()


def scorer(tokenizer: Any) -> Callable[[Any], float]:
    """Returns the one evaluator of all ways: `transfer/score` of a model in memory."""
    import torch

    from evaluators.engines.huggingface import Loaded
    from evaluators.evaluate import score_model
    from evaluators.suites.registry import load_suite
    from sweeps.config.trial import EvalSpec

    suite = load_suite(EvalSpec("mini", ITEMS), seed=0)

    def score(model: Any) -> float:
        model.eval()
        with torch.no_grad():
            found = score_model(Loaded(model, tokenizer), suite)
        model.train()
        return found.metrics[METRIC]

    return score
