"""Starting is cheap and needs no Ray. Which package may import which is import-linter's business (`make check`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.guard import OURS, check_names

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "module",
    ["sweeps", "cluster", "cluster.cli.main", "sweeps.report", "sweeps.config.sweep_file.yaml", "sweeps.report.replay"],
)
def test_importing_is_cheap(module: str):
    heavy = ["ray", "torch", "transformers", "optuna", "pandas", "reasoning_gym"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("trainer", ["{steps: 100}", "{steps: 100, lora_rank: 16}"])
def test_a_plan_of_a_known_model_on_gpus_with_its_memory_waits_for_neither_torch_nor_ray(tmp_path: Path, trainer: str):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "name: known\nmodels: {qwen3-1.7b: {path: /not/here}}\nspace: {model: {grid: [qwen3-1.7b]}}\n"
        f"trainer: {trainer}\n"
    )
    code = (
        "import sys; from cluster.cli.main import app\n"
        f"app(['plan', {str(sweep)!r}, '--gpus', '8', '--storage', {str(tmp_path)!r}], standalone_mode=False)\n"
        "print([m for m in ('ray', 'torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert "memory       qwen3-1.7b: " in out.stdout
    assert out.stdout.splitlines()[-1] == "[]"


WITHOUT_RAY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "ray" or name.startswith("ray."):
            raise ImportError("ray is not importable here")
sys.meta_path.insert(0, Refuse())
sys.argv = ["dipsweep", *{argv!r}]
from cluster.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def tiny_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(
        "name: tiny\nspace: {data: {grid: [answer-only]}}\n"
        "trainer: {steps: 2, learning_rate: 3.0e-3, batch_tokens: 256, max_length: 128}\nevaluation: {items: 4, at: [1, 2]}\n"
    )
    return path


def trial_of(status: str) -> str:
    return str(json.loads(status)["each"][0]["trial"])


def test_validate_plan_run_and_report_work_where_ray_is_not_importable(tiny_sweep: Path):
    def command(*argv: str) -> str:
        code = WITHOUT_RAY.format(argv=list(argv))
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tiny_sweep.parent
        )
        assert out.returncode == 0, out.stderr
        return out.stdout

    assert "fine" in command("validate", str(tiny_sweep))
    assert "1 trial" in command("plan", str(tiny_sweep))
    assert "completed at step 2 [1/1]" in command("run", str(tiny_sweep), "--in-process")
    assert "is finished already" in command("run", str(tiny_sweep), "--in-process")
    assert command("report", "tiny").strip().endswith("report/index.html")
    trial = trial_of(command("status", "tiny", "--json"))
    assert command("export", "tiny", trial, "out").strip() == "out"
    assert (tiny_sweep.parent / "out" / "model.safetensors").is_file()
    assert command("export", "tiny", trial, "rl", "--for", "trl").startswith(
        "rl/grpo.yaml: trl, 5,000 prompts of answer-only"
    )
    assert (tiny_sweep.parent / "rl" / "model" / "model.safetensors").is_file()
    assert '"state": "completed"' in command("status", "tiny", "--json")
    assert "completed at step 2" in command("logs", "tiny")
    assert "none" in command("replay", next(str(p) for p in tiny_sweep.parent.glob("runs/tiny-*")), "--rule", "none")


def test_an_intruder_under_one_of_our_names_is_named_with_the_way_out():
    check_names({name: ["dipsweep"] for name in OURS})
    check_names()
    with pytest.raises(ImportError, match=r"'sweeps' also belongs to sweeps.*pip uninstall sweeps"):
        check_names({**{name: ["dipsweep"] for name in OURS}, "sweeps": ["dipsweep", "sweeps"]})


def test_the_built_in_names_of_the_schema_are_those_that_the_trainers_ship():
    from sweeps.config.names import BUILTIN_MODELS, BUILTIN_TIERS
    from trainers.data.sources.datasets import BUILTIN as TIERS
    from trainers.model.files.builtin import BUILTIN, builtin_folder

    assert set(BUILTIN_TIERS) == set(TIERS)
    assert set(BUILTIN_MODELS) == set(BUILTIN)
    assert all((builtin_folder(name) / "model.safetensors").is_file() for name in BUILTIN_MODELS)


def test_each_package_ships_its_types_and_the_tests_stay_out():
    import tomllib

    build = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == list(OURS)
    assert all((REPO / name / "py.typed").is_file() for name in OURS)
