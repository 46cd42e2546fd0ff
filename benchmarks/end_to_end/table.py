"""The table of the comparison, from stored results, with the spread over seeds.

    python -m benchmarks.end_to_end.table DIR|FILE.jsonl … [--keep benchmarks/end_to_end/measured.jsonl] [--write PAGE]

Reads DIR/WAY.json as `python -m benchmarks.end_to_end --out DIR` writes them (a DIR for each seed), and files that `--keep`
wrote, which hold the same a line. Prints one table for each size, schedule and number of cores, or puts them into a page.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.end_to_end.common import SIZES
from sweeps.config.sweep_file.reference import between

MARKS: Final = ("<!-- python -m benchmarks.end_to_end.table -->", "<!-- end of the tables -->")
TOP: Final = 3
"""The winners: the grid's best cells of the same seed, by the common re-evaluation."""
NAMES: Final = {
    "dipsweep": "dipsweep, strict",
    "dipsweep-soft": "dipsweep, soft",
    "grid": "Tune grid with TRL",
    "asha": "Tune + ASHA as it is set by default",
    "asha-late": "Tune + ASHA, grace a quarter, reduction 2",
    "optuna-median": "Optuna + median as it is set by default",
    "optuna-median-late": "Optuna + median, warm-up a quarter",
}
"""Of the ways, in the order of the table."""
Result = dict[str, Any]


def key(result: Result) -> tuple[str, str, int, int, int]:
    """What a result is of; the newest one of a key counts."""
    return (
        str(result["way"]), str(result["schedule"]), int(result.get("seed", 0)), cells_of(result), int(result.get("cores", 2)),
    )  # fmt: skip


def cells_of(result: Result) -> int:
    """Cells of the comparison, from its size; results that do not name it are of all."""
    return math.prod(map(len, SIZES[result.get("size", "full")].values()))


def read(paths: Iterable[Path]) -> list[Result]:
    """Returns the results of folders and files."""
    found: dict[Any, Result] = {}
    for path in paths:
        texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        texts += [file.read_text(encoding="utf-8") for way in NAMES if (file := path / f"{way}.json").is_file()]
        if not texts:
            raise FileNotFoundError(
                f"{path} holds no result: expected {', '.join(f'{way}.json' for way in NAMES)}, or lines"
            )
        for result in map(json.loads, texts):
            found[key(result)] = result
    return sorted(found.values(), key=lambda r: (list(NAMES).index(r["way"]), key(r)))


def keep(results: Iterable[Result], file: Path) -> None:
    """Writes results a line each, without the places of their models."""
    lines = []
    for result in results:
        trials = [{name: value for name, value in t.items() if name != "model"} for t in result["trials"]]
        lines.append(json.dumps({**result, "trials": trials}) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def tables(results: Sequence[Result]) -> str:
    """Returns a table for each size, schedule and number of cores."""
    groups: dict[tuple[int, str, int], list[Result]] = {}
    for result in results:
        _, schedule, _, cells, cores = key(result)
        groups.setdefault((cells, schedule, cores), []).append(result)
    texts = []
    for (cells, schedule, cores), group in sorted(groups.items(), reverse=True):
        texts.append(f"{cells} cells, {schedule.upper()}, {cores} cores:\n\n{table(group)}")
    return "\n\n".join(texts)


def table(group: Sequence[Result]) -> str:
    """Returns a line a way: means over its seeds, the least and the most, and the share of the same seeds' grids."""
    grids = {key(r)[2]: r for r in group if r["way"] == "grid"}
    heads = [
        "way",
        "seeds",
        "wall s",
        "CPU s",
        "steps",
        "runs to budget",
        "best, scored again",
        "winners kept",
        "lines",
    ]
    rows = [heads, ["---"] * len(heads)]
    for way in dict.fromkeys(r["way"] for r in group):
        mine = [r for r in group if r["way"] == way]
        spent = [spread(mine, grids, what) for what in ("wall_s", "cpu_s", "steps")]
        whole = "; ".join(f"{len(scored(r))} of {cells_of(r)}" for r in mine)
        rows.append([NAMES[way], str(len(mine)), *spent, whole, best(mine), kept(mine, grids), str(mine[-1]["lines"])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def spread(mine: Sequence[Result], grids: dict[int, Result], what: str) -> str:
    values = [float(r[what]) for r in mine]
    text = f"{statistics.fmean(values):,.0f}"
    if len(values) > 1:
        text += f", {min(values):,.0f} to {max(values):,.0f}"
    shares = [r[what] / grids[key(r)[2]][what] for r in mine if key(r)[2] in grids]
    return f"{text} ({statistics.fmean(shares):.2f})" if shares else text


def scored(result: Result) -> list[dict[str, Any]]:
    """The runs that reached their budget and were scored again."""
    return [t for t in result["trials"] if "again" in t]


def best(mine: Sequence[Result]) -> str:
    """What a way calls its best, on other items. The error joins items, which are the same for every seed, and seeds."""
    found = [max(scored(r), key=lambda t: t["score"]) for r in mine if scored(r)]
    if not found:
        return "none"
    scores = [t["again"] for t in found]
    items = statistics.fmean(t["again_se"] ** 2 for t in found)
    seeds = statistics.variance(scores) / len(scores) if len(scores) > 1 else 0.0
    cells = "; ".join(dict.fromkeys(t["cell"] for t in found))
    return f"{statistics.fmean(scores):.3f} ± {math.sqrt(items + seeds):.3f} ({cells})"


def kept(mine: Sequence[Result], grids: dict[int, Result]) -> str:
    """How many of the grid's winners a way ran to their budgets."""
    met = won = 0
    for result in mine:
        if grid := grids.get(key(result)[2]):
            winners = [t["cell"] for t in sorted(scored(grid), key=lambda t: -t["again"])[:TOP]]
            met += len(set(winners) & {t["cell"] for t in scored(result)})
            won += len(winners)
    return f"{met} of {won}" if won else "no grid of these seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", metavar="DIR|FILE")
    parser.add_argument("--keep", type=Path, help="a file that all that was read is written to")
    parser.add_argument("--write", type=Path, help="a page that has the marks between which the tables stand")
    a = parser.parse_args()
    try:
        results = read(a.paths)
    except FileNotFoundError as e:
        parser.error(str(e))
    if a.keep:
        keep(results, a.keep)
    print(tables(results))
    if a.write:
        a.write.write_text(between(a.write.read_text(encoding="utf-8"), *MARKS, tables(results)), encoding="utf-8")


if __name__ == "__main__":
    main()
