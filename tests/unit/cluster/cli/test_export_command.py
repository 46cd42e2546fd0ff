"""`dipsweep export --for`: what is refused leaves nothing behind, and what was left out is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.cli.results_commands import export_for_rl
from cluster.preflight.inputs import check_inputs
from cluster.run_sweep import write_spec
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.errors import InputError
from sweeps.journal.writer import SweepJournal
from sweeps.stopping import NeverStop
from sweeps.storage.factory import open_store
from tests.support.models.tiny_sft import Notes, tier
from tests.support.models.tiny_sft import trial as sft_trial
from trainers.loop import train
from trainers.model.files.builtin import builtin_folder

ROWS = [
    [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "</think>2"}],
    [{"role": "user", "content": "1+\u20ac="}, {"role": "assistant", "content": "</think>3"}],
    [{"role": "user", "content": "1+" * 300}, {"role": "assistant", "content": "</think>4"}],
    [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": "<think>and"}],
]


def begun(folder: Path) -> tuple[Path, Sweep, str, Saved]:
    """A sweep on rows of a file: its folder, itself, its trial, and a checkpoint."""
    notes, file = Notes(), folder / "ours.jsonl"
    train(
        sft_trial(builtin_folder("tiny-xs"), (2,), batch_tokens=256),
        notes,
        folder=folder / "run",
        resume=None,
        data=tier(),
    )
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in ROWS))
    sweep = Sweep(
        name="rl",
        space={"data": grid("ours")},
        tiers={"ours": {"path": str(file)}},
        trainer={"steps": 2, "learning_rate": 1e-3, "max_length": 256},
    )
    home = folder / "runs" / sweep.id
    write_spec(sweep, home)
    with SweepJournal(home) as journal:
        (spec,) = SweepController(Plan(sweep), journal, NeverStop(sweep.goal)).next_trials(9)
    return home, sweep, spec.id, Saved(2, notes.checkpoints[-1].path)


def test_rows_that_are_not_those_of_sft_are_refused(tmp_path: Path):
    home, sweep, trial, checkpoint = begun(tmp_path)
    file, target = tmp_path / "ours.jsonl", tmp_path / "rl"
    check_inputs(sweep, open_store(home))
    before = file.read_text()
    file.write_text(before.replace("1+1=", "1+2="))
    with pytest.raises(
        InputError, match=r"tiers\.ours \(.*\) is not what this sweep began with \(got .*\): restore it"
    ):
        export_for_rl(open_store(home), trial, checkpoint, target, "trl", None)
    assert not target.exists()
    file.write_text(before)
    assert "digest" not in export_for_rl(open_store(home), trial, checkpoint, target, "trl", None)


def test_a_refusal_after_files_were_written_leaves_the_folder_free_for_the_next_try(tmp_path: Path):
    home, _, trial, checkpoint = begun(tmp_path)
    target = tmp_path / "exports" / "rl"
    with pytest.raises(InputError, match="the tokenizer cannot write a prompt"):
        export_for_rl(open_store(home), trial, checkpoint, target, "open-rlhf", None)
    assert list((tmp_path / "exports").iterdir()) == []
    said = export_for_rl(open_store(home), trial, checkpoint, target, "trl", None).splitlines()
    assert said == [
        f"{target}/grpo.yaml: trl, 2 prompts of ours, model in {target}/model",
        "left out of the conversations: 1 whose last reply has no answer",
        "left out of the prompts: 1 behind which max_length 256 had no room for a reply in SFT either",
        f"tiers.ours ({tmp_path}/ours.jsonl): no digest is on record, so SFT may have learnt from other rows",
    ]
    assert sorted(each.name for each in target.iterdir()) == ["data", "grpo.yaml", "model", "reward.py"]
