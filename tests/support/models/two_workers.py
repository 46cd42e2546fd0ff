"""What each of several training processes does; started by test_workers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist

from sweeps.config.trial import Saved
from tests.support.models.tiny_sft import Notes, tier, trial
from trainers.loop import train


def main(plan_file: str, rank: int) -> None:
    """Runs the trainings of a plan, one after another, as one worker of `world`; rank 0 writes what it was told."""
    torch.set_num_threads(1)
    plan = json.loads(Path(plan_file).read_text())
    world = plan["world"]
    dist.init_process_group("gloo", init_method=f"file://{plan['meeting']}", rank=rank, world_size=world)
    told = {}
    for run in plan["runs"]:
        notes = Notes(stop_after=run.get("stop_after"))
        resume = Saved(**run["resume"]) if run.get("resume") else None
        spec = trial(Path(plan["base"]), tuple(run["snapshots"]), **run.get("settings", {}))
        folder = Path(run["folder"])
        train(spec, notes, folder=folder, resume=resume, rank=rank, world=world, data=tier())
        told[run["folder"]] = {
            "reports": notes.trained(),
            "saved": [(s.step, s.path, s.digest) for s in notes.checkpoints],
        }
    if rank == 0:
        Path(plan["answer"]).write_text(json.dumps(told))
    dist.destroy_process_group()
