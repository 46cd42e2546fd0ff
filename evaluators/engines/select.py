"""Which engine answers on this machine, and what of it decides replies."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evaluators.engines import huggingface, vllm
from evaluators.engines.base import Engine
from evaluators.engines.skeleton import load_again
from trainers.model.recurrent.recurrence import is_recurrent


def engine_for(folder: Path, *, keep_network: bool = False, judge: str = "", beside_training: bool = False) -> Engine:
    """Returns an engine with a checkpoint in it: vLLM where it can run, else Hugging Face, as for every model of recurrent depth.

    Args:
        keep_network: the network of the call before is used again where it can be; it stays in memory.
        judge: folder of a model that answers beside it; "" for none.
        beside_training: this process trains on the same device. vLLM takes its part of a device's memory when it starts, before
            training has taken all that it will, so Hugging Face answers.
    """
    if vllm.distribution() and not beside_training:
        shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not is_recurrent(shape):
            return vllm.engine_for(folder, judge=judge)
    return load_again(folder) if keep_network else huggingface.load(folder)


def engine_settings(*, beside_training: bool = False) -> dict[str, str]:
    """Returns what else decides replies on this machine: the generator, the kind of device, the compute type."""
    engine = "" if beside_training else vllm.distribution()
    names = ("dipsweep", "transformers", *([engine] if engine else []))
    code = " ".join(f"{name} {_version(name)}" for name in names)
    return {"engine": code, **huggingface.placement()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # dipsweep itself, where its code was sent with a job
        return "sent"
