"""What this machine can do, in one table: each line says what was found, and what to do where it falls short."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from cluster.connect.tokens import find_token
from cluster.guard import check_names
from cluster.preflight.plugins import installed_plugins
from sweeps.errors import InputError
from sweeps.storage.base import is_url
from sweeps.storage.probe import storage_fault


class Finding(NamedTuple):
    """One line: `ok`, `note` (works, with a limit) or `bad` (would fail)."""

    what: str
    state: Literal["ok", "note", "bad"]
    detail: str


def findings(storage: str) -> list[Finding]:
    """Returns all findings; a check that raises is itself a finding."""
    out = []
    checks = (
        _python,
        _packages,
        _names,
        _gpus,
        _nccl,
        _attention,
        lambda: _storage(storage),
        _disk,
        _token,
        _cpus,
        _plugins,
    )
    for check in checks:
        try:
            out += check()
        except Exception as e:
            out.append(Finding("check", "bad", f"{type(e).__name__}: {e}"))
    return out


def table(found: list[Finding]) -> str:
    """Returns the findings as aligned text."""
    width = max(len(f.what) for f in found)
    return "\n".join(f"{f.state:4}  {f.what:{width}}  {f.detail}" for f in found)


def _python() -> list[Finding]:
    good = sys.version_info >= (3, 11)
    return [
        Finding(
            "python", "ok" if good else "bad", sys.version.split()[0] + ("" if good else "; 3.11 or newer is needed")
        )
    ]


def _packages() -> list[Finding]:
    out = []
    for name in ("ray", "torch", "transformers", "optuna", "s3fs", "reasoning-gym"):
        try:
            out.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            gym = "; suites mini and gym need dipsweep[gym]"
            hints = {"ray": "; only in-process runs work", "s3fs": "", "reasoning-gym": gym}
            optional, hint = name in hints, hints.get(name, "")
            out.append(
                Finding(
                    name,
                    "note" if optional else "bad",
                    f"not installed{hint}",
                )
            )
    return out


def _plugins() -> list[Finding]:
    return [Finding("plugin", "bad" if fault else "ok", fault or str(plugin)) for plugin, fault in installed_plugins()]


def _names() -> list[Finding]:
    try:
        check_names()
    except ImportError as e:
        return [Finding("package names", "bad", str(e))]
    return [Finding("package names", "ok", "sweeps, trainers, evaluators, cluster are ours")]


def _gpus() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [Finding("gpu", "note", "none; tiny models train on the CPU")]
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [Finding(f"gpu {i}", "ok", f"{d.name}, {d.total_memory / 2**30:.0f} GiB") for i, d in enumerate(devices)]


def _nccl() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return []
    if not torch.distributed.is_nccl_available():
        return [Finding("nccl", "bad", "this torch has none; trials with several workers need it on GPUs")]
    return [Finding("nccl", "ok", ".".join(map(str, torch.cuda.nccl.version())))]  # type: ignore[no-untyped-call]


def _attention() -> list[Finding]:
    import torch

    from trainers.model.attention import choose_kernel

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    choice = choose_kernel(device, torch.bfloat16)
    return [Finding("attention", "ok", f"{choice.name}: {choice.reason}")]


def _storage(storage: str) -> list[Finding]:
    if wrong := storage_fault(storage):
        return [Finding("storage", "bad", wrong)]
    kind = storage if is_url(storage) else str(Path(storage).absolute())
    return [Finding("storage", "ok", f"{kind}: writes, reads back, creates an object only once")]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return [Finding("free disk", "ok" if free > 10 else "note", f"{free:.0f} GiB where this was started")]


def _token() -> list[Finding]:
    try:
        found = find_token()
    except InputError as e:
        return [Finding("cluster token", "note", str(e))]  # Ray itself leaves one like that, and runs here need none
    if found is None:
        return [
            Finding(
                "cluster token", "note", "none; only a cluster on this machine can be used (dipsweep token makes one)"
            )
        ]
    return [Finding("cluster token", "ok", "there, and readable by its owner alone")]


def _cpus() -> list[Finding]:
    return [Finding("cpus", "ok", str(len(os.sched_getaffinity(0))))]
