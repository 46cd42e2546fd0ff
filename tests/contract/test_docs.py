"""The documents say what the code does: every key of the schema is explained."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.config import blocks
from sweeps.config import schema as spec
from sweeps.journal.rows import KINDS
from sweeps.plugins import RULES, SEARCHERS

REPO = Path(__file__).parents[2]
BLOCKS = (spec.Sweep, blocks.ModelBlock, blocks.TierBlock, blocks.SearchBlock, blocks.ObjectiveBlock, blocks.ConstraintBlock,
          blocks.StoppingBlock, blocks.TrainerBlock, blocks.EvaluationBlock, blocks.LimitsBlock)  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.__name__)
def test_every_key_of_the_schema_is_explained(block):
    text = (REPO / "docs" / "sweep-file.md").read_text()
    assert [f for f in block.model_fields if f"`{f}" not in text] == []


def test_what_people_are_told_to_install_is_an_extra_that_brings_it():
    """A package that an extra brings is named by that extra, which knows its version."""
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {re.split(r"[\[<>=]", need)[0] for name, needs in extras.items() if name != "docs" for need in needs}
    folders = ("sweeps", "trainers", "evaluators", "cluster", "docs", "examples", "tests", "deploy")
    files = [
        REPO / "README.md",
        REPO / "Makefile",
        *(file for folder in folders for file in (REPO / folder).rglob("*")),
    ]
    wrong = list[str]()
    for file in files:
        if file.name != "LOG.md" and (file.suffix or file.name) in (".py", ".md", ".yaml", "Makefile", "Containerfile"):
            text, where = file.read_text(), file.relative_to(REPO)
            for named in re.findall(r"""(?:dipsweep['"]?|['"]\.)\\?\[([a-z0-9,-]+)\\?\]""", text):
                wrong += [f"{where}: no extra {extra}" for extra in named.split(",") if extra not in extras]
            found = set(re.findall(r"pip install (?:-[\w-]+ )*'?([A-Za-z][\w-]*)", text)) & brought
            wrong += [f"{where}: pip install {package}" for package in sorted(found)]
    assert wrong == []


def test_every_choice_of_the_schema_is_named():
    text = (REPO / "docs" / "sweep-file.md").read_text()
    assert [x for x in (*SEARCHERS.built_in, *RULES.built_in) if x not in text] == []


def test_every_kind_of_row_is_explained():
    text = (REPO / "docs" / "formats.md").read_text()
    assert [k for k in KINDS if f"`{k}`" not in text] == []


def test_no_document_names_a_path_of_somebodys_machine():
    for path in [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / "benchmarks").rglob("*.md")]:
        assert not re.search(r"/(root|home)/|/work/", path.read_text()), path


def named_commands() -> Iterator[tuple[str, str, str]]:
    """Yields each page with what it has people run: `dipsweep COMMAND` or a program of ours, and the rest of the line."""
    folders = ("docs", "benchmarks", "examples", "deploy")
    for page in [*REPO.glob("*.md"), *(file for folder in folders for file in (REPO / folder).rglob("*.md"))]:
        if page.name not in ("LOG.md", "CHANGELOG.md"):  # of their time
            text = page.read_text().replace("\\\n", " ")
            for found in re.finditer(r"(?:^|`|&& |    )dipsweep ([a-z][a-z-]+)([^`\n|#]*)", text):
                yield str(page.relative_to(REPO)), f"dipsweep {found[1]}", found[2]
            for found in re.finditer(r"python3? (?:-m )?((?:benchmarks|tests|sweeps|cluster)[./\w]+)([^`\n|#]*)", text):
                yield str(page.relative_to(REPO)), found[1].rstrip(".").removesuffix(".py").replace("/", "."), found[2]


def test_every_command_that_a_page_names_is_there_with_its_options():
    sections = re.split(r"^## ", (REPO / "docs/reference/command-line.md").read_text(), flags=re.M)
    ours, wrong = {section.partition("\n")[0]: section for section in sections[1:]}, []
    for page, command, rest in named_commands():
        module = REPO / command.replace(".", "/")
        file = next((f for f in (module.with_suffix(".py"), module / "__main__.py") if f.is_file()), None)
        knows = ours.get(command, "") if command.startswith("dipsweep ") else file.read_text() if file else ""
        options = re.findall(r"(?<!\S)--[a-z][\w-]*", rest)
        wrong += [(page, command, option) for option in ["", *options] if not knows or option not in knows]
    assert wrong == []
    assert len(list(named_commands())) > 150


def test_the_sweep_in_the_readme_is_a_sweep_of_ten_lines():
    from sweeps.config.plan import Plan

    code = re.search(r"```python\n(.*?)```", (REPO / "README.md").read_text(), flags=re.S)
    assert code is not None
    *definition, last = [line for line in code[1].splitlines() if line.strip()]
    assert last.startswith("print(run(sweep)")
    assert len(definition) <= 11
    found: dict[str, object] = {}
    exec("\n".join(definition), found)
    sweep = found["sweep"]
    assert isinstance(sweep, spec.Sweep)
    assert Plan(sweep).total == 3


@pytest.mark.parametrize(
    "path", sorted(set((REPO / "examples").glob("*.yaml")) - {REPO / "examples/smollm2.yaml"}), ids=lambda p: p.name
)
def test_every_example_is_a_valid_sweep(path: Path):
    from cluster.preflight.checks import preflight
    from sweeps.config.sweep_file.yaml import load

    preflight(load(path))


@pytest.mark.parametrize("path", sorted((REPO / "examples" / "paper").glob("*.yaml")), ids=lambda p: p.name)
def test_the_papers_sweeps_are_valid_where_neither_bucket_nor_suite_can_be_reached(path: Path, monkeypatch):
    """On a laptop without credentials; the suite's packages are the user's to install, so another one stands for it."""
    from cluster.preflight.checks import preflight
    from sweeps.config.sweep_file.yaml import load

    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    sweep = load(path)
    found = preflight(
        sweep.model_copy(update={"evaluation": sweep.evaluation.model_copy(update={"suite": "mini"})}), reach=False
    )
    (first, *_) = (note for note in found.notes if "not put together" in note)
    assert "s3://bucket/models/" in first
    assert "--storage looks there" in first


def test_the_example_on_a_real_model_is_valid_once_its_inputs_are_there(tmp_path):
    """Its data are made as its head says; a shipped model, whose rows are longer, stands where the fetched one would."""
    from cluster.preflight.checks import preflight
    from sweeps.config.sweep_file.yaml import load
    from trainers.model.files.builtin import builtin_folder

    shutil.copytree(REPO / "examples", tmp_path / "examples")
    shutil.copytree(builtin_folder("tiny-s"), tmp_path / "models/smollm2-135m")
    subprocess.run([sys.executable, "examples/countdown.py", "data"], cwd=tmp_path, check=True, capture_output=True)
    path = tmp_path / "examples/smollm2.yaml"
    path.write_text(path.read_text().replace("max_length: 512", "max_length: 1024"))
    preflight(load(path))
