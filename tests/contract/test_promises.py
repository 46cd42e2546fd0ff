"""Every promise of docs/never-lose.md names the tests that hold it, and they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPO = Path(__file__).parents[2]
TEXT = (REPO / "docs" / "never-lose.md").read_text()


def promises() -> list[list[str]]:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")][2:]
    return [re.findall(r"`(tests/[^`]+)`", row) for row in rows]


def test_every_promise_names_a_test():
    assert len(promises()) >= 20
    assert all(promises())


def test_every_test_that_holds_a_promise_exists():
    named = {name for tests in promises() for name in tests}
    there = set()
    for file in {name.partition("::")[0] for name in named}:
        tree = ast.parse((REPO / file).read_text())
        tests = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        there |= {f"{file}::{name}" for name in tests}
    assert named - there == set()
