"""Sweep definitions drawn at random over what plans depend on: axes of every kind, budgets, repeats, models, evaluations."""

from __future__ import annotations

import random
from typing import Any

SIZES = ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b")


def random_definition(seed: int) -> dict[str, Any]:
    """Returns a definition that is a sweep; the same one for the same seed."""
    draw = random.Random(seed)
    on_gpu = draw.random() < 0.6
    names = list(SIZES if on_gpu else ("tiny-xs", "tiny-s", "tiny-r"))
    models = draw.sample(names, draw.randint(1, 3))
    space: dict[str, Any] = {}
    zipped = len(models) > 1 and draw.random() < 0.3
    if zipped:
        rates = [1e-3 / (i + 1) for i in range(len(models))]
        space["recipe"] = {"zip": {"model": models, "learning_rate": rates}}
    elif len(models) > 1:
        space["model"] = {"grid": models}
    if draw.random() < 0.7:
        space["steps"] = {"grid": sorted(draw.sample([50, 100, 200, 400, 800], draw.randint(1, 4)))}
    if draw.random() < 0.4:
        space["data"] = {"grid": ["verified-long-cot", "answer-only"]}
    lora = draw.random() < 0.4
    if lora:
        space["lora_rank"] = {"grid": [0, 8]}
    algorithm = draw.choice(["grid", "random", "qmc", "optuna-tpe", "optuna-gp"])
    search: dict[str, Any] = {"algorithm": algorithm}
    if algorithm == "grid":
        space.setdefault("replay", {"grid": [0.0, 0.1, 0.2]})
    else:
        if not zipped:
            space["learning_rate"] = {"loguniform": [1e-4, 1e-2]}
        space["replay"] = {"uniform": [0.0, 0.5]}
        if lora:
            space["lora_alpha"] = {"uniform": [8, 32], "when": {"lora_rank": [8]}}
        search[draw.choice(["trials_per_cell", "trials"])] = draw.randint(1, 6)
    if algorithm in ("grid", "random", "qmc"):
        search["repeats"] = draw.randint(1, 3)
    cells = 1
    for axis in space.values():
        cells *= len(axis.get("grid", [0])) if "grid" in axis else len(axis["zip"]["model"]) if "zip" in axis else 1
    if "trials" in search:
        search["trials"] = search["trials"] * cells * search.get("repeats", 1)
    trainer = {
        "lr_scheduler_type": draw.choice(["wsd", "constant", "cosine"]), "warmup_steps": draw.choice([5, 0.1]),
        "batch_tokens": draw.choice([4096, 65_536]), "max_length": draw.choice([256, 4096]),
    }  # fmt: skip
    definition: dict[str, Any] = {
        "name": f"drawn-{seed}", "space": space, "search": search, "trainer": trainer,
        "evaluation": {"items": draw.choice([5, 40]), "at": draw.choice(["log", {"every": 20}, [10, 50]])},
    }  # fmt: skip
    if draw.random() < 0.3:
        definition["evaluation"]["test_time"] = draw.sample(["@4", "cap=16"], draw.randint(1, 2))
    if on_gpu:
        workers = draw.choice([1, 2, [1, 2]])
        definition["models"] = {m: {"path": "/nowhere", "workers": workers, "gpus_per_worker": 1} for m in models}
    if draw.random() < 0.4:
        definition["stopping"] = {"rule": "dip-aware"}
        if draw.random() < 0.5:
            definition["search"]["promote"] = True
    return definition
