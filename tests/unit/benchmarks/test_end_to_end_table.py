"""The comparison's table: means, spreads, shares and kept winners of a few results, by hand."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.end_to_end import __main__ as program
from benchmarks.end_to_end.common import MOST_ROWS, conversations
from benchmarks.end_to_end.table import best, keep, kept, read, spread, table, tables
from sweeps.config.trial import TierSource
from trainers.data.sources.datasets import load

KEPT = Path(__file__).parents[3] / "benchmarks" / "end_to_end" / "measured.jsonl"


def result(way: str, seed: int, cpu: float, again: dict[str, float], **more: Any) -> dict[str, Any]:
    """A result in which a run without a re-evaluation was ended early."""
    trials: list[dict[str, Any]] = []
    for cell, value in {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}.items():
        trials.append({"cell": cell, "score": value, "reached": 1, "steps": 2})
        if cell in again:
            trials[-1] |= {"reached": 2, "again": again[cell], "again_se": 0.03, "model": "/nowhere"}
    what = {"way": way, "schedule": "wsd", "size": "third", "seed": seed, "cores": 2}
    return what | {"wall_s": cpu / 2, "cpu_s": cpu, "steps": 10, "lines": 7, "trials": trials, **more}


GRIDS = [result("grid", s, 100.0 * (s + 1), {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.1 * s}) for s in (0, 1)]
MINE = [result("dipsweep", 0, 20, {"a": 0.5, "c": 0.6}), result("dipsweep", 1, 60, {"b": 0.4, "d": 0.2})]


def test_numbers_are_means_over_seeds_and_shares_of_the_same_seeds_grids():
    grids = {g["seed"]: g for g in GRIDS}
    assert spread(MINE, grids, "cpu_s") == "40, 20 to 60 (0.25, 0.20 to 0.30)"  # 20/100 and 60/200
    assert spread(MINE, {0: GRIDS[0]}, "cpu_s") == "40, 20 to 60 (0.20)"
    assert spread(MINE[:1], {}, "cpu_s") == "20"
    assert spread(GRIDS, grids, "steps") == "10 (1.00)"


def test_winners_are_the_grids_three_best_of_each_seed():
    grids = {g["seed"]: g for g in GRIDS}
    assert kept(MINE, grids) == "3 of 6"  # a and c of seed 0; b of seed 1, where d is the fourth
    assert kept(MINE, {1: GRIDS[1]}) == "1 of 3"
    assert kept(MINE, {}) == "no grid of these seeds"


def test_cells_that_tie_with_the_last_winner_are_winners_too():
    grid = result("grid", 0, 1, {"a": 0.9, "b": 0.5, "c": 0.5, "d": 0.5})
    assert kept([result("asha", 0, 1, {"a": 0.1, "d": 0.1})], {0: grid}) == "2 of 4"


def test_a_run_that_a_scheduler_ended_at_its_very_budget_is_kept_and_is_the_grids_run_where_the_score_is():
    """ASHA ends every run that reports `max_t`: it was trained to its end, though its model was not saved once."""
    asha = result("asha", 0, 1, {"a": 0.5})
    asha["trials"][2] |= {"reached": 2}  # c, better than a
    grids = {0: GRIDS[0]}
    assert kept([asha], grids) == "2 of 3"
    assert "| 2 of 12 |" in table([asha])
    assert best([asha], grids) == "0.700 ± 0.030 (c)"  # the grid's c, which has the same score
    assert best([asha], {}) == "model not kept (c)"
    asha["trials"][2]["score"] = 0.31  # of another training
    assert best([asha], grids) == "model not kept (c)"
    asha["trials"][3] |= {"reached": None, "score": None}  # ended before its first score
    assert kept([asha], grids) == "2 of 3"


def test_the_best_is_the_one_that_the_way_itself_ranks_first():
    spread_of_seeds = 0.2**2 / 2  # 0.6 and 0.2: variance 0.08, of two seeds
    assert best(MINE, {}) == f"0.400 ± {math.sqrt(0.03**2 + 2 * spread_of_seeds):.3f} (c; d)"
    assert best([result("asha", 0, 1, {})], {}) == "none"


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


def test_the_others_tokenise_the_tier_once_with_its_share_of_replay():
    cell = {"data": "answer-only", "replay": 0.2, "lr": 3e-3, "steps": 400}
    rows = [json.dumps(row) for row in conversations(cell)]
    data = load("answer-only", TierSource(), seed=0)
    primary = {json.dumps({"prompt": row[:-1], "completion": row[-1:]}) for row in data.primary}
    assert len(rows) == round(len(data.primary) / 0.8)
    assert sum(row not in primary for row in rows) / len(rows) == pytest.approx(0.2, abs=0.02)
    assert len(primary & set(rows)) > 0.97 * len(primary)
    assert len(conversations({**cell, "steps": 1})) == MOST_ROWS


def test_a_way_that_ended_before_it_was_killed_says_nothing_of_what_a_kill_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "command", lambda way, a, out: ([sys.executable, "-c", "raise SystemExit(3)"], {}))
    monkeypatch.setattr(program, "CpuMeter", contextlib.nullcontext)
    with pytest.raises(SystemExit, match=r"grid had ended within 1 s, with 3: .*log; expected a smaller --after"):
        program.kill("grid", argparse.Namespace(out=tmp_path, after=1.0))


def test_the_page_shows_the_kept_results():
    assert tables(read([KEPT])) in (KEPT.parent / "README.md").read_text(encoding="utf-8")
