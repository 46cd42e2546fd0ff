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
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run = _dipsweep("run", str(REPO / "examples" / "dip_and_recovery.yaml"), cwd=folder)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def report(demo_folder: Path) -> dict[str, Any]:
    return json.loads(_dipsweep("report", "dip-and-recovery", "--json", cwd=demo_folder).stdout)


def _dipsweep(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.cli.main", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def readings(report: dict[str, Any], metric: str) -> dict[str, dict[str, Any]]:
    return {t["label"]: t["readings"][metric] for t in report["trials"]}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_the_demo_protects_a_dip_that_comes_back_ends_what_is_lost_and_shows_refusal_falling_while_skill_rises(report):
    states = {t["label"]: t["state"] for t in report["trials"]}
    general = readings(report, "general/score")
    came_back = [
        label
        for label, s in general.items()
        if s["depth_relative"] >= 0.20 and s["beyond_2se"] and s["final"]["value"] >= 0.9 * s["base"]["value"]
    ]
    assert any("verified-long-cot" in label for label in came_back)
    assert all("replay 0.2" in label and states[label] == "completed" for label in came_back)
    ended = {t["label"]: t for t in report["trials"] if t["state"] == "pruned"}
    assert [label for label in ended if "corrupted-cot" in label] != []
    assert [label for label in ended if label.endswith("replay 0") and general[label]["shape"] == "not-back"] != []
    skill, refusal = readings(report, "math/in_domain"), readings(report, "safety/refusal")
    paid = [label for label in skill if skill[label]["change"] > 0.2 and refusal[label]["change"] < -0.5]
    assert any("verified-long-cot" in label for label in paid)


@pytest.mark.slow
@pytest.mark.ray
def test_what_the_usual_rules_would_have_ended_is_replayed_on_its_curves(report, demo_folder):
    (sweep,) = (demo_folder / "runs").glob("dip-and-recovery-*")
    rules = [f"--rule={rule}" for rule in ("dip-aware", "median", "asha", "hyperband")]
    said = _dipsweep("replay", str(sweep), *rules, "--workers", "2", "--orders", "20", cwd=demo_folder)
    assert said.returncode == 0, said.stderr
    assert "asha would have ended data=verified-long-cot replay=0.2 at step" in said.stdout
    assert "dip-aware would have ended" not in said.stdout
