"""Every code block of the documentation runs, and generated pages are current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sweeps.config.schema import Sweep
from sweeps.errors import SpecError

REPO = Path(__file__).parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.M | re.S)


def blocks(language: str) -> dict[str, str]:
    """Fenced code blocks by their place."""
    return {
        f"{page.relative_to(REPO)}, block {number}": code
        for page in PAGES
        for number, (kind, code) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")), start=1)
        if kind == language
    }


def test_every_sweep_file_of_the_documentation_is_valid():
    for place, code in blocks("yaml").items():
        try:
            Sweep(**{"name": "part", **yaml.safe_load(code)})
        except SpecError as e:
            pytest.fail(f"{place}: {e}")


def test_every_python_block_of_the_documentation_compiles():
    found = blocks("python")
    assert found
    for place, code in found.items():
        compile(code, place, "exec")


def test_the_page_of_the_command_line_is_current():
    from cluster.cli.reference import page

    assert (REPO / "docs/reference/command-line.md").read_text(encoding="utf-8") == page()


def test_the_page_of_the_command_line_explains_arguments_and_says_what_is_required():
    from cluster.cli.reference import page

    told = page()
    assert "    dipsweep figure ID KIND OUT\n" in told
    assert "| `KIND` | What to draw: curves. |" in told
    assert "| `--steps` N | The longer budget, in optimizer steps. Required. |" in told
    assert "4 nobody drives what is followed" in told
    assert "Default: ``" not in told


def test_every_page_is_in_the_navigation_of_the_site():
    named = set(re.findall(r": ([\w/.-]+\.md)$", (REPO / "mkdocs.yml").read_text(), flags=re.M))
    assert {str(p.relative_to(REPO / "docs")) for p in (REPO / "docs").rglob("*.md")} == named
