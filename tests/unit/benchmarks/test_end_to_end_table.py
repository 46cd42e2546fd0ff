"""The comparison's table: means, spreads, shares and kept winners of a few results, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.end_to_end.table import best, keep, kept, read, spread, tables

KEPT = Path(__file__).parents[3] / "benchmarks" / "end_to_end" / "measured.jsonl"


def result(way: str, seed: int, cpu: float, again: dict[str, float], **more: Any) -> dict[str, Any]:
    """A result in which a run without a re-evaluation was ended early."""
    runs = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    trials: list[dict[str, Any]] = [{"cell": cell, "score": value, "reached": 1} for cell, value in runs.items()]
    for trial in trials:
        if trial["cell"] in again:
            trial |= {"again": again[trial["cell"]], "again_se": 0.03, "model": "/nowhere"}
    what = {"way": way, "schedule": "wsd", "size": "third", "seed": seed, "cores": 2}
    return what | {"wall_s": cpu / 2, "cpu_s": cpu, "steps": 10, "lines": 7, "trials": trials, **more}


GRIDS = [result("grid", s, 100.0 * (s + 1), {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.1 * s}) for s in (0, 1)]
MINE = [result("dipsweep", 0, 20, {"a": 0.5, "c": 0.6}), result("dipsweep", 1, 60, {"b": 0.4, "d": 0.2})]


def test_numbers_are_means_over_seeds_and_shares_of_the_same_seeds_grids():
    grids = {g["seed"]: g for g in GRIDS}
    assert spread(MINE, grids, "cpu_s") == "40, 20 to 60 (0.25)"  # 20/100 and 60/200
    assert spread(MINE, {0: GRIDS[0]}, "cpu_s") == "40, 20 to 60 (0.20)"
    assert spread(MINE[:1], {}, "cpu_s") == "20"


def test_winners_are_the_grids_three_best_of_each_seed():
    grids = {g["seed"]: g for g in GRIDS}
    assert kept(MINE, grids) == "3 of 6"  # a and c of seed 0; b of seed 1, where d is the fourth
    assert kept(MINE, {1: GRIDS[1]}) == "1 of 3"
    assert kept(MINE, {}) == "no grid of these seeds"


def test_the_best_is_the_one_that_the_way_itself_ranks_first():
    spread_of_seeds = 0.2**2 / 2  # 0.6 and 0.2: variance 0.08, of two seeds
    assert best(MINE) == f"0.400 ± {math.sqrt(0.03**2 + 2 * spread_of_seeds):.3f} (c; d)"
    assert best([result("asha", 0, 1, {})]) == "none"


def test_results_are_read_from_folders_and_kept_files_alike(tmp_path):
    for seed, grid in enumerate(GRIDS):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        (folder / "grid.json").write_text(json.dumps(grid))
    found = read([tmp_path / "seed-1", tmp_path / "seed-0"])
    assert [r["seed"] for r in found] == [0, 1]
    keep([*MINE, *found], tmp_path / "kept.jsonl")
    again = read([tmp_path / "kept.jsonl"])
    assert tables(again) == tables([*MINE, *found])
    assert "/nowhere" not in (tmp_path / "kept.jsonl").read_text()
    with pytest.raises(FileNotFoundError, match=r"expected dipsweep\.json"):
        read([tmp_path])


def test_sizes_and_schedules_have_tables_of_their_own():
    text = tables([*GRIDS, result("grid", 0, 5, {"a": 1.0}, schedule="cosine")])
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        "12 cells, WSD, 2 cores:", "12 cells, COSINE, 2 cores:",
    ]  # fmt: skip


def test_the_page_shows_the_kept_results():
    assert tables(read([KEPT])) in (KEPT.parent / "README.md").read_text(encoding="utf-8")
