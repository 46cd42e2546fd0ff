"""Which engine answers on this machine, and what of it decides replies."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from evaluators.engines import huggingface, vllm
from evaluators.engines.base import Engine


def engine_for(folder: Path) -> Engine:
    """Returns an engine with a checkpoint in it: vLLM where it can run, else Hugging Face."""
    return vllm.engine_for(folder) if vllm.usable() else huggingface.load(folder)


def engine_settings() -> dict[str, str]:
    """Returns what else decides replies on this machine: the generator, the kind of device, the compute type."""
    names = ("dipsweep", "transformers", *(["vllm"] if vllm.usable() else []))
    code = " ".join(f"{name} {version(name)}" for name in names)
    return {"engine": code, **huggingface.placement()}
