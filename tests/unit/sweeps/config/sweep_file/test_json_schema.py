"""The JSON Schema that editors use agrees with what the sweep file's reader says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from sweeps import Sweep, choice, grid, loguniform, randint, uniform, zipped
from sweeps.config.blocks import known_axes
from sweeps.config.sweep_file.json_schema import DRAFT, sweep_schema
from sweeps.config.sweep_file.reference import with_tables
from sweeps.config.sweep_file.yaml import loads
from sweeps.errors import InputError

REPO = Path(__file__).parents[5]
GOOD = {path.name: path.read_text() for path in sorted((REPO / "examples").glob("*.yaml"))} | {
    "smallest": "name: x\n",
    "elastic": "name: x\nmodels: {tiny-s: {workers: [1, 4]}}\n",
    "own files": "name: x\nmodels: {ours: {path: s3://b/m}}\ntiers: {d: {path: a.jsonl, columns: {messages: m}}}\n",
    "every n": "name: x\nevaluation: {at: {every: 50}, test_time: ['@8', 'cap=64']}\n",
    "sampled": "name: x\nspace: {learning_rate: {loguniform: [1.0e-5, 1.0e-3]}}\nsearch: {algorithm: random, trials: 4}\n",
    "paired": "name: x\nspace:\n  sizes: {zip: {model: [tiny-s, tiny-m], learning_rate: [3.0e-3, 1.0e-3]}}\n",
    "conditional": "name: x\nspace:\n  lr_scheduler_type: {grid: [wsd, cosine]}\n"
    "  decay: {grid: [0.1, 0.2], when: {lr_scheduler_type: wsd}}\n",
    "limits": "name: x\nlimits: {usd: 10, usd_per_gpu_hour: 2.5}\n",
    "constraint": "name: x\nconstraints: [{metric: safety/refusal, relative_to_base: -0.1}]\n",
    "no clipping": "name: x\ntrainer: {max_grad_norm: 0}\n",
}
BAD = {
    "no name": "seed: 1\n",
    "bad name": "name: My Sweep\n",
    "typo at the top": "name: x\nspcae: {}\n",
    "a name of the past": "name: x\ntrainer: {lr: 1.0e-4}\n",
    "negative rate": "name: x\ntrainer: {learning_rate: -1.0e-4}\n",
    "no decay at all": "name: x\ntrainer: {decay: 0.0}\n",
    "a step of one token": "name: x\ntrainer: {batch_tokens: 1}\n",
    "words for a number": "name: x\ntrainer: {steps: many}\n",
    "unknown schedule": "name: x\ntrainer: {lr_scheduler_type: cosin}\n",
    "unknown axis": "name: x\nspace: {optimizer: {grid: [adam]}}\n",
    "axis without kind": "name: x\nspace: {steps: [10, 20]}\n",
    "two kinds": "name: x\nspace: {learning_rate: {grid: [1.0e-3], choice: [1.0e-4]}}\n",
    "empty grid": "name: x\nspace: {steps: {grid: []}}\n",
    "a value out of bounds": "name: x\nspace: {steps: {grid: [0, 10]}}\n",
    "range for whole numbers": "name: x\nspace: {steps: {uniform: [10, 20]}}\n",
    "range for a name": "name: x\nspace: {model: {uniform: [0, 1]}}\n",
    "a zip of one": "name: x\nspace: {s: {zip: {model: [tiny-s]}}}\n",
    "unknown metric role": "name: x\nobjective: {metric: accuracy}\n",
    "constraint without bound": "name: x\nconstraints: [{metric: safety/refusal}]\n",
    "constraint with two": "name: x\nconstraints: [{metric: safety/refusal, at_least: 0.1, at_most: 0.2}]\n",
    "evaluation at nonsense": "name: x\nevaluation: {at: often}\n",
    "unknown test-time setting": "name: x\nevaluation: {test_time: [votes=8]}\n",
    "money without price": "name: x\nlimits: {usd: 10}\n",
    "more at least than a pair": "name: x\nmodels: {tiny-s: {workers: [1, 2, 3]}}\n",
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = sweep_schema()
    assert schema["$schema"] == DRAFT
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(json.loads(json.dumps(schema, allow_nan=False)))


@pytest.mark.parametrize("case", GOOD)
def test_good_files_hold_for_both(validator, case: str):
    loads(GOOD[case])
    assert [e.message for e in validator.iter_errors(yaml.safe_load(GOOD[case]))] == []


@pytest.mark.parametrize("case", BAD)
def test_typical_faults_are_seen_by_both(validator, case: str):
    with pytest.raises(InputError):
        loads(BAD[case])
    assert list(validator.iter_errors(yaml.safe_load(BAD[case])))


def test_what_dipsweep_writes_itself_holds(validator):
    space = {
        "sizes": zipped(model=["tiny-s", "tiny-m"], steps=[10, 20]),
        "learning_rate": loguniform(1e-5, 1e-3),
        "batch_tokens": randint(512, 2048),
        "lr_scheduler_type": choice("wsd", "cosine"),
        "decay": uniform(0.1, 0.3, when={"lr_scheduler_type": "wsd"}),
        "replay": grid(0.0, 0.1),
    }
    sweep = Sweep(name="x", space=space, search={"algorithm": "random", "trials_per_cell": 2})
    assert [e.message for e in validator.iter_errors(sweep.to_json())] == []


def test_every_setting_and_every_key_has_a_text(validator):
    schema = validator.schema
    assert set(schema["properties"]["space"]["properties"]) == set(known_axes())
    blocks = [schema, *(b for b in schema["$defs"].values() if b.get("title", "").endswith("Block"))]
    bare = [(b["title"], name) for b in blocks for name, f in b["properties"].items() if not f.get("description")]
    assert len(blocks) >= 11
    assert bare == []


def test_the_page_of_the_sweep_file_is_current():
    page = (REPO / "docs" / "sweep-file.md").read_text(encoding="utf-8")
    assert page == with_tables(page), "run python -m sweeps.config.sweep_file.reference docs/sweep-file.md"


def test_the_command_prints_the_schema():
    from typer.testing import CliRunner

    from cluster.cli.main import app

    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(re.sub(r"\x1b\[[0-9;]*m", "", result.output)) == sweep_schema()
