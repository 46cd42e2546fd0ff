"""Which command makes which figure: python -m benchmarks.figures docs/figures.md

`WRITTEN` are the pictures and tables that a command puts into a file; every other number of README and documentation is
printed by a program of `benchmarks` that the page beside it names.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sweeps.config.sweep_file.reference import between

ROOT: Final = Path(__file__).parents[1]
MARKS: Final = ("<!-- python -m benchmarks.figures docs/figures.md -->", "<!-- end of the tables -->")
BY_HAND: Final = "drawn by hand"


class Written(NamedTuple):
    """A file, or the part of it between marks, and what makes it. `long`: more than an hour, or something that is not here."""

    file: str
    what: str
    command: str
    long: bool = False


WRITTEN: Final = (
    Written("docs/dip_and_recovery.svg", "three runs of the demo", "dipsweep figure ID curves OUT --trials …"),
    Written("benchmarks/stopping/pareto.svg", "winners lost against compute saved, generated worlds",
            "python -m benchmarks.stopping.plot FILE --out OUT"),
    Written("docs/paper-cost.md", "what the paper's experiments would cost", "python -m benchmarks.plan.paper --write FILE"),
    Written("docs/recurrent-depth.md", "recurrences at base, dip and end",
            "python -m benchmarks.recurrence.depth --out DIR --write FILE"),
    Written("benchmarks/end_to_end/README.md", "whole sweeps beside other tools, from kept results",
            "python -m benchmarks.end_to_end.table FILE --write FILE"),
    Written("docs/ready-for-rl.md", "what RL reached from three checkpoints, from kept results",
            "python -m benchmarks.rl.starts --out DIR --table --write FILE"),
    Written("docs/sweep-file.md", "every key of a sweep file", "python -m sweeps.config.sweep_file.reference FILE"),
    Written("docs/reference/command-line.md", "every command", "python -m cluster.cli.reference > FILE"),
    Written("docs/figures.md", "the tables of this page", "python -m benchmarks.figures FILE"),
    Written("docs/paper_mini.md", "the paper's claims in miniature: 99 trials, under half an hour on two cores",
            "python -m benchmarks.report.paper_mini DIR DIR --write FILE"),
    Written("docs/smollm2.svg", "general scores of SmolLM2-135M on three tiers: needs a GPU, or half an hour",
            "dipsweep figure ID curves OUT --metric general/score", long=True),
    Written("docs/architecture.svg", "driver, workers, journal, report", BY_HAND, long=True),
)  # fmt: skip


def programs() -> Iterator[tuple[str, str]]:
    """Yields the programs of `benchmarks` that are run by themselves, as what stands after `python -m`, and their first line."""
    for file in sorted((ROOT / "benchmarks").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        if '__name__ == "__main__"' in text or file.name == "__main__.py":
            yield name, (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].partition(": python -m")[0]


def tables() -> str:
    """Returns the tables as Markdown."""
    lines = ["| file | what | command | by `make figures` |", "| --- | --- | --- | --- |"]
    for f in WRITTEN:
        how = f.command if f.command == BY_HAND else f"`{f.command}`"
        lines.append(f"| `{f.file}` | {f.what} | {how} | {'no' if f.long else 'yes'} |")
    lines += ["", "| `python -m …` | what it measures |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{name}` | {line} |" for name, line in programs())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page
    page.write_text(between(page.read_text(encoding="utf-8"), *MARKS, tables()), encoding="utf-8")


if __name__ == "__main__":
    main()
