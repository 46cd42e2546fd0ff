"""Models and tokenizers from folders: safetensors only, no remote code, nothing from a hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError

from sweeps.config.names import TEMPLATES
from sweeps.config.trial import ModelSource
from sweeps.errors import InputError
from trainers.data.chat.training_templates import named_template
from trainers.data.sources.download_cache import cache_folder, fetched
from trainers.model import attention
from trainers.model.files import weights
from trainers.model.files.folder import checked_folder, is_needed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILTIN: Final = "builtin"
TEMPLATE: Final = "chat_template.jinja"


def model_folder(name: str, source: ModelSource) -> Path:
    """Returns the folder of a sweep's model: a packaged one for `path: builtin`, else the path or its copy on this machine.

    Raises:
        InputError: nothing ships under that name, or the address or the chat template cannot be fetched.
    """
    if source.path == BUILTIN:
        from trainers.model.files.builtin import builtin_folder

        folder = Path(builtin_folder(name))
    else:
        folder = fetched(source.path, is_needed)
    return _with_template(folder, _template_text(folder, source.chat_template)) if source.chat_template else folder


def _template_text(folder: Path, choice: str) -> str:
    """Returns the template that a sweep chose for a model: of a file, or by name.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if choice in TEMPLATES:
            return named_template(choice, own_template(folder))
        return fetched(choice).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"chat template {choice} cannot be read: {e}") from e


def own_template(folder: Path) -> str:
    """Returns the chat template of a model's folder; "" where it has none."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
            if isinstance(found, list):  # several by name
                found = {each["name"]: each["template"] for each in found}.get("default")
            if found:
                return str(found)
    return ""


def _with_template(folder: Path, text: str) -> Path:
    """Returns a folder that links to a model's files and has another chat template; the same one for the same two."""
    digest = hashlib.sha256(f"{folder.resolve()}\0{text}".encode()).hexdigest()[:16]
    home = cache_folder() / "templates" / f"{digest}-{folder.name}"
    if _is_overlay(home, folder, text):
        return home
    shutil.rmtree(home, ignore_errors=True)  # it links to files that have gone, or somebody put others there
    aside = home.with_name(f".{home.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.name != TEMPLATE:
            (aside / file.name).symlink_to(file.resolve())
    (aside / TEMPLATE).write_text(text, encoding="utf-8")
    with contextlib.suppress(OSError):  # another process was first
        aside.rename(home)
    return home


def _is_overlay(home: Path, folder: Path, text: str) -> bool:
    """True for a folder that links to a model's files, all of them and no others, and has this chat template."""
    try:
        links = {
            file.name: str(file.resolve()) for file in folder.iterdir() if file.is_file() and file.name != TEMPLATE
        }
        there = {file.name: file for file in home.iterdir()}
        if (home / TEMPLATE).read_bytes() != text.encode() or set(there) != {*links, TEMPLATE}:
            return False
        return all(os.readlink(there[name]) == links[name] for name in links)
    except OSError:  # it is not there, or a file stands where a link was
        return False


def load_model(
    path: str | Path,
    *,
    attn: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    weights_in_memory: Mapping[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Loads a causal language model.

    Args:
        path: a folder with config.json and safetensors weights, or a builtin model's name.
        attn: attention implementation; `attention.PACKED` for training on packs, `sdpa` for anything else.
        dtype: type of the weights in memory.
        weights_in_memory: all that the weight files of a checkpoint hold, which are not read then (see `keeps_names`); the
            model gets copies.

    Raises:
        InputError: the folder is missing, incomplete, holds pickled weights only, or its config asks for code; or its
            weights do not fit its config, or are no finite numbers.
    """
    folder = checked_folder(path) if weights_in_memory is None else Path(path)  # which need not hold the weights then
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    from trainers.model.recurrent import recurrent_qwen3

    attention.register()
    recurrent_qwen3.register()
    logging.disable_progress_bar()  # two bars for every load and save would bury the log
    try:
        kind, given = AutoModelForCausalLM, {"pretrained_model_name_or_path": folder, **_text_part(folder)}
        if weights_in_memory is not None:
            kind, given = _from_memory(folder, weights_in_memory)
        model, found = kind.from_pretrained(
            **given,
            dtype=dtype,
            attn_implementation=attn,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with names and shapes
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
        weights.stored_shapes(folder)  # says it better where a file is damaged or missing
        raise InputError(f"model folder {folder}: transformers cannot load it: {e}") from e
    wrong = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in found["mismatched_keys"]}
    weights.check_fit(folder, model.state_dict(), found["missing_keys"], found["unexpected_keys"], wrong)
    weights.check_finite(folder, model.named_parameters())
    if weights_in_memory is not None and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _from_memory(folder: Path, weights_in_memory: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    """Returns the class of a checkpoint's model, and what it is made of: its config, and copies of weights."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    copies = {name: tensor.clone() for name, tensor in weights_in_memory.items()}
    given = {"pretrained_model_name_or_path": None, "config": config, "state_dict": copies}
    return model_class(config.architectures[0]), given


def model_class(architecture: str) -> type[Any] | None:
    """Returns the class of a model by the name that config.json gives it; None where neither transformers nor we have it."""
    import transformers

    from trainers.model.recurrent.recurrent_qwen3 import RecurrentQwen3ForCausalLM

    if architecture == RecurrentQwen3ForCausalLM.__name__:
        return RecurrentQwen3ForCausalLM
    found: type[Any] | None = getattr(transformers, architecture, None)
    return found


def keeps_names(folder: Path) -> bool:
    """True when a checkpoint's weight files have the names and shapes that its model has in memory.

    transformers rearranges some kinds when it loads and saves them, experts above all.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = all(model_class(name) for name in config.get("architectures") or [""])
    return known and not get_checkpoint_conversion_mapping(config["model_type"])


def model_without_weights(folder: Path) -> PreTrainedModel:
    """Builds the model that a folder's config describes, on the meta device: names and shapes, no numbers.

    Raises:
        InputError: transformers knows no causal language model of that kind, or the config is faulty.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainers.model.recurrent.recurrent_qwen3 import register

    register()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = _text_part(folder).get("config", config)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except Exception as e:  # each config class checks itself, with errors of its own
        said = " ".join(str(e).split())[:300]
        raise InputError(f"model folder {folder}: transformers cannot build its model: {said}") from e
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

    from trainers.model.recurrent.recurrent_qwen3 import register

    register()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"model folder {folder}: transformers cannot load its tokenizer: {e}") from e
    if not tokenizer.chat_template:
        raise InputError(f"model folder {folder}: the tokenizer has no chat template; put a chat_template.jinja there")
    if tokenizer.eos_token_id is None:
        raise InputError(f"model folder {folder}: the tokenizer has no eos_token, so no reply would ever end")
    return tokenizer
