"""What can be known before anything starts: do models, data and storage exist, and can they be used?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from sweeps.errors import Fault, InputError, SpecError
from sweeps.spec import Sweep


def preflight(sweep: Sweep) -> None:
    """Raises SpecError with everything that would fail later for reasons that are plain now."""
    faults = [*_models(sweep), *_tiers(sweep), *_suite(sweep), *_storage(sweep)]
    if faults:
        raise SpecError(*faults)


def _models(sweep: Sweep) -> Iterator[Fault]:
    for name in sweep.axis_values("model", sweep.default_model):
        source = sweep.model_source(str(name))
        if source.path == "builtin":
            continue
        folder = Path(source.path).expanduser()
        where = f"models.{name}.path"
        if not folder.is_dir():
            yield Fault(where, f"no folder {folder}; give a folder with config.json, a tokenizer and safetensors")
            continue
        missing = [f for f in ("config.json", "tokenizer_config.json") if not (folder / f).is_file()]
        if missing:
            yield Fault(where, f"{folder} has no {' and no '.join(missing)}; give a Hugging Face model folder")
        elif not any(folder.glob("*.safetensors")):
            other = next((p.name for p in folder.glob("*.bin")), None)
            only = f", only {other}; convert it first (pickled weights are refused)" if other else ""
            yield Fault(where, f"{folder} has no *.safetensors{only}")
        else:
            yield from _config(where, folder / "config.json")


def _config(where: str, path: Path) -> Iterator[Fault]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        yield Fault(where, f"{path} cannot be read as JSON ({e})")
        return
    if not isinstance(config, dict):
        yield Fault(where, f"{path} is not a JSON object")
        return
    bad = [k for k in config if k in ("auto_map", "trust_remote_code") or k.startswith("_attn_implementation")]
    if bad:
        yield Fault(where, f"{path} sets {', '.join(bad)}, which can run code of the model's author; remove it")


def _tiers(sweep: Sweep) -> Iterator[Fault]:
    for name in sweep.axis_values("data", sweep.default_tier):
        path = sweep.tier_source(str(name)).path
        if path != "builtin" and not Path(path).expanduser().is_file():
            yield Fault(f"tiers.{name}.path", f"no file {path}; give a JSONL or Parquet file of conversations")


def _suite(sweep: Sweep) -> Iterator[Fault]:
    name = sweep.evaluation.suite
    if name == "mini" or name.startswith("lm-eval:"):
        return
    from evaluators.suites import load_suite

    try:
        load_suite(name, items=1)
    except InputError as e:
        yield Fault("evaluation.suite", str(e))


def _storage(sweep: Sweep) -> Iterator[Fault]:
    root = Path(sweep.storage).expanduser()
    nearest = next((p for p in (root, *root.parents) if p.exists()), Path("/"))
    if not nearest.is_dir():
        yield Fault("storage", f"{nearest} is a file; give a folder")
    elif not os.access(nearest, os.W_OK):
        yield Fault("storage", f"{nearest} is not writable; give a folder that you can write to")
