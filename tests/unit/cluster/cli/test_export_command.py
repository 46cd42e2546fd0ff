"""`dipsweep export --for`: what is refused leaves nothing behind, and what was left out is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.cli.results_commands import export_for_rl
from cluster.run_sweep import write_spec
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.errors import InputError
from sweeps.journal.writer import SweepJournal
from sweeps.stopping import NeverStop
from sweeps.storage.factory import open_store
from tests.support.models.tiny_sft import Notes, tier, trial
from trainers.loop import train
from trainers.model.files.builtin import builtin_folder

ROWS = [
    [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "</think>2"}],
    [{"role": "user", "content": "1+\u20ac="}, {"role": "assistant", "content": "</think>3"}],
    [{"role": "user", "content": "1+" * 300}, {"role": "assistant", "content": "</think>4"}],
    [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": "<think>and"}],
]


def test_a_refusal_after_files_were_written_leaves_the_folder_free_for_the_next_try(tmp_path: Path):
    notes, file = Notes(), tmp_path / "ours.jsonl"
    train(
        trial(builtin_folder("tiny-xs"), (2,), batch_tokens=256),
        notes,
        folder=tmp_path / "run",
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
    home = tmp_path / "runs" / sweep.id
    write_spec(sweep, home)
    with SweepJournal(home) as journal:
        (spec,) = SweepController(Plan(sweep), journal, NeverStop(sweep.goal)).next_trials(9)
    checkpoint, target = Saved(2, notes.checkpoints[-1].path), tmp_path / "exports" / "rl"
    with pytest.raises(InputError, match="the tokenizer cannot write a prompt"):
        export_for_rl(open_store(home), spec.id, checkpoint, target, "open-rlhf", None)
    assert list((tmp_path / "exports").iterdir()) == []
    said = export_for_rl(open_store(home), spec.id, checkpoint, target, "trl", None).splitlines()
    assert said == [
        f"{target}/grpo.yaml: trl, 2 prompts of ours, model in {target}/model",
        "left out of the conversations: 1 whose last reply has no answer",
        "left out of the prompts: 1 behind which max_length 256 had no room for a reply in SFT either",
    ]
    assert sorted(each.name for each in target.iterdir()) == ["data", "grpo.yaml", "model", "reward.py"]
