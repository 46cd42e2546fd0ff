"""Rules, suites, loops and searches of the documentation's pages, installed as a package and named in sweep files."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.cli.plan_view import saving_for
from cluster.locate import definition
from cluster.preflight.cost import speeds_for
from cluster.preflight.plugins import installed_plugins
from cluster.run_sweep import run, stop_rule
from cluster.train.functions import PluginTrain
from cluster.train.worker import explain
from evaluators.suites.registry import load_suite
from sweeps import Sweep, grid
from sweeps.checkpoints.manifest import seal
from sweeps.config.checks.whole_sweep import checked_settings
from sweeps.config.plan import Plan
from sweeps.config.trial import EvalSpec, Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.request_handler import carry_out
from sweeps.controller.requests import Request
from sweeps.errors import DamagedCheckpoint, InputError, SpecError
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import ReportRow
from sweeps.journal.vocabulary import ControlAction
from sweeps.journal.writer import MemoryJournal
from sweeps.plugins import RULES
from sweeps.stopping.base import Action, NeverStop
from sweeps.storage.factory import open_store
from tests.support.fakes import FakeTrainer, fake_evaluate
from tests.support.plugin_package import install

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
SHORT = {"steps": 2, "batch_tokens": 256, "max_length": 128}


def of_the_pages() -> tuple[dict[str, str], str]:
    """Modules and entry points of all pages: each table of pyproject.toml names the module of the code before it."""
    modules, tables, code = dict[str, str](), list[str](), ""
    for page in ("own-stop-rule.md", "own-suite.md", "own-trainer.md"):
        for language, text in FENCE.findall((HOW_TO / page).read_text(encoding="utf-8")):
            if language == "python":
                code = text
            elif language == "toml":
                modules[re.findall(r'"(\w+):', text)[0] + ".py"] = code
                tables.append(re.sub(r'project\.entry-points\."(.*)"', r"\1", text).replace('"', ""))
    return modules, "\n".join(tables)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    modules, entry_points = of_the_pages()
    assert len(modules) == 4
    install(folder, modules, entry_points)
    monkeypatch.syspath_prepend(folder)
    return folder


def go(sweep: Sweep, storage: Path, **more):
    return run(sweep, storage=storage, backend="in-process", say=lambda line: None, **more)


def test_a_rule_and_a_search_by_name_decide_and_propose(package: Path, tmp_path: Path):
    sweep = Sweep(name="own", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 8}, evaluation={"at": {"every": 1}},
                  stopping={"rule": "floor", "least": 0.99}, search={"algorithm": "every-second", "start": 1})  # fmt: skip
    results = go(sweep, tmp_path / "runs", train=FakeTrainer(), evaluate=fake_evaluate)
    assert [trial.config["replay"] for trial in results.trials] == [0.1]
    assert any("is below 0.99 at report 3" in row.reason for row in results.decisions())


def test_a_suite_and_a_loop_by_name_score_and_train(package: Path, tmp_path: Path):
    flat = {"steps": 1, "lr_scheduler_type": "constant", "warmup_steps": 0, "learning_rate": 1e-3}
    trainer = {**SHORT, **flat, "loop": "root-scaled"}
    sweep = Sweep(name="own", space={"reference_tokens": grid(64)}, trainer=trainer, evaluation={"suite": "letters"})
    results = go(sweep, tmp_path / "runs")
    assert results.trials[0].state == "completed"
    reports = [row for row in read_rows(str(results)) if isinstance(row, ReportRow)]
    assert {row.metrics["train/lr"] for row in reports if "train/lr" in row.metrics} == {2e-3}  # four times the tokens
    assert {row.suite.partition("@")[0] for row in reports if row.suite} == {"letters"}


WRONG = {
    "a setting nobody has": (
        {"stopping": {"rule": "floor", "leats": 1.0}},
        "stopping.leats: unknown key 'leats'; known: least",
    ),
    "of another type": (
        {"stopping": {"rule": "floor", "least": "low"}},
        "stopping.least: got 'low' (a string); expected a number",
    ),
    "that ships for other rules": ({"stopping": {"rule": "floor", "grace": 3}}, "stopping.grace: unknown key 'grace'"),
    "a loop's": ({"trainer": {"loop": "root-scaled", "reference_token": 3}}, "did you mean 'reference_tokens'?"),
    "a loop's, under another loop": ({"trainer": {"reference_tokens": 3}}, "trainer.reference_tokens: unknown key"),
    "an axis of the wrong type": (
        {"trainer": "root-scaled", "space": {"reference_tokens": {"grid": ["a"]}}},
        "space.reference_tokens: got 'a' (a string); expected a whole number",
    ),
    "an axis of another loop": ({"space": {"reference_tokens": {"grid": [1]}}}, "unknown axis 'reference_tokens'"),
    "a search's": ({"search": {"algorithm": "every-second", "strat": 1}}, "did you mean 'start'?"),
    "a rule that is not there": ({"stopping": {"rule": "flor"}}, "stop rule 'flor' is unknown; known: none, dip-aware"),
    "a loop that is not there": ({"trainer": "rot-scaled"}, "did you mean 'root-scaled'?"),
}


@pytest.mark.parametrize("case", WRONG, ids=list(WRONG))
def test_settings_are_checked_before_anything_starts(package: Path, case: str):
    keys, says = WRONG[case]
    with pytest.raises(SpecError) as refused:
        Sweep(name="own", **keys)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("value", "says"), [("64", "got '64' (a string); expected a whole number"), (1.5, "got 1.5"), (None, "got None")]
)
def test_a_value_for_a_loops_own_setting_in_a_request_is_read_as_in_a_sweep_file(package: Path, value, says: str):
    sweep = Sweep(name="own", trainer={"loop": "root-scaled", "reference_tokens": 32})
    with pytest.raises(InputError, match="reference_tokens: ") as refused:
        checked_settings(sweep, {"reference_tokens": value})
    assert says in str(refused.value)
    checked_settings(sweep, {"reference_tokens": 64})


@pytest.mark.parametrize(
    ("action", "args"),
    [
        (ControlAction.EXTEND, {"steps": 16}),
        (ControlAction.CLONE, {"set": {"reference_tokens": 64}}),
        (ControlAction.ADD, {"set": {"replay": 0.5, "reference_tokens": 64}}),
    ],
)
def test_trials_of_a_loop_by_name_are_extended_cloned_and_added_like_others(package: Path, action, args):
    trainer = {"loop": "root-scaled", "reference_tokens": 32, "steps": 8}
    sweep = Sweep(name="own", space={"replay": grid(0.0, 0.1)}, trainer=trainer)
    controller = SweepController(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))
    launch = controller.next()
    assert launch is not None
    controller.saved(launch.spec.id, 1, Saved(4, "/4", "a"))
    known = set(controller.specs)
    carry_out(controller, Request(action, "" if action == "add" else launch.spec.id, args))
    (new,) = set(controller.specs) - known
    assert controller.specs[new].config["loop"] == "root-scaled"
    with pytest.raises(InputError, match="unknown key 'loop'"):
        carry_out(controller, Request(ControlAction.CLONE, launch.spec.id, {"set": {"loop": "sft"}}))


def test_a_text_stands_for_an_enum_and_a_list_for_a_tuple_in_files_axes_and_requests(tmp_path: Path, monkeypatch):
    code = """
from enum import Enum

class Pace(Enum):
    SLOW = "slow"
    FAST = "fast"

def train(trial, hooks, *, folder, resume, span: tuple[int, int] = (1, 2), pace: Pace = Pace.SLOW) -> None: ...
"""
    install(tmp_path / "site", {"pacing.py": code}, "[dipsweep.trainers]\npacing = pacing:train\n", "pacing")
    monkeypatch.syspath_prepend(tmp_path / "site")
    sweep = Sweep(name="own", trainer={"loop": "pacing", "span": [2, 3]}, space={"pace": grid("slow", "fast")})
    checked_settings(sweep, {"span": [5, 6], "pace": "fast"})
    with pytest.raises(SpecError, match=r"space\.pace"):
        Sweep(name="own", trainer="pacing", space={"pace": grid("slow", "fats")})
    for name, wrong in (("span", [1]), ("span", [1, "a"]), ("pace", "fats")):
        with pytest.raises(InputError, match=f"{name}: "):
            checked_settings(sweep, {name: wrong})


def test_commands_say_which_plugins_they_see(package: Path, tmp_path: Path):
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"name": "own", "trainer": {"loop": "root-scaled", **SHORT}, "stopping": {"rule": "floor"},
                                    "evaluation": {"suite": "letters"}, "storage": str(tmp_path / "runs")}))  # fmt: skip
    for command in ("validate", "plan"):
        shown = CliRunner().invoke(app, [command, str(file)]).stdout
        assert "uses the stop rule 'floor' of my-package 0.1 (my_rule:Floor)" in shown
        assert "uses the suite 'letters' of my-package 0.1 (my_suite:build)" in shown
        assert "uses the trainer 'root-scaled' of my-package 0.1 (my_trainer:train)" in shown
    assert {plugin.name: fault for plugin, fault in installed_plugins()} == dict.fromkeys(
        ("floor", "letters", "root-scaled", "every-second"), ""
    )


def test_a_package_that_cannot_be_imported_is_named_and_breaks_nothing_else(package: Path, tmp_path: Path, monkeypatch):
    code, entry_points = {"broken.py": "import no_such_module\n"}, "[dipsweep.rules]\nbroken = broken:Rule\n"
    install(tmp_path / "broken", code, entry_points, "broken-package")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    assert Sweep(name="own", stopping={"rule": "floor"})
    with pytest.raises(SpecError, match=r"'broken' of broken-package 0\.1 .*cannot be imported: ModuleNotFoundError"):
        Sweep(name="own", stopping={"rule": "broken"})
    fault = next(fault for plugin, fault in installed_plugins() if plugin.name == "broken")
    assert fault.endswith("'no_such_module'")


def test_two_packages_with_one_name_are_refused_and_a_name_that_ships_stays_ours(
    package: Path, tmp_path: Path, monkeypatch
):
    install(
        tmp_path / "other",
        {"other.py": ""},
        "[dipsweep.rules]\nfloor = other:Rule\nasha = other:Rule\n",
        "other-package",
    )
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(SpecError, match=r"'floor' is registered by my-package 0\.1 and other-package 0\.1"):
        Sweep(name="own", stopping={"rule": "floor"})
    assert RULES.load("asha").__module__ == "sweeps.stopping.baselines"
    assert "ships with dipsweep and is used; that of other-package 0.1 never is" in RULES.conflicts()["asha"]


def test_a_sweep_is_looked_at_where_its_rule_is_not_installed_and_goes_on_only_where_it_is(
    package: Path, tmp_path: Path
):
    sweep = Sweep(
        name="own", trainer={"steps": 8}, evaluation={"at": {"every": 1}}, stopping={"rule": "floor", "least": 0.99}
    )
    home = str(go(sweep, tmp_path / "runs", train=FakeTrainer(), evaluate=fake_evaluate))
    without = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    code = """
import sys
from typer.testing import CliRunner
from cluster.cli.main import app
for command in (["status"], ["report"], ["logs"], ["cost"], ["list", "--storage", sys.argv[1].rpartition("/")[0]]):
    done = CliRunner().invoke(app, command if command[0] == "list" else [*command, sys.argv[1]])
    assert done.exit_code == 0, (command, done.output, done.exception)
done = CliRunner().invoke(app, ["resume", sys.argv[1]])
print(done.exception)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, home], **without
    )  # the package is on this process's path only
    assert done.returncode == 0, done.stderr
    assert "stop rule 'floor' is unknown" in done.stdout
    assert definition(open_store(home)).stopping.own == {"least": 0.99}


def test_a_plan_rehearses_a_rule_as_it_is_now(tmp_path: Path, monkeypatch):
    code = """
from sweeps.stopping import Action, StopRule, Verdict
ANSWER = Action.STOP
class Rule(StopRule):
    def decide(self, trial):
        return Verdict(ANSWER, "told")
"""
    install(tmp_path / "site", {"edited_rule.py": code}, "[dipsweep.rules]\nedited = edited_rule:Rule\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = Plan(
        Sweep(name="own", trainer={"steps": 100}, evaluation={"at": {"every": 25}}, stopping={"rule": "edited"})
    )
    speeds = speeds_for(plan, gpu="H100")
    stops = saving_for(plan, speeds, nodes=[1.0])
    monkeypatch.setattr(sys.modules["edited_rule"], "ANSWER", Action.CONTINUE)
    goes_on = saving_for(plan, speeds, nodes=[1.0])
    assert stops is not None
    assert goes_on is not None
    assert stops.share > 0.5
    assert goes_on.share == 0.0


def test_a_loop_that_takes_no_rank_is_refused_several_workers(tmp_path: Path, monkeypatch):
    code = "def train(trial, hooks, *, folder, resume):\n    pass\n\nnumber = 3\n"
    install(tmp_path / "site", {"alone.py": code}, "[dipsweep.trainers]\nalone = alone:train\nnumber = alone:number\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(SpecError, match=r"models\.tiny-s\.workers: got 2, but trainer 'alone' takes no rank and world"):
        Sweep(name="own", trainer="alone", models={"tiny-s": {"workers": 2}})
    with pytest.raises(SpecError, match="is 3 \\(a whole number\\); expected a class or a function"):
        Sweep(name="own", trainer="number")


def test_a_rule_that_is_none_is_refused(tmp_path: Path, monkeypatch):
    install(tmp_path / "site", {"odd.py": "def rule(goal):\n    return goal\n"}, "[dipsweep.rules]\nodd = odd:rule\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(
        InputError, match=r"'odd' of my-package 0\.1 .* made Goal; expected a sweeps\.stopping\.StopRule"
    ):
        go(Sweep(name="own", trainer={"steps": 8}, stopping={"rule": "odd"}), tmp_path / "runs")


def test_a_definition_of_version_0_1_that_names_protect_for_every_rule_goes_on():
    old = Sweep(name="x", stopping={"rule": "asha"}).to_json()
    recorded = Sweep.recorded({**old, "stopping": {**old["stopping"], "protect": "strict"}})
    assert stop_rule(recorded).name == "asha"
    assert recorded.id == Sweep(name="x", stopping={"rule": "asha"}).id


def test_a_loop_of_a_package_goes_on_from_no_checkpoint_but_its_own(tmp_path: Path, monkeypatch):
    code = "seen = []\ndef train(trial, hooks, *, folder, resume) -> None: seen.append(resume)\n"
    install(tmp_path / "site", {"notes_it.py": code}, "[dipsweep.trainers]\nnotes-it = notes_it:train\n", "notes-it")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (spec,) = Plan(Sweep(name="own", trainer={"loop": "notes-it", "steps": 8})).known_trials()

    def checkpoint(name: str) -> Saved:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
        return seal(tmp_path / name, 4)

    def go_on(resume: Saved) -> None:
        PluginTrain("notes-it")(spec, object(), folder=tmp_path / "attempt-2", resume=resume)  # type: ignore[arg-type]

    own, other = checkpoint("own"), checkpoint("other")
    go_on(own)
    with pytest.raises(DamagedCheckpoint, match="holds other weights than its sweep wrote there"):
        go_on(replace(own, path=other.path))
    (tmp_path / "own/model.safetensors").write_text("own, changed")
    with pytest.raises(DamagedCheckpoint, match=r"model\.safetensors has 12 bytes"):
        go_on(own)
    assert sys.modules["notes_it"].seen == [own]


@pytest.mark.parametrize(
    ("group", "names", "code"),
    [
        ("rules", {"stopping": {"rule": "torn"}}, "def make(goal):\n    return {}['x']\n"),
        ("searchers", {"search": {"algorithm": "torn"}}, "class make:\n    def __init__(self, plan): {}['x']\n"),
        ("suites", {"evaluation": {"suite": "torn"}}, "def make(items, seed, where):\n    return {}['x']\n"),
    ],
)
def test_what_a_plugin_stumbles_over_when_it_is_made_is_told_with_its_name_and_its_line(
    tmp_path: Path, monkeypatch, group: str, names: dict, code: str
):
    install(tmp_path / "site", {f"torn_{group}.py": code}, f"[dipsweep.{group}]\ntorn = torn_{group}:make\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    told = (
        rf"'torn' of my-package 0\.1 \(torn_{group}:make\) cannot be (made|built): KeyError: 'x' \(torn_{group}\.py:2\)"
    )
    runs, given = tmp_path / "runs", {"train": FakeTrainer(), "evaluate": fake_evaluate}
    sweep = None if group == "suites" else Sweep(name="own", trainer={"steps": 8}, **names)
    with pytest.raises(InputError, match=told):
        load_suite(EvalSpec("torn")) if sweep is None else go(sweep, runs, **given)


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ("None", r"cannot be built: TypeError: 'NoneType' object is not iterable"),
        ("('ask',)", r"built a suite with a task that is a str; expected an evaluators\.tasks\.EvalTask"),
    ],
)
def test_a_suite_of_other_things_than_tasks_is_refused_by_its_name(tmp_path: Path, monkeypatch, tasks: str, why: str):
    code = f"from evaluators.tasks import Suite\ndef make(items, seed, where):\n    return Suite('s', {tasks}, {{}})\n"
    monkeypatch.delitem(sys.modules, "bare_suite", raising=False)
    install(tmp_path / "site", {"bare_suite.py": code}, "[dipsweep.suites]\nbare = bare_suite:make\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(InputError, match=rf"'bare' of my-package 0\.1 \(bare_suite:make\) {why}"):
        load_suite(EvalSpec("bare"))


def test_an_error_of_a_packages_loop_says_which_package_and_line_it_comes_from(tmp_path: Path, monkeypatch):
    code = "def train(trial, hooks, *, folder, resume) -> None:\n    raise KeyError('weights')\n"
    install(tmp_path / "site", {"torn_loop.py": code}, "[dipsweep.trainers]\ntorn-loop = torn_loop:train\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (spec,) = Plan(Sweep(name="own", trainer={"loop": "torn-loop", "steps": 8})).known_trials()
    with pytest.raises(KeyError) as raised:
        PluginTrain("torn-loop")(spec, object(), folder=tmp_path, resume=None)  # type: ignore[arg-type]
    carried = pickle.loads(pickle.dumps(raised.value))  # as Ray carries it
    assert explain(carried).detail == (
        "KeyError: 'weights' (raised by trainer 'torn-loop' of my-package 0.1 (torn_loop:train), torn_loop.py:2)"
    )
