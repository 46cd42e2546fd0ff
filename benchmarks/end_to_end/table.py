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
from collections.abc import Iterable, Mapping, Sequence
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
    "grid-reused": "Tune grid with TRL, processes reused",
    "asha": "Tune + ASHA as it is set by default",
    "asha-late": "Tune + ASHA, grace a quarter, reduction 2",
    "optuna-median": "Optuna + median as it is set by default",
    "optuna-median-late": "Optuna + median, warm-up a quarter",
}
"""Of the ways, in the order of the table."""
Result = dict[str, Any]
Trial = dict[str, Any]


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
        whole = "; ".join(f"{len(at_budget(r))} of {cells_of(r)}" for r in mine)
        found, winners = best(mine, grids), kept(mine, grids)
        rows.append([NAMES[way], str(len(mine)), *spent, whole, found, winners, str(mine[-1]["lines"])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def spread(mine: Sequence[Result], grids: Mapping[int, Result], what: str) -> str:
    """Returns a mean over seeds and of the shares of their grids; the least and the most of both, since seeds may have run on
    machines of other speed."""
    shares = [r[what] / grids[key(r)[2]][what] for r in mine if key(r)[2] in grids]
    text = ranged([float(r[what]) for r in mine], ",.0f")
    return f"{text} ({ranged(shares, '.2f')})" if shares else text


def ranged(values: Sequence[float], form: str) -> str:
    """Returns `40, 20 to 60`; the mean alone where least and most read the same."""
    least, most = f"{min(values):{form}}", f"{max(values):{form}}"
    return f"{statistics.fmean(values):{form}}" + (f", {least} to {most}" if least != most else "")


def at_budget(result: Result) -> list[Trial]:
    """The runs that were trained to their budget, whatever ended them there: ASHA ends every run that comes to its `max_t`."""
    return [t for t in result["trials"] if (t["reached"] or 0) >= t["steps"]]


def again(trial: Trial, grid: Result | None) -> tuple[float, float] | None:
    """The common re-evaluation of a run, and its error; None where its model was not kept.

    Kept results of before 2026-11-30 lack the models of runs that a scheduler ended at their last report. Tune and Optuna train
    by the same function and the same seed, so the grid's run of the cell is the same one where its score is the same to the bit.
    """
    same = [t for t in at_budget(grid or {"trials": []}) if (t["cell"], t["score"]) == (trial["cell"], trial["score"])]
    known = next((t for t in [trial, *same] if "again" in t), None)
    return (known["again"], known["again_se"]) if known else None


def best(mine: Sequence[Result], grids: Mapping[int, Result]) -> str:
    """What a way calls its best of the runs that came to their budget, on other items.

    The error joins items, which are the same for every seed, and seeds.
    """
    found = [(max(at_budget(r), key=lambda t: t["score"]), grids.get(key(r)[2])) for r in mine if at_budget(r)]
    if not found:
        return "none"
    cells = "; ".join(dict.fromkeys(t["cell"] for t, _ in found))
    known = [value for trial, grid in found if (value := again(trial, grid))]
    if len(known) < len(found):
        return f"model not kept ({cells})"
    scores = [value for value, _ in known]
    items = statistics.fmean(error**2 for _, error in known)
    seeds = statistics.variance(scores) / len(scores) if len(scores) > 1 else 0.0
    return f"{statistics.fmean(scores):.3f} ± {math.sqrt(items + seeds):.3f} ({cells})"


def kept(mine: Sequence[Result], grids: Mapping[int, Result]) -> str:
    """How many of the grid's winners a way ran to their budgets. Cells that tie with the last winner are winners too."""
    met = won = 0
    for result in mine:
        if grid := grids.get(key(result)[2]):
            scores = {t["cell"]: t["again"] for t in at_budget(grid)}
            bar = sorted(scores.values(), reverse=True)[:TOP][-1]
            winners = {cell for cell, score in scores.items() if score >= bar}
            met += len(winners & {t["cell"] for t in at_budget(result)})
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
