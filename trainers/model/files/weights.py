"""Do the weights in a folder belong to its config? From the headers of the safetensors files alone, and again when loaded.

transformers fills what a file lacks with random numbers and leaves out what a config has no place for, with a warning at
most. A sweep that trains on such a model measures nothing, so both are errors here.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sweeps.checkpoints.manifest import is_weights
from sweeps.errors import InputError

INDEX: Final = "model.safetensors.index.json"
MAX_HEADER: Final = 100 * 2**20
_PREFIXES: Final = {
    "_orig_mod.": "torch.compile",
    "module.": "DistributedDataParallel",
    "base_model.model.": "PEFT",
    "_forward_module.": "DeepSpeed",
    "_fsdp_wrapped_module.": "FSDP",
}
_SHOWN: Final = 4
Shapes = dict[str, tuple[int, ...]]
"""Names of tensors and their shapes."""


def header_length(start: bytes, size: int) -> int:
    """Returns how long the header of a safetensors file is, by its first 8 bytes; 0 where a file of `size` bytes has none."""
    length = int(struct.unpack("<Q", start)[0]) if len(start) == 8 else 0
    return length if 2 <= length <= min(MAX_HEADER, size - 8) else 0


def read_header(file: Path) -> Shapes:
    """Returns what a safetensors file holds, from its header.

    Raises:
        InputError: it is cut short, a pointer of Git LFS, or no safetensors file.
    """
    size = file.stat().st_size
    with open(file, "rb") as source:
        start = source.read(8)
        if start.startswith(b"version "):
            raise InputError(f"{file} is a Git LFS pointer and not the file itself; run git lfs pull in its repository")
        if not (length := header_length(start, size)):
            raise InputError(f"{file} is no safetensors file, or cut short: it has {size} bytes")
        try:
            header = json.loads(source.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in tensors.items()}
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as e:
            raise InputError(f"{file}: the header is no safetensors header: {e}") from e
    if size < 8 + length + end:
        raise InputError(f"{file} is cut short: got {size} bytes, expected {8 + length + end}; copy it anew")
    return shapes


def stored_shapes(folder: Path) -> Shapes:
    """Returns all tensors of a model folder.

    Raises:
        InputError: a shard that the index names is missing, or a file is damaged.
    """
    if (folder / "model.safetensors").is_file():
        return read_header(folder / "model.safetensors")
    if not (folder / INDEX).is_file():
        raise InputError(f"{folder} holds neither model.safetensors nor {INDEX}, so transformers would load none of it")
    try:
        placed: Mapping[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(placed.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{folder / INDEX}: no weight_map of names to files: {e}") from e
    if gone := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{folder} lacks {_few(gone)}, which {INDEX} names")
    shapes: Shapes = {}
    for name in names:
        shapes |= read_header(folder / name)
    if absent := sorted(set(placed) - set(shapes)):
        raise InputError(f"{folder}: {INDEX} places {_few(absent)} in files that do not hold them")
    return shapes


def check_weights(folder: Path, model: Any) -> str:
    """Compares a folder's weights with a model made of its config on the meta device, by name and shape.

    Args:
        model: as transformers builds it from the folder's config, without weights.

    Returns:
        What could not be compared without loading; empty when all was.

    Raises:
        InputError: weights are missing, have no place, or have another shape; names them.
    """
    stored = stored_shapes(folder)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    if get_checkpoint_conversion_mapping(model.config.model_type):  # experts one by one in files, fused in memory
        expected = max((_in_files(model), expected), key=lambda layout: len(layout.keys() & stored.keys()))
        if 2 * len(expected.keys() & stored.keys()) < len(expected):
            return f"weights of {model.config.model_type} stand in files in a way of their own; compared when they are loaded"
    prefix = f"{model.base_model_prefix}."
    if any(f"{prefix}{name}" in expected for name in stored):  # saved without the head: transformers adds the prefix
        stored = {name if name in expected else f"{prefix}{name}": shape for name, shape in stored.items()}
    tied = set(model.all_tied_weights_keys)
    wrong = {n: (stored[n], shape) for n, shape in expected.items() if n in stored and stored[n] != shape}
    check_fit(folder, expected, set(expected) - set(stored) - tied, set(stored) - set(expected) - tied, wrong)
    return ""


def _in_files(model: Any) -> Shapes:
    """Returns the names and shapes under which transformers saves a model that it rearranges when it loads one."""
    from transformers.core_model_loading import revert_weight_conversion

    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, model.state_dict()).items()}


def check_fit(
    folder: Path,
    expected: Iterable[str],
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raises InputError when weights do not fit their config.

    Args:
        expected: all names that the config asks for. missing: those that no file has.
        unexpected: names of the files that the config has no place for. Another layer, or another tensor of a module that
            it does have, is an error; a vision tower or a value head beside the language model is none.
        mismatched: of each name the shape that is stored and the one that the config asks for.
    """
    faults = []
    spare = sorted(unexpected)
    if gone := sorted(missing):
        prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in spare)), "")
        hint = f"; the names begin with {prefix!r}, as {_PREFIXES[prefix]} writes them: strip it" if prefix else ""
        faults.append(f"lacks {_few(gone)}{hint}")
    modules = {_module(name) for name in expected}
    if not gone and (own := [name for name in spare if _module(name) in modules]):
        faults.append(f"holds {_few(own)}, for which the config has no place")
    if mismatched:
        name, (stored, wanted) = next(iter(sorted(mismatched.items())))
        faults.append(
            f"holds {name} of shape {list(stored)} where the config asks for {list(wanted)} ({len(mismatched)} such)"
        )
    if faults:
        raise InputError(f"model folder {folder}: its weights do not fit its config.json: it {'; it '.join(faults)}")


def _module(name: str) -> str:
    """Returns the module that a tensor is of, the same for all layers."""
    return re.sub(r"\.\d+\.", ".*.", name).rpartition(".")[0]


def check_finite(folder: str | Path, tensors: Iterable[tuple[str, Any]]) -> None:
    """Raises InputError when a weight is not a finite number, and names its tensor."""
    if bad := [name for name, tensor in tensors if tensor.is_floating_point() and not bool(tensor.isfinite().all())]:
        raise InputError(f"model folder {folder}: weights are no finite numbers: {_few(bad)}")


def stored_tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yields the tensors of a model folder, one in memory at a time; a checkpoint's trainer state is none of them."""
    from safetensors import safe_open

    for file in sorted(file for file in folder.glob("*.safetensors") if is_weights(file.name)):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  its own class, without iteration
                yield name, tensors.get_tensor(name)


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
