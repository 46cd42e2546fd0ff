"""What has to lie in a model's folder, and what must not be in it; nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Final

from sweeps.config.known_models import INTERNLM
from sweeps.errors import InputError
from trainers.data.sources.download_cache import is_remote, listing, read_remote
from trainers.model.recurrent.recurrence import check_recurrence

NEEDED: Final = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""What is fetched of a folder that lies elsewhere: weights, configuration, tokenizer."""
CONFIGS: Final = ("config.json", "tokenizer_config.json", "generation_config.json")
PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
Files = Mapping[str, Callable[[], bytes]]
"""The names of a folder's files, and how to read each."""


def is_needed(name: str) -> bool:
    """True for a file that loading a model may read."""
    return any(fnmatch(name, pattern) for pattern in NEEDED)


def check_model(path: str) -> None:
    """Says whether a model's folder can be used, here or elsewhere; of one elsewhere only small files are read.

    Raises:
        InputError: it does not exist, is incomplete, or must not be loaded.
    """
    if is_remote(path):
        files: Files = {name: partial(read_remote, path, name) for name in listing(path)}
    elif Path(path).expanduser().is_dir():
        files = _local(Path(path).expanduser())
    else:
        raise InputError(f"no folder {path}; give a folder with config.json, a tokenizer and safetensors")
    _check(path, files)
    if "tokenizer_config.json" not in files:
        raise InputError(f"model folder {path} has no tokenizer_config.json; a tokenizer belongs to the model")


def checked_folder(path: str | Path) -> Path:
    """Returns the folder behind a path or builtin name once it is known to be safe to load.

    Raises:
        InputError: it is no such folder, or something in it must not be loaded.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _builtin(str(path))
    _check(str(folder), _local(folder))
    return folder


def _local(folder: Path) -> Files:
    return {p.name: p.read_bytes for p in folder.iterdir() if p.is_file()}


def _builtin(name: str) -> Path:
    if "/" in name or "\\" in name:
        raise InputError(f"model folder {name} does not exist; give a folder with config.json and *.safetensors")
    from trainers.model.files.builtin import builtin_folder

    return Path(builtin_folder(name))


def _check(folder: str, files: Files) -> None:
    if "adapter_config.json" in files:
        raise InputError(f"model folder {folder} holds adapters beside or without their base; merge them into it first")
    if "config.json" not in files:
        raise InputError(f"model folder {folder} has no config.json")
    config = _json(f"{folder}/config.json", files["config.json"]())
    if config.get("model_type") == "internlm2":
        raise InputError(f"{folder}/config.json: {INTERNLM}")
    check_recurrence(folder, config)
    for name in CONFIGS:
        if name in files:
            _refuse_code(f"{folder}/{name}", files[name]())
    if "quantization_config" in config:
        raise InputError(f"{folder}/config.json: the weights are quantised; training needs the full-precision model")
    if not any(name.endswith(".safetensors") for name in files):
        pickled = sorted(name for name in files if name.endswith(PICKLED))
        held = f"only {', '.join(pickled)}, which can run code when read" if pickled else "no weights"
        raise InputError(f"model folder {folder} holds {held}; needed: model.safetensors (save_pretrained writes it)")


def _json(place: str, text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text.decode("utf-8"))
    except ValueError as e:
        raise InputError(f"{place}: not valid JSON: {e}") from e
    if not isinstance(data, dict):
        raise InputError(f"{place}: must hold a JSON object, not {type(data).__name__}")
    return data


def _refuse_code(place: str, text: bytes) -> None:
    """Refuses keys that make transformers import code or pick an attention of the file's choosing (CVE-2026-4372)."""
    for key in _keys(_json(place, text)):
        if key in ("auto_map", "trust_remote_code", "custom_pipelines") or key.startswith("_attn_implementation"):
            raise InputError(
                f"{place}: key {key!r} would run or choose code; remove it (dipsweep never runs a model's own code)"
            )


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
