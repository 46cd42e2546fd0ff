"""`dipsweep replies`: what a checkpoint answered, and what the scorers made of it."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.cluster_commands import AsJson, Storage, SweepId
from cluster.locate import find

app = typer.Typer()
Trial = Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id, or base-MODEL for a base model.")]
Step = Annotated[int | None, typer.Option(min=0, help="One checkpoint alone; default is all that kept any.")]
Role = Annotated[str | None, typer.Option(help="math, transfer, general or safety.")]
Task = Annotated[str | None, typer.Option(help="One task of the suite.")]
Wrong = Annotated[bool, typer.Option("--wrong", help="Only replies that some scorer gave less than 1.")]


@app.command()
def replies(
    sweep_id: SweepId, trial: Trial, step: Step = None, role: Role = None, task: Task = None, wrong: Wrong = False,
    storage: Storage = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show replies of a trial's checkpoints: the prompt, the thought, the answer, and the scorers' verdicts."""
    from cluster.cli.render import print_json
    from sweeps.replies import read_replies, to_text

    found = read_replies(find(sweep_id, storage), trial, step, role=role, task=task)
    if wrong:
        found = [reply for reply in found if any(value < 1 for value in reply.outcomes.values())]
    if as_json:
        print_json([reply.to_json() for reply in found])
        return
    for reply in found:
        print(to_text(reply) + "\n")
    if not found:
        print("no reply fits: every one that is kept got 1 from its scorers")
