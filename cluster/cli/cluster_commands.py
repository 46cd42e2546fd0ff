"""The commands that meet a cluster or a running sweep: submit, steer, watch. `cluster.cli.main` puts them beside the others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sweeps.errors import DipsweepError, InputError, Interrupted

if TYPE_CHECKING:
    from cluster.jobs.client import Jobs
    from sweeps.storage.base import Store

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (YAML).")]
SweepId = Annotated[str, typer.Argument(metavar="ID", help="A sweep: its id, name, folder or address.")]
Storage = Annotated[
    str | None, typer.Option(help="Root of all sweeps, a folder or s3://bucket/prefix; default is ./runs.")
]
FileStorage = Annotated[
    str | None,
    typer.Option(help="Root of all sweeps, a folder or s3://bucket/prefix; default is the file's `storage`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Cluster = Annotated[str | None, typer.Option("--address", help="A Ray cluster's dashboard, http://HOST:8265.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The cluster's token; default is the first of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.dipsweep/token and "
        "~/.ray/auth_token.",
    ),
]
Trial = Annotated[str, typer.Option(metavar="T", help="A trial's id.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting; may be given again.")]
Python = Annotated[
    str | None,
    typer.Option(help="The Python of the cluster's nodes; default is what the sweep last ran with, then python."),
]
Installed = Annotated[
    bool | None,
    typer.Option(
        "--installed/--sent", help="Use the dipsweep installed on the nodes, or send this one; default as before."
    ),
]
Places = Annotated[
    list[str] | None,
    typer.Option(
        "--driver-on", metavar="NAME=VALUE", help="Label of nodes that may hold the driver, such as market=on-demand."
    ),
]


@app.command()
def submit(
    sweep: SweepFile,
    address: Annotated[str, typer.Option(help="The Ray cluster's dashboard, http://HOST:8265.")],
    storage: FileStorage = None,
    token_file: TokenFile = None, driver_on: Places = None, installed: Installed = None, python: Python = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print its log, and end with its exit code.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run a sweep on a Ray cluster, as a job that outlives this terminal; again: the same sweep."""
    from sweeps.config.sweep_file.yaml import load_with_line_errors

    with load_with_line_errors(sweep) as read:
        send(
            read,
            address,
            storage,
            token_file,
            driver_on,
            installed=installed,
            python=python,
            follow=follow,
            as_json=as_json,
        )


def send(
    sweep: Any,
    address: str,
    storage: str | None,
    token_file: Path | None,
    driver_on: list[str] | None = None,
    *,
    again: bool = False,
    installed: bool | None = None,
    python: str | None = None,
    follow: bool = False,
    as_json: bool = False,
) -> None:
    """Submits a sweep and prints the outcome; `submit` and `resume --address` do this.

    Raises:
        typer.Exit: with `follow`, the exit code of the sweep.
    """
    from cluster.cli.job_text import submission_message, wait
    from cluster.cli.render import print_json
    from cluster.jobs.client import Jobs
    from cluster.jobs.submit import submit as submit_sweep
    from cluster.launch import describe_size

    done = submit_sweep(
        sweep,
        address=address,
        storage=storage,
        token_file=token_file,
        again=again,
        installed=installed,
        python=python,
        driver_labels=labels(driver_on),
    )
    print_json(done.to_json()) if as_json else print(submission_message(done, describe_size(sweep)), flush=True)
    if follow and done.became != "finished":
        jobs = Jobs.at(address, token_file)
        try:
            _print_log(jobs, done.job)
            code = wait(jobs, done.job)
        except KeyboardInterrupt:
            raise Interrupted(
                f"no longer followed; {done.sweep} goes on: dipsweep stop {done.sweep} --address {done.address}"
            ) from None
        raise typer.Exit(code)


def _print_log(jobs: Jobs, job: str) -> None:
    """Prints a job's log until it ends. That it cannot be followed is said and no more: what counts is how the job ends."""
    try:
        for chunk in jobs.follow(job):
            print(chunk, end="", flush=True)
    except DipsweepError as e:
        print(f"{e}\nwaiting for its end without its log", file=sys.stderr, flush=True)


def labels(pairs: list[str] | None) -> dict[str, str]:
    """Returns `--driver-on name=value` options as a label selector.

    Raises:
        InputError: one is not of that form.
    """
    out = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise InputError(
                f"--driver-on: got '{pair}'; expected NAME=VALUE, a label that the nodes were started with"
            )
        out[name] = value
    return out


@app.command()
def token(
    path: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where; default is ~/.dipsweep/token.")] = None,
) -> None:
    """Make a cluster's token in a file of your own (0600), and say how to start Ray with it."""
    from cluster.connect.tokens import default_path, make_token

    made = make_token(path or default_path())
    print(f"{made}\nOn every node, and here, with this file in a place of its own there (mode 0600):")
    print(
        f"  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={made}\n  ray start --head …   or   ray start --address=HEAD:6379 …"
    )


@app.command()
def stop(
    sweep_id: SweepId,
    trial: Annotated[str, typer.Option(metavar="T", help="One trial's id; default is the whole sweep.")] = "",
    storage: Storage = None,
    address: Cluster = None,
    token_file: TokenFile = None,
) -> None:
    """Stop a sweep (its trials save; it can be resumed), or one trial for good."""
    from cluster.cli.job_text import stop as stop_job

    if address is not None and not trial:
        print(stop_job(jobs_at(address, token_file), sweep_id))
    else:
        _ask(sweep_id, storage, address, token_file, "stop", trial)


@app.command()
def pause(sweep_id: SweepId, storage: Storage = None, address: Cluster = None, token_file: TokenFile = None) -> None:
    """Let trials save and give their machines back; the driver waits until `resume`."""
    _ask(sweep_id, storage, address, token_file, "pause")


@app.command()
def extend(
    sweep_id: SweepId, trial: Trial,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="The longer budget, in optimizer steps.")],
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """Give a trial a longer budget: it goes on from its checkpoint, as a new trial with that parent."""
    _ask(sweep_id, storage, address, token_file, "extend", trial, steps=steps)


@app.command()
def clone(
    sweep_id: SweepId, trial: Trial, settings: Set = None,
    warm: Annotated[bool, typer.Option("--warm", help="Start from the trial's last checkpoint instead of the base.")] = False,
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """Start a copy of a trial with other settings: `--set learning_rate=1e-4`."""
    _ask(sweep_id, storage, address, token_file, "clone", trial, set=_settings(settings, "clone"), warm=warm)


@app.command()
def add(
    sweep_id: SweepId,
    trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="That many more, as the search proposes them.")] = None,
    settings: Set = None, storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """Add trials to a sweep: `--trials 4`, or one with `--set` for every axis."""
    if (trials is None) == (not settings):
        raise InputError("add: give either --trials N or --set NAME=VALUE for every axis")
    args = {"trials": trials} if trials else {"set": _settings(settings, "add")}
    _ask(sweep_id, storage, address, token_file, "add", **args)


@app.command()
def retry(
    sweep_id: SweepId,
    trial: Annotated[str, typer.Option(metavar="T", help="A trial's id; by default all that failed.")] = "",
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """Try a failed trial again, or all of them: each goes on from its last checkpoint, with all its retries. One that
    ended with its trunk before it began can be named too: it begins at the trunk's nearest checkpoint."""
    _ask(sweep_id, storage, address, token_file, "retry", trial)


@app.command()
def limits(
    sweep_id: SweepId,
    settings: Set = None,
    storage: Storage = None,
    address: Cluster = None,
    token_file: TokenFile = None,
) -> None:
    """Change what a sweep may cost: `--set gpu_hours=50`; null takes a limit away."""
    _ask(sweep_id, storage, address, token_file, "limits", set=_settings(settings, "limits"))


@app.command()
def gc(
    sweep_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A sweep: its id, name, folder or address.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this, only say what would go.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="This machine's cache of models, data and tokenised rows.")] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="With --cache: unused for so long; default is 30.")
    ] = None,
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """List, or with --apply remove, files of a sweep that nothing needs: unfinished uploads, checkpoints that no row names.

    With --cache instead of a sweep: what this machine downloaded and tokenised and has not used for long.
    """
    from sweeps.checkpoints.gc import collect

    if cache == (sweep_id is not None):
        got = "a sweep and --cache" if cache else "neither a sweep nor --cache"
        raise InputError(f"gc: got {got}; expected one of them")
    of_sweep = {"--storage": storage, "--address": address, "--token-file": token_file}
    given = of_sweep if cache else {"--older-than": older_than}
    if idle := [name for name, value in given.items() if value is not None]:
        raise InputError(
            f"gc: got {idle[0]} with {'--cache' if cache else 'a sweep'}, where it says nothing; leave it out"
        )
    if sweep_id is None:
        _collect_cache(UNUSED_DAYS if older_than is None else older_than, apply=apply)
        return
    home = home_of(sweep_id, storage, address, token_file)
    found = collect(home, apply=apply)
    for one in found:
        print(f"{one.what}  {one.size / 1e6:.1f} MB  {one.why}")
    done = "removed" if apply else "would go; --apply removes it"
    print(
        f"{home.name}: {len(found)} thing{'s' if len(found) != 1 else ''}, {sum(g.size for g in found) / 1e6:.1f} MB, {done}"
    )


UNUSED_DAYS: Final = 30.0


def _collect_cache(older_than_days: float, *, apply: bool) -> None:
    from trainers.data.sources.cache_gc import DAY_S, collect_cache
    from trainers.data.sources.download_cache import cache_folder

    found = collect_cache(older_than_days, apply=apply)
    gone = "removed" if apply else "would go"
    for copy in found:
        state = "in use" if copy.in_use else f"not used for {copy.unused_s / DAY_S:.0f} days"
        print(f"{copy.path}  {copy.size / 1e6:.1f} MB  {state}{f': {gone}' if copy.goes else ''}")
    goes = [copy for copy in found if copy.goes]
    way = "; --apply removes it" if goes and not apply else ""
    whole = f"{len(found)} cop{'ies' if len(found) != 1 else 'y'}, {sum(c.size for c in found) / 1e6:.1f} MB"
    print(f"{cache_folder()}: {whole}; {len(goes)}, {sum(c.size for c in goes) / 1e6:.1f} MB, {gone}{way}")


@app.command()
def watch(sweep_id: SweepId, storage: Storage = None, address: Cluster = None, token_file: TokenFile = None) -> None:
    """Follow a sweep live; a table on a terminal, a line per event elsewhere. Ctrl-C ends the watching, not the sweep."""
    from cluster.cli.watch import watch as watch_sweep

    home = home_of(sweep_id, storage, address, token_file)
    try:
        watch_sweep(home)
    except KeyboardInterrupt:
        print(f"no longer watched; {home.name} goes on")


@app.command()
def track(
    sweep_id: SweepId,
    to: Annotated[str, typer.Option(metavar="TRACKER", help="tensorboard:FOLDER, mlflow:URI or wandb:PROJECT.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the sweep ends.")] = False,
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
) -> None:  # fmt: skip
    """Copy a sweep's curves to TensorBoard, MLflow or Weights & Biases, a run per trial; also while it runs."""
    from cluster.cli.render import Follower
    from cluster.locate import definition
    from cluster.observe.trackers import track as feed_tracker
    from cluster.observe.trackers import tracker_for
    from sweeps.journal.writer import LogReader

    home = home_of(sweep_id, storage, address, token_file)
    over = Follower(home).take
    rows = feed_tracker(LogReader(home).rows, tracker_for(to, definition(home)), follow=follow, over=over)
    print(f"{home.name}: {rows} rows sent to {to}")


def _ask(
    name: str,
    storage: str | None,
    address: str | None,
    token_file: Path | None,
    action: Any,
    trial: str = "",
    **args: Any,
) -> None:
    from cluster.jobs.requests import NO_DRIVER_MESSAGE, send_request_and_wait
    from sweeps.journal.lease import driver_state
    from sweeps.journal.state import SweepState
    from sweeps.journal.writer import read_rows

    home = home_of(name, storage, address, token_file)
    if action in ("stop", "pause") and not trial:
        # Left in the storage it would end whatever a later driver starts.
        if SweepState(read_rows(home)).done:
            print(f"{home.name}: it has ended; nothing to {action}")
            return
        # A job of a cluster may be about to start.
        if address is None and not (driver := driver_state(home)).alive:
            print(f"{home.name}: {driver.message(home.name)}; nothing to {action}")
            return
    answer = send_request_and_wait(home, action, trial, **args) or NO_DRIVER_MESSAGE.format(sweep=home.name)
    print(f"{trial or home.name}: {answer}")


def _settings(pairs: list[str] | None, command: str) -> dict[str, Any]:
    from cluster.jobs.requests import settings_of

    if not pairs:
        raise InputError(f"{command}: give --set NAME=VALUE at least once")
    return settings_of(pairs)


def jobs_at(address: str, token_file: Path | None) -> Jobs:
    """Opens the Jobs API at an address; Ray is imported only here."""
    from cluster.jobs.client import Jobs

    return Jobs.at(address, token_file)


def home_of(name: str, storage: str | None, address: str | None, token_file: Path | None) -> Store:
    """Returns where a sweep is kept, asking the cluster when an address is given.

    Raises:
        InputError: there is no such sweep, or its storage cannot be reached from this machine.
    """
    from cluster.locate import find

    if address is None:
        return find(name, storage)
    job = jobs_at(address, token_file).find(name)
    root = storage or job.metadata["storage"]
    if "://" not in root and not Path(root).is_dir():
        raise InputError(
            f"{job.sweep} is kept in {root} on the cluster, which is no folder of this machine; run this where it is, "
            "or use logs, status, stop and resume with --address, which need no storage"
        )
    return find(job.sweep, root)
