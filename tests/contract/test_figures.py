"""Every picture and written table of the repository has a command, and `make figures` runs those that take under an hour."""

import re
from pathlib import Path

import pytest

from benchmarks.figures import MARKS, ROOT, WRITTEN, programs, tables
from sweeps.config.sweep_file.reference import between

PICTURE = re.compile(r"\.(svg|png|jpe?g|gif|webp|pdf)$")
NAMED = re.compile(r"python -m (benchmarks[.\w]+)")
MADE = re.compile(r"<!--.*?((?:python -m|make) \S+)")


FOLDERS = ("docs", "benchmarks", "examples", "deploy", "tests", "sweeps", "trainers", "evaluators", "cluster")


def files(pattern: re.Pattern[str]) -> set[str]:
    """Files of the repository; `runs`, `site` and environments are not of it."""
    found = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    return {str(path.relative_to(ROOT)) for path in found if pattern.search(path.name)}


def recipe(target: str = "figures") -> str:
    """What make runs for a target, and before it for those that it needs."""
    needed, _, lines = (ROOT / "Makefile").read_text().split(f"\n{target}: ")[1].split("\n\n")[0].partition("\n")
    return "\n".join([*(recipe(other) for other in needed.split() if not other.startswith("$")), lines])


def test_every_picture_has_a_command():
    assert files(PICTURE) == {f.file for f in WRITTEN if PICTURE.search(f.file)}


def test_every_table_between_marks_has_a_command():
    pages = {name for name in files(re.compile(r"\.md$")) if MADE.search((ROOT / name).read_text())}
    assert pages <= {f.file for f in WRITTEN}
    for f in WRITTEN:
        if f.file in pages:
            (made,) = {m[1] for m in MADE.finditer((ROOT / f.file).read_text())}
            program = made.removeprefix("python -m ").removesuffix(":")
            assert program in f.command or program in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("f", [f for f in WRITTEN if not f.long], ids=lambda f: f.file)
def test_make_figures_writes_what_takes_under_an_hour(f):
    assert f.file in recipe()
    program = re.search(r"python -m (\S+)|dipsweep (\w+)", f.command)
    assert program is not None
    assert (program[1] or program[2]) in recipe()


def test_what_takes_longer_is_not_part_of_it():
    assert not [f.file for f in WRITTEN if f.long and f.file in recipe()]


def test_the_page_lists_every_program_and_is_current():
    page = (ROOT / "docs" / "figures.md").read_text()
    assert between(page, *MARKS, tables()) == page
    assert len(list(programs())) > 40


def test_every_program_that_a_page_names_is_there():
    known, pages = {name for name, _ in programs()}, files(re.compile(r"\.md$")) - {"docs/LOG.md"}
    named = {(m[1].rstrip("."), page) for page in pages for m in NAMED.finditer((ROOT / page).read_text())}
    assert not [(name, page) for name, page in named if name not in known]


def test_the_readme_says_of_the_demos_picture_what_the_picture_says():
    title = re.search(r"<title>(.*?)</title>", (ROOT / "docs/dip_and_recovery.svg").read_text())
    assert title is not None
    told = re.search(r"low (\S+) ± \S+ \(\S+ %\) at step (\d+), .*; last (\S+) ±", title[1])
    assert told is not None
    low, step, last = told.groups()
    readme = (ROOT / "README.md").read_text()
    assert f"falls from 1.00 to {low} and comes back to {last}" in readme
    assert f"half of its base at step {step}" in readme


def test_the_demo_has_the_runs_that_the_picture_shows():
    from sweeps.config.plan import Plan
    from sweeps.config.sweep_file.yaml import load

    shown = re.search(r"--trials (\S+)", recipe())
    assert shown is not None
    assert set(shown[1].split(",")) <= {
        t.id for t in Plan(load(Path(ROOT / "examples/dip_and_recovery.yaml"))).known_trials()
    }
