"""The table of bad sweep files: each gets its message, with file and line, and none of them starts anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.config.sweep_file.yaml import load, loads
from sweeps.errors import InputError, SpecError

GOOD = "name: good\nspace:\n  data: {grid: [verified-long-cot, answer-only]}\n"

BAD: dict[str, tuple[str, list[str]]] = {
    "empty file": ("", ["sweep.yaml:1: the file is empty"]),
    "only a list": ("- a\n- b\n", ["sweep.yaml:1: a sweep file is a mapping"]),
    "tab": ("name: x\nspace:\n\tsteps: 3\n", ["sweep.yaml:3: not valid YAML", "spaces, not tabs"]),
    "unclosed bracket": ("name: x\nspace: {data: {grid: [a}\n", ["sweep.yaml:2: not valid YAML"]),
    "two documents": ("name: x\n---\nname: y\n", ["sweep.yaml:2: not valid YAML"]),
    "python tag": ("name: !!python/object/apply:os.system [id]\n", ["sweep.yaml:1 name", "tag", "is refused"]),
    "duplicate key": (
        "name: x\nseed: 1\nseed: 2\n",
        ["sweep.yaml:3 seed: the key 'seed' stands twice, first on line 2"],
    ),
    "no name": ("seed: 1\n", ["name: missing"]),
    "bad name": (
        "name: My Sweep\n",
        ["sweep.yaml:1 name: got 'My Sweep' (a string); expected at most 63 lower-case letters"],
    ),
    "typo at the top": ("name: x\nspcae: {}\n", ["sweep.yaml:2 spcae: unknown key", "did you mean 'space'?"]),
    "typo in a block": (
        "name: x\ntrainer:\n  warmpu: 3\n",
        ["sweep.yaml:3 trainer.warmpu: unknown key", "'warmup_steps'?"],
    ),
    "other trainers' word": ("name: x\ntrainer: {lora_r: 8}\n", ["trainer.lora_r", "did you mean 'lora_rank'?"]),
    "other trainers' value": (
        "name: x\ntrainer: {lr_scheduler_type: warmup_stable_decay}\n",
        ["trainer.lr_scheduler_type", "did you mean 'wsd'?"],
    ),
    "a name of the past": (
        "name: x\ntrainer:\n  lr: 1e-4\n",
        ["sweep.yaml:3 trainer.lr: is now trainer.learning_rate"],
    ),
    "an axis of the past": (
        "name: x\nspace:\n  schedule: {grid: [wsd]}\n",
        ["sweep.yaml:3 space.schedule: is now space.lr_scheduler_type"],
    ),
    "no decay at all": (
        "name: x\ntrainer: {lr_scheduler_type: wsd, decay: 0.0}\n",
        ["trainer.decay: got 0.0 (a number); expected a number > 0"],
    ),
    "a step of one token": (
        "name: x\ntrainer: {batch_tokens: 1}\n",
        ["trainer.batch_tokens: got 1", "expected a number >= 2"],
    ),
    "negative rate": (
        "name: x\ntrainer: {learning_rate: -1e-4}\n",
        ["trainer.learning_rate: got -0.0001 (a number); expected a number > 0"],
    ),
    "zero steps": ("name: x\ntrainer: {steps: 0}\n", ["trainer.steps: got 0 (a whole number); expected a number >= 1"]),
    "words for a number": (
        "name: x\ntrainer: {steps: many}\n",
        ["trainer.steps: got 'many' (a string); expected a whole number"],
    ),
    "bool for a number": (
        "name: x\ntrainer: {steps: true}\n",
        ["trainer.steps: got True (true/false); expected a whole number"],
    ),
    "fraction of a step": (
        "name: x\ntrainer: {steps: 2.5}\n",
        ["trainer.steps: got 2.5 (a number); expected a whole number"],
    ),
    "infinite rate": ("name: x\ntrainer: {learning_rate: .inf}\n", ["trainer.learning_rate: got inf", "finite"]),
    "share above one": (
        "name: x\ntrainer: {replay: 1.5}\n",
        ["trainer.replay: got 1.5 (a number); expected a number <= 1"],
    ),
    "empty grid": ("name: x\nspace: {data: {grid: []}}\n", ["space.data: an empty grid gives no trials"]),
    "doubled value": ("name: x\nspace: {steps: {grid: [10, 10]}}\n", ["space.steps: grid lists 10 twice"]),
    "unknown axis": ("name: x\nspace: {optimizer: {grid: [adam]}}\n", ["space.optimizer: unknown axis 'optimizer'"]),
    "axis without kind": (
        "name: x\nspace: {steps: [10, 20]}\n",
        ["space.steps: got [10, 20]; expected an axis, one of"],
    ),
    "unknown axis kind": (
        "name: x\nspace: {learning_rate: {loguniforn: [1e-5, 1e-3]}}\n",
        ["'loguniforn' is unknown", "'loguniform'?"],
    ),
    "two kinds": (
        "name: x\nspace: {learning_rate: {grid: [1e-3], choice: [1e-4]}}\n",
        ["space.learning_rate", "exactly one of"],
    ),
    "reversed range": (
        "name: x\nsearch: {algorithm: random, trials: 3}\nspace: {learning_rate: {uniform: [1e-3, 1e-5]}}\n",
        ["sweep.yaml:3 space.learning_rate: uniform [0.001, 1e-05] is empty or reversed"],
    ),
    "log of zero": (
        "name: x\nsearch: {algorithm: random, trials: 3}\nspace: {learning_rate: {loguniform: [0, 1e-3]}}\n",
        ["loguniform needs low > 0"],
    ),
    "unknown model": ("name: x\nspace: {model: {grid: [tiny-z]}}\n", ["space.model: 'tiny-z' is unknown", "'tiny-s'?"]),
    "unknown tier": (
        "name: x\nspace: {data: {grid: [long-cot]}}\n",
        ["space.data: 'long-cot' is unknown", "goes under tiers"],
    ),
    "more at least than at most": (
        "name: x\nmodels: {tiny-s: {workers: [4, 2]}}\n",
        ["models.tiny-s.workers: got [4, 2]", "[fewest, most]"],
    ),
    "built-in of no such name": ("name: x\nmodels: {qwen: {path: builtin}}\n", ["models.qwen.path: no built-in"]),
    "bad schedule value": (
        "name: x\nspace: {lr_scheduler_type: {grid: [cosin]}}\n",
        ["space.lr_scheduler_type", "did you mean 'cosine'?"],
    ),
    "range for a name": (
        "name: x\nsearch: {algorithm: random}\nspace: {model: {uniform: [0, 1]}}\n",
        ["space.model: uniform makes no sense for names"],
    ),
    "range for whole numbers": (
        "name: x\nsearch: {algorithm: random}\nspace: {steps: {uniform: [10, 20]}}\n",
        ["space.steps: uniform gives fractions"],
    ),
    "grid cannot sample": (
        "name: x\nspace: {learning_rate: {uniform: [1e-5, 1e-3]}}\n",
        ["space.learning_rate", "cannot sample a uniform axis"],
    ),
    "nothing to sample": (
        "name: x\nsearch: {algorithm: optuna-tpe, trials: 5}\n",
        ["search.algorithm", "no axis to sample"],
    ),
    "trials of a grid": ("name: x\nsearch: {trials: 5}\n", ["search.trials: got 5, but algorithm grid"]),
    "unknown algorithm": (
        "name: x\nsearch: {algorithm: optuna-tpee}\n",
        ["search.algorithm", "did you mean 'optuna-tpe'?"],
    ),
    "too many trials": (
        "name: x\nsearch: {repeats: 90000}\nspace: {steps: {grid: [1, 2]}}\n",
        ["180,000 trials are more than 100,000"],
    ),
    "unknown metric role": (
        "name: x\nobjective: {metric: accuracy}\n",
        [
            "objective.metric: got 'accuracy'",
            "role/name",
            "one of math, transfer, general, safety, ready, train, length, perf",
        ],
    ),
    "unknown goal": (
        "name: x\nobjective: {goal: max}\n",
        ["objective.goal: got 'max' (a string); expected one of maximize, minimize"],
    ),
    "maximizing the loss by default": (
        "name: x\nobjective: {metric: train/loss}\n",
        ["objective.goal: missing; expected minimize or maximize, since less train/loss is usually meant"],
    ),
    "constraint without bound": (
        "name: x\nconstraints: [{metric: safety/refusal}]\n",
        ["constraints[0]: got no bound"],
    ),
    "constraint with two": (
        "name: x\nconstraints: [{metric: safety/refusal, at_least: 0.1, at_most: 0.2}]\n",
        ["constraints[0]: got at_least and at_most"],
    ),
    "constraints that exclude each other": (
        "name: x\nconstraints: [{metric: length/mean, at_most: 50}, {metric: length/mean, at_least: 90}]\n",
        ["constraints[0].at_most: got 50 beside at_least 90 for length/mean, which no score meets together"],
    ),
    "constraint in percent": (
        "name: x\nconstraints: [{metric: safety/refusal, at_least: 90}, {metric: math/score@8, relative_to_base: -10}]\n",
        [
            "constraints[0].at_least: got 90; expected 0 to 1, since safety/refusal is a share (10 points are 0.1)",
            "constraints[1].relative_to_base: got -10; expected -1 to 1",
        ],
    ),
    "constraint that no base can meet": (
        "name: x\nconstraints: [{metric: train/loss, relative_to_base: 0.1}]\n",
        ["constraints[0].relative_to_base: got 0.1 for train/loss, which no base model has"],
    ),
    "unknown rule": ("name: x\nstopping: {rule: asah}\n", ["stopping.rule", "did you mean 'asha'?"]),
    "setting of another rule": (
        "name: x\nstopping: {rule: asha, patience: 3}\n",
        ["stopping.patience", "belongs to dip-aware, patient"],
    ),
    "patience that the rule would refuse": (
        "name: x\nstopping: {rule: dip-aware, patience: 101}\n",
        ["sweep.yaml:2 stopping.patience: got 101; expected at most 100 times the step of the trough"],
    ),
    "half a report of patience": (
        "name: x\nstopping: {rule: patient, patience: 2.5}\n",
        ["sweep.yaml:2 stopping.patience: got 2.5; expected a whole number of reports"],
    ),
    "grace beyond the budget": (
        "name: x\nstopping: {rule: asha, grace: 400}\n",
        ["stopping.grace: got 400", "never speak"],
    ),
    "evaluation never": (
        "name: x\nevaluation: {at: {every: 500}}\n",
        ["evaluation.at: every 500 steps is never reached"],
    ),
    "evaluation beyond": ("name: x\nevaluation: {at: [10, 500]}\n", ["evaluation.at: step 500 lies beyond"]),
    "evaluation at nonsense": ("name: x\nevaluation: {at: often}\n", ["evaluation.at: got 'often'"]),
    "money without price": ("name: x\nlimits: {usd: 10}\n", ["limits: got usd without usd_per_gpu_hour"]),
    "control character": ("name: x\nseed: \x07\n", ["sweep.yaml:2: the character '\\x07' is not allowed"]),
    "half a character": ('name: "\\ud800"\n', ["sweep.yaml:1 name: got '\\ud800', which holds half a character"]),
    "a tag that does not fit": (
        "name: x\nseed: !!bool 3\n",
        ["sweep.yaml:2 seed: '3' (a string) does not fit its tag '!!bool'"],
    ),
    "a number without end": (
        f"name: x\ntrainer: {{steps: {'9' * 40}}}\n",
        ["trainer.steps", "expected a number < 2147483648"],
    ),
    "a range without end": (
        f"name: x\nsearch: {{algorithm: random}}\nspace: {{learning_rate: {{uniform: [1, {'9' * 400}]}}}}\n",
        ["space.learning_rate: uniform ends must be finite numbers"],
    ),
    "an evaluation at every one of a billion steps": (
        "name: x\ntrainer: {steps: 1000000000}\nevaluation: {at: {every: 1}}\n",
        ["evaluation.at: every 1 of 1,000,000,000 steps is 1,000,000,000 evaluations a trial; expected at most 10,000"],
    ),
    "unknown means at test time": (
        "name: x\nevaluation: {test_time: [votes=8]}\n",
        ["evaluation.test_time[0]: got 'votes=8'", "'@8'", "'r=8' (recurrences)"],
    ),
    "a task that no metric can be named for": (
        "name: x\nevaluation: {files: [{path: a.jsonl, role: math, task: my task}]}\n",
        ["evaluation.files[0].task: got 'my task' (a string); expected letters, digits, '_', '.' and '-' alone"],
    ),
    "a path with a control character": (
        'name: x\nmodels: {qwen: {path: "a\\0b"}}\n',
        ["models.qwen.path", "expected a path without control characters"],
    ),
    "a grid of grids": (
        f"name: x\nspace: {{steps: {{grid: {list(range(1, 999))}}}, max_grad_norm: {{grid: {list(range(1, 999))}}}}}\n",
        ["space: 996,004 trials are more than 100,000"],
    ),
    "file address": ("name: x\nstorage: file:///tmp/x\n", ["storage: got a file:// address"]),
    "path upwards": ("name: x\nstorage: ../../etc\n", ["storage: got '../../etc'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_place_and_what_would_do(case: str):
    text, expected = BAD[case]
    with pytest.raises(InputError) as e:
        loads(text)
    for part in expected:
        assert part in str(e.value), str(e.value)


def test_all_faults_of_a_file_come_at_once_in_the_order_of_its_lines():
    text = (
        "name: X\nseed: -1\nspace:\n  data: {grid: [nope]}\n  learning_rate: {grid: [-1]}\n"
        "trainer: {lrr: 3, max_grad_norm: -1}\nsearch: {trials: 4}\n"
    )
    with pytest.raises(SpecError) as e:
        loads(text)
    lines = [int(f.where.split(":")[1].split()[0]) for f in e.value.faults]
    assert lines == sorted(lines)
    assert {1, 2, 4, 5, 6, 7} == set(lines)


def test_bytes_that_are_no_text_are_named_by_line_and_offset(tmp_path: Path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: x\n# caf\xe9\n")
    with pytest.raises(InputError, match=r"latin.yaml:2: byte 13 is not UTF-8"):
        load(path)


def test_a_bomb_of_aliases_and_a_huge_file_are_refused(tmp_path: Path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(InputError, match="aliases expanded"):
        loads(bomb)
    path = tmp_path / "huge.yaml"
    path.write_text("#" * 1_000_001)
    with pytest.raises(InputError, match="at most 1,000,000"):
        load(path)


def test_deep_nesting_is_refused_and_not_a_crash():
    with pytest.raises(InputError, match=r"nested too deeply|not valid YAML"):
        loads("a: " + "[" * 5000 + "]" * 5000)


def test_numbers_and_words_follow_yaml_1_2():
    sweep = loads(
        "name: on\ntrainer: {learning_rate: 1e-4, warmup_steps: 10}\nspace: {lr_scheduler_type: {grid: [cosine]}}\n"
    )
    assert sweep.name == "on"
    assert sweep.trainer.learning_rate == 1e-4


def test_a_bad_file_given_to_the_command_exits_2_and_never_imports_ray(tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\ntrainer: {learning_rate: -1}\n")
    code = (
        "import sys, cluster.cli.main as c\n"
        f"sys.argv = ['dipsweep', 'run', {str(path)!r}]\n"
        "try: c.main()\n"
        "except SystemExit as e: print(e.code, 'ray' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "2 False False", out.stderr
    assert "bad.yaml:2 trainer.learning_rate: got -1" in out.stderr
