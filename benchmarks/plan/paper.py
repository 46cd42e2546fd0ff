"""What the paper's experiments would cost: examples/paper planned as a naive grid, on shared trunks, and with the stop rule.

    python -m benchmarks.plan.paper [--gpu H200] [--write docs/paper-cost.md]

Prints a Markdown table, or puts it between the marks of a page. Nothing runs; the hours are those of `dipsweep plan`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.cli.plan_view import saving_for
from cluster.preflight.cost import speeds_for
from sweeps import Sweep
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.reference import between
from sweeps.config.sweep_file.yaml import load
from sweeps.planning.estimate import Estimate, estimate

FILES = Path(__file__).parents[2] / "examples" / "paper"
BEGIN, END = "<!-- python -m benchmarks.plan.paper -->", "<!-- end of the table -->"


def planned(sweep: Sweep, gpu: str) -> Estimate:
    plan, nodes = Plan(sweep), (8.0, 8.0)  # the largest model takes one, evaluators a device of the other
    speeds = speeds_for(plan, gpu=gpu)
    saving = saving_for(plan, speeds, nodes=nodes)
    return replace(estimate(plan, speeds, nodes), saving=saving)


def row(file: Path, gpu: str) -> str:
    """Returns a line: trials, device hours of the naive grid, on trunks, with the rule, and what of the grid is left."""
    sweep = load(file)
    naive: dict[str, Any] = sweep.to_json() | {"search": sweep.search.model_dump(mode="json") | {"share_trunk": False}}
    naive["stopping"] = {"rule": "none"}
    plain, shared = planned(Sweep(**naive), gpu), planned(sweep, gpu)
    hours, ours = plain.device_seconds.value / 3600, shared.device_seconds.value / 3600
    saving = shared.saving
    kept = [ours * (1 - share) for share in (saving.high, saving.share, saving.low)] if saving else [ours] * 3
    return (
        f"| `{file.name}` | {Plan(sweep).total} | {hours:,.0f} | {ours:,.0f} ({ours / hours:.2f}) "
        f"| {kept[1]:,.0f} ({kept[0]:,.0f} to {kept[2]:,.0f}) | {kept[1] / hours:.2f} |"
    )


def table(gpu: str) -> str:
    heads = ["sweep", "trials", f"naive grid, {gpu} hours", "on shared trunks", "with the stop rule", "of the grid"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    return "\n".join([*lines, *(row(file, gpu) for file in sorted(FILES.glob("*.yaml")))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="H200")
    parser.add_argument("--write", type=Path)
    a = parser.parse_args()
    made = table(a.gpu)
    if a.write is None:
        print(made)
        return
    try:
        page = between(a.write.read_text(encoding="utf-8"), BEGIN, END, made)
    except ValueError as e:
        parser.error(f"{a.write}: {e}")
    a.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
