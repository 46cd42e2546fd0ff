"""`dipsweep note` and `dipsweep tag`: what people write on a sweep and its trials, also while it runs and after its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from cluster.cli.cluster_commands import AsJson, Cluster, Storage, SweepId, TokenFile, home_of
from sweeps.journal.rows import NoteRow

app = typer.Typer()
Trial = Annotated[str, typer.Option(metavar="T", help="A trial's id; default is the sweep itself.")]


@app.command()
def note(
    sweep_id: SweepId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to write; without it, all notes are printed.")] = "",
    trial: Trial = "", storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write a note on a sweep, or on one of its trials, or print all of them."""
    from cluster.cli.render import print_json
    from cluster.jobs.requests import asker, check_trial
    from sweeps.journal.notes import read_notes, write_note
    from sweeps.output import printable

    home = home_of(sweep_id, storage, address, token_file)
    check_trial(home, trial)
    if text:
        write_note(home, who=asker(), trial=trial, text=text)
        print(f"{trial or home.name}: noted")
        return
    found = [n for n in read_notes(home) if not trial or n.trial == trial]
    if as_json:
        print_json(
            [{"trial": n.trial, "text": n.text, "tags": dict(n.tags), "who": n.who, "when": n.when} for n in found]
        )
    else:
        print(printable("\n".join(map(_line, found))) or f"{trial or home.name}: no notes")


@app.command()
def tag(
    sweep_id: SweepId,
    tags: Annotated[list[str] | None, typer.Argument(metavar="TAG...", help="Tags to set; none: print those there are.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag to take away; may be given again.")] = None,
    trial: Trial = "", storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """Tag a sweep, or one of its trials; `dipsweep list --tag` and the pages find it by that."""
    from cluster.jobs.requests import asker, check_trial
    from sweeps.errors import InputError
    from sweeps.journal.notes import read_notes, tags_of, write_note

    home = home_of(sweep_id, storage, address, token_file)
    check_trial(home, trial)
    wanted = {**dict.fromkeys(tags or (), True), **dict.fromkeys(remove or (), False)}
    if both := set(tags or ()) & set(remove or ()):
        raise InputError(f"tag: got {', '.join(sorted(both))} to set and to remove; expected one of them")
    there = tags_of(read_notes(home), trial)
    if missing := [name for name in remove or () if name not in there]:
        raise InputError(
            f"tag: {trial or home.name} has no tag {', '.join(missing)}; it has {', '.join(there) or 'none'}"
        )
    if wanted:
        write_note(home, who=asker(), trial=trial, tags=wanted)
        there = tags_of(read_notes(home), trial)
    print(f"{trial or home.name}: {' '.join(there) or 'no tags'}")


def _line(note: NoteRow) -> str:
    """One note; further lines of its text are indented, so that none looks like a note of its own."""
    by = [part for part in (note.when, note.who) if part]  # neither is known of a note that cannot be read
    return "  ".join([*by, f"{note.trial or 'the sweep'}: {' '.join(_parts(note))}"]).replace("\n", "\n    ")


def _parts(note: NoteRow) -> Sequence[str]:
    return [
        *([note.text] if note.text else []),
        *(f"{'+' if there else '-'}{name}" for name, there in note.tags.items()),
    ]
