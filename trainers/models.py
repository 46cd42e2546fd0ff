"""Models and tokenizers from folders on disk: safetensors only, no remote code, no download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sweeps.errors import InputError
from sweeps.trial import ModelSource
from trainers import attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILTIN = "builtin"


def model_folder(name: str, source: ModelSource) -> Path:
    """Returns the folder of a sweep's model: a packaged one for `path: builtin`, else the path itself."""
    if source.path == BUILTIN:
        from trainers.base import builtin_folder

        return Path(builtin_folder(name))
    return Path(source.path).expanduser()


def load_model(path: str | Path, *, attn: str = "sdpa", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a causal language model.

    Args:
        path: a folder with config.json and safetensors weights, or a builtin model's name.
        attn: attention implementation; `attention.PACKED` for training on packs, `sdpa` for anything else.
        dtype: type of the weights in memory.

    Raises:
        InputError: the folder is missing, incomplete, holds pickled weights only, or its config asks for code.
    """
    folder = checked_folder(path)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    attention.register()
    logging.disable_progress_bar()  # two bars for every load and save would bury the log
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attn,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"model folder {folder}: transformers cannot load it: {e}") from e
    return model


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a model folder (or builtin model); it must bring a chat template and an end token.

    Raises:
        InputError: the folder is unsafe or incomplete, or the tokenizer has no chat template or no end token.
    """
    folder = checked_folder(path)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"model folder {folder}: transformers cannot load its tokenizer: {e}") from e
    if not tokenizer.chat_template:
        raise InputError(f"model folder {folder}: the tokenizer has no chat template; put a chat_template.jinja there")
    if tokenizer.eos_token_id is None:
        raise InputError(f"model folder {folder}: the tokenizer has no eos_token, so no reply would ever end")
    return tokenizer


def checked_folder(path: str | Path) -> Path:
    """Returns the folder behind a path or builtin name once it is known to be safe to load.

    Raises:
        InputError: it is no such folder, or something in it must not be loaded.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _builtin(str(path))
    config = _json(folder / "config.json")
    for file in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / file).exists():
            _refuse_code(folder / file)
    if "quantization_config" in config:
        raise InputError(f"{folder}/config.json: the weights are quantised; training needs the full-precision model")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"})
        held = f"only {', '.join(pickled)}, which can run code when read" if pickled else "no weights"
        raise InputError(f"model folder {folder} holds {held}; needed: model.safetensors (save_pretrained writes it)")
    return folder


def _builtin(name: str) -> Path:
    if "/" in name or "\\" in name:
        raise InputError(f"model folder {name} does not exist; give a folder with config.json and *.safetensors")
    from trainers.base import builtin_folder

    return Path(builtin_folder(name))


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"model folder {file.parent} has no {file.name}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{file}: not valid JSON: {e}") from e
    if not isinstance(data, dict):
        raise InputError(f"{file}: must hold a JSON object, not {type(data).__name__}")
    return data


def _refuse_code(file: Path) -> None:
    """Refuses keys that make transformers import code or pick an attention of the file's choosing (CVE-2026-4372)."""
    for key in _keys(_json(file)):
        if key in ("auto_map", "trust_remote_code", "custom_pipelines") or key.startswith("_attn_implementation"):
            raise InputError(
                f"{file}: key {key!r} would run or choose code; remove it (dipsweep never runs a model's own code)"
            )


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
