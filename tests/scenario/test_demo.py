"""The demo, run as `make demo` runs it: its report must show what the README says it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    demo = str(REPO / "examples" / "dip_and_recovery.yaml")
    run = _dipsweep("run", demo, cwd=folder)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(_dipsweep("report", "dip-and-recovery", "--json", cwd=folder).stdout)


def _dipsweep(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.cli.main", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def readings(report: dict[str, Any], metric: str) -> dict[str, dict[str, Any]]:
    return {t["label"]: t["readings"][metric] for t in report["trials"]}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_the_demo_shows_a_dip_a_recovery_a_run_that_does_not_come_back_and_refusal_falling_while_skill_rises(report):
    assert [t["state"] for t in report["trials"]] == ["completed"] * 6
    general = readings(report, "general/score")
    came_back = [
        label
        for label, s in general.items()
        if s["depth_relative"] >= 0.20 and s["beyond_2se"] and s["final"]["value"] >= 0.9 * s["base"]["value"]
    ]
    assert came_back
    assert all("replay 0.2" in label for label in came_back)
    gone = [label for label, s in general.items() if s["shape"] == "not-back"]
    assert [label for label in gone if label.endswith("replay 0")] != []
    skill, refusal = readings(report, "math/in_domain"), readings(report, "safety/refusal")
    paid = [label for label in skill if skill[label]["change"] > 0.2 and refusal[label]["change"] < -0.5]
    assert any("verified-long-cot" in label for label in paid)
