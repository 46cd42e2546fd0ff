"""The real vLLM in an environment of its own: `PYTHON -m tests.scenario.programs.vllm WHAT FOLDER` prints what it found as JSON.

It runs under an interpreter that has vLLM (`make vllm`), which need not be that of the tests.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file

from evaluators.decoding import Reply
from evaluators.engines import vllm
from evaluators.engines.huggingface import load
from evaluators.evaluate import answer
from evaluators.suites.registry import load_suite
from evaluators.tasks import Suite
from sweeps.checkpoints.manifest import STATE
from sweeps.config.trial import EvalSpec
from trainers.model.files.builtin import builtin_folder
from trainers.model.load import load_model, load_tokenizer

ITEMS = 40


def checkpoints(folder: Path, count: int, *, tied: bool) -> list[Path]:
    """Writes checkpoints of tiny-s that answer differently: its weights, each time a little further from them."""
    out = []
    for number in range(count):
        model = load_model(builtin_folder("tiny-s"), dtype=torch.float32)
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=draw) * parameter.std() * 0.05 * number
                parameter.add_(noise)
        if not tied:
            model.config.tie_word_embeddings = False
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        path = folder / f"{'tied' if tied else 'untied'}-{number}"
        model.save_pretrained(path)
        load_tokenizer(builtin_folder("tiny-s")).save_pretrained(path)
        save_file({"adam/model": torch.zeros(2)}, path / STATE)  # as a trained checkpoint has it
        out.append(path)
    return out


def suite() -> Suite:
    return load_suite(EvalSpec("mini", ITEMS))


def alike(ours: list[Reply], theirs: list[Reply]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=True))


def compare(folder: Path, count: int, *, tied: bool) -> dict[str, Any]:
    """Answers with one checkpoint after the other in vLLM, as an evaluator does, then in transformers."""
    paths, ours, memory, engines = checkpoints(folder, count, tied=tied), [], [], []
    for path in paths:
        engines.append(vllm.engine_for(path))
        ours.append(answer(engines[-1], suite())[0])
        memory.append(megabytes())
    theirs = [answer(load(path), suite())[0] for path in paths]
    return {
        "items": len(theirs[0]),
        "same": [alike(a, b) for a, b in zip(ours, theirs, strict=True)],
        "different": len({json.dumps([reply.ids for reply in replies]) for replies in ours}),
        "engines": len(set(map(id, engines))),
        "mib": memory,
    }


def megabytes() -> list[float]:
    """Memory of this process and of each below it, in MiB; what they share is split among them."""
    me = psutil.Process()
    return [p.memory_full_info().pss / 2**20 for p in [me, *me.children(recursive=True)]]


def untied(folder: Path) -> dict[str, Any]:
    return compare(folder, 10, tied=False)


def tied(folder: Path) -> dict[str, Any]:
    return compare(folder, 2, tied=True)


def killed(folder: Path) -> dict[str, Any]:
    """The engine is killed between two evaluations, then in the middle of one."""
    (path,) = checkpoints(folder, 1, tied=False)
    expected, same, errors = answer(load(path), suite())[0], [], []
    for _ in range(2):
        engine = vllm.engine_for(path)
        same.append(alike(answer(engine, suite())[0], expected))
        for process in psutil.Process().children(recursive=True):
            process.kill()
        try:
            answer(engine, suite())
        except Exception as e:
            errors.append(type(e).__name__)
    same.append(alike(answer(vllm.engine_for(path), suite())[0], expected))
    return {"items": len(expected), "same": same, "errors": errors}


def context(folder: Path) -> dict[str, Any]:
    """Prompts over the context, beside one within it."""
    (path,) = checkpoints(folder, 1, tied=False)
    engine, other = vllm.engine_for(path), load(path)
    prompt = engine.tokenizer("SUM 1+2=", add_special_tokens=False)["input_ids"]
    prompts = [prompt, prompt * engine.longest, prompt[:1] * (engine.longest - 2)]
    how = suite().decoding
    ours, theirs = (one.generate(prompts, [24, 24, 24], how) for one in (engine, other))
    return {"items": len(ours), "same": [alike(ours, theirs)], "empty": ours[1] == Reply([], truncated=True)}


def wait(folder: Path) -> dict[str, Any]:
    """Starts an engine, says which processes there are, and waits to be killed."""
    (path,) = checkpoints(folder, 1, tied=False)
    vllm.engine_for(path)
    print("DONE " + json.dumps([p.pid for p in psutil.Process().children(recursive=True)]), flush=True)
    time.sleep(600)
    return {}


WHATS: dict[str, Callable[[Path], dict[str, Any]]] = {f.__name__: f for f in (untied, tied, killed, context, wait)}

if __name__ == "__main__":
    found = WHATS[sys.argv[1]](Path(sys.argv[2]))
    vllm.close()
    print("DONE " + json.dumps(found), flush=True)
