"""Models and tokenizers from folders: safetensors only, no remote code, nothing from a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sweeps.config.trial import ModelSource
from sweeps.errors import InputError
from trainers.data.download_cache import fetched
from trainers.model import attention
from trainers.model.model_files import checked_folder, is_needed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILTIN = "builtin"


def model_folder(name: str, source: ModelSource) -> Path:
    """Returns the folder of a sweep's model: a packaged one for `path: builtin`, else the path or its copy on this machine.

    Raises:
        InputError: nothing ships under that name, or the address cannot be fetched.
    """
    if source.path == BUILTIN:
        from trainers.model.builtin import builtin_folder

        return Path(builtin_folder(name))
    return fetched(source.path, is_needed)


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
            **_text_part(folder),
            dtype=dtype,
            attn_implementation=attn,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"model folder {folder}: transformers cannot load it: {e}") from e
    return model


def _text_part(folder: Path) -> dict[str, Any]:
    """Returns how to load the language model alone from a folder that holds one for pictures too (Gemma 3)."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type != "gemma3":
        return {}
    inner = r"^(model\.)?language_model\.(model\.)?"
    return {"config": config.text_config, "key_mapping": {inner: "model."}}


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
