"""The table of starts for RL: what was found is kept, and ranks agree as Kendall's tau says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.rl.starts import SHOWN, TASK, agreement, found_in, kendall, table


def before(value: float, task: float) -> dict[str, float]:
    return dict.fromkeys(SHOWN, value) | {TASK: task, f"{TASK} se": 0.01}


@pytest.mark.parametrize(
    ("pairs", "tau"),
    [
        ([(1, 1), (2, 2), (3, 3)], "+1.00"),
        ([(1, 3), (2, 2), (3, 1)], "-1.00"),
        ([(1, 2), (2, 1), (3, 3)], "+0.33"),
        ([(1, 1), (1, 2)], "+0.00"),
        ([(1, 1)], ""),
    ],
)
def test_kendalls_tau_of_few_pairs_by_hand(pairs, tau):
    assert kendall(pairs) == tau


def test_a_measure_is_compared_with_what_was_reached_and_what_was_gained_within_one_sft_run():
    found = {(0, 5): before(3, 0.1), (0, 320): before(1, 0.7), (1, 5): before(1, 0.1)}
    after = {(0, 5, 0): {TASK: 0.2}, (0, 5, 1): {TASK: 0.4}, (0, 320, 0): {TASK: 0.7}}
    rows = {row[0]: row[1:] for row in agreement(found, after)}
    assert rows["ready/score"] == ["-1.00", "", "+1.00", ""]  # 5 reached less (0.3 of 0.7) and gained more (0.2 of 0.0)
    assert rows[TASK] == ["+1.00", "", "-1.00", ""]


def test_lines_without_an_sft_seed_are_of_seed_0(tmp_path):
    file = tmp_path / "found.jsonl"
    assert found_in(file) == []
    after = {TASK: 0.3, f"{TASK} se": 0.02}
    lines = [{"sft_step": 5, "before": before(0.5, 0.1)}, {"sft_seed": 1, "sft_step": 5, "before": before(0.5, 0.1)}]
    lines.append({"sft_step": 5, "seed": 2, "after": after})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = table(found_in(file)).splitlines()
    assert shown[0].endswith("| after GRPO, seed 2 |")
    assert shown[2].startswith("| 0 | 5 | 0.50 |")
    assert shown[2].endswith("| 0.30 ± 0.02 |")
    assert shown[3].startswith("| 1 | 5 |")
    assert shown[3].endswith("|  |")


def test_the_page_shows_the_kept_results():
    root = Path(__file__).parents[3]
    assert table(found_in(root / "benchmarks/rl/found.jsonl")) in (root / "docs/ready-for-rl.md").read_text()
