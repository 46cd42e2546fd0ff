"""The real flash-attn packages, as far as they go without a GPU: their signatures, and version 2's own kernels interpreted.

Skipped without what `make flash-source` makes; DIPSWEEP_FLASH_SOURCE names another folder.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import REPO
from trainers.model.attention import ARGUMENTS

SOURCE = Path(os.environ.get("DIPSWEEP_FLASH_SOURCE") or REPO / "build/flash")
pytestmark = [
    pytest.mark.optional,
    pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the source of flash-attn: make flash-source"),
]
FILES = {
    "flash-attn-2": "2/flash_attn/flash_attn_interface.py",
    "flash-attn-3": "2/hopper/flash_attn_interface.py",
    "flash-attn-4": "4/flash_attn/cute/interface.py",
}


def parameters(file: Path) -> set[str]:
    """Names of the parameters of a file's `flash_attn_varlen_func`, without importing it."""
    tree = ast.parse(file.read_text())
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "flash_attn_varlen_func"]
    return {a.arg for a in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())
def test_each_package_takes_what_it_is_given(file: str):
    assert parameters(SOURCE / file) >= ARGUMENTS


def test_the_early_version_4_inside_version_2_is_one_that_is_passed_over():
    assert ARGUMENTS - parameters(SOURCE / "2/flash_attn/cute/interface.py") == {"max_seqlen_q", "max_seqlen_k"}


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_version_2s_kernels_give_the_values_and_gradients_of_sdpa_on_packed_rows(kv_heads: int):
    command = [sys.executable, "-m", "tests.support.flash_program", str(SOURCE), str(kv_heads)]
    out = subprocess.run(
        command, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, text=True, capture_output=True, check=False
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert max(json.loads(out.stdout)) < 2e-6
