"""The `dipsweep` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import cluster_commands as commands
from cluster.cli import fetch, note_commands, preview, replies, results_commands
from cluster.cli.cluster_commands import (
    AsJson,
    Cluster,
    FileStorage,
    Installed,
    Places,
    Python,
    Storage,
    SweepFile,
    SweepId,
    TokenFile,
)
from cluster.cli.grouped_help import WIDTH, GroupedCommands
from cluster.cli.output_files import check_output
from cluster.launch import main_of, run_with_output
from cluster.locate import DEFAULT, definition, find
from sweeps.errors import DipsweepError, InputError, Interrupted, LimitError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=GroupedCommands,
    context_settings={"max_content_width": WIDTH},
    help="Sweeps of reasoning SFT on Ray that give a dip time to recover.",
)

NOT_TO_BE_TRIED_AGAIN = (InputError.exit_code, LimitError.exit_code, Interrupted.exit_code)
InProcess = Annotated[bool, typer.Option("--in-process", help="Run in this process, one trial at a time, without Ray.")]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs of the Ray started here; default is all of this machine.")]
Dashboard = Annotated[bool, typer.Option(help="Start Ray's dashboard on loopback too.")]
AsJob = Annotated[
    bool,
    typer.Option(
        "--as-job",
        help="For a scheduler that starts anew whatever fails: end with 0 where that would not help (codes 2, 3 and 130).",
    ),
]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster, such as auto or 10.0.0.1:6379.")]
AddressOrUrl = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="A running Ray cluster: auto or 10.0.0.1:6379 drives from here, http://HOST:8265 as a job there.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("dipsweep"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of `dipsweep` itself."""


@app.command()
def validate(
    sweep: SweepFile,
    storage: Annotated[
        bool, typer.Option("--storage", help="Ask an S3 storage too: write, read back, delete.")
    ] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Check it for a run in one process, without Ray.")
    ] = False,
) -> None:
    """Check a sweep file and list everything that is wrong with it; starts nothing."""
    from cluster.preflight.checks import preflight
    from sweeps.config.checks.unused import in_process_notes
    from sweeps.config.plan import Plan
    from sweeps.config.sweep_file.yaml import load_with_line_errors

    with load_with_line_errors(sweep) as read:
        plan = Plan(read)
        plan.check_limits()
        checked = preflight(read, reach=storage, in_process=in_process)
    for line in (*(in_process_notes(read) if in_process else ()), *checked.notes):
        print(line)
    print(f"{sweep}: fine. {plan.sweep_id}: {plan.total} trial{'s' if plan.total != 1 else ''}")


@app.command()
def plan(
    sweep: SweepFile,
    storage: Annotated[
        str | None,
        typer.Option(help="Root of earlier sweeps, whose times the plan takes; default is the file's `storage`."),
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(help="Devices of one machine: says how long the sweep takes on it.")
    ] = None,
    nodes: Annotated[str | None, typer.Option(help="Machines and devices of each, such as 2x8.")] = None,
    address: Cluster = None,
    token_file: TokenFile = None,
    python: Annotated[str, typer.Option(help="With --address: interpreter of dipsweep on its nodes.")] = "python",
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Which device: H100, H200, A100 or L40S; by default the cluster's own with --address, else H100."
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train and score some steps of each model here first.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with a picture of when each trial runs; needs --gpus, --nodes or --address."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a sweep will run, what it will cost and how long it takes, without starting it."""
    from dataclasses import asdict, replace

    from cluster.cli.plan_view import (
        cost_text,
        label_lines,
        label_tokens,
        limits_kept,
        longest_lines,
        machines_of,
        memory_lines,
        missing_lines,
        parse_nodes,
        row_lines,
        saving_for,
        step_lines,
        storage_lines,
    )
    from cluster.cli.probe import probe as probe_here
    from cluster.cli.render import plan_json, plan_text, print_json
    from cluster.jobs.list_nodes import cluster_nodes
    from cluster.preflight.cost import (
        device_memory,
        journals_of,
        missing_inputs,
        speeds_for,
        step_speeds,
        storage_use,
    )
    from cluster.preflight.plugins import plugins_used
    from sweeps.config.plan import Plan
    from sweeps.config.sweep_file.yaml import load_with_line_errors
    from sweeps.planning.estimate import estimate, planned_timeline
    from sweeps.planning.gantt import gantt_page
    from sweeps.planning.speeds import Key, Speed

    if html is not None and not (gpus or nodes or address):
        raise InputError("plan: got --html without machines; expected --gpus 8, --nodes 2x8 or --address beside it")
    if html is not None:
        check_output(html)
    with load_with_line_errors(sweep) as read:
        unfolded, missing = Plan(read), missing_inputs(read)
        unfolded.check_limits()
    if address is None:
        machines, cpus, gpu, named = parse_nodes(gpus, nodes), list[float](), gpu or "H100", ""
    elif gpus is not None or nodes is not None:
        raise InputError("plan: got --address and machines of its own; expected one of --gpus, --nodes and --address")
    else:
        machines, cpus, gpu, named = machines_of(unfolded, cluster_nodes(address, token_file, python), gpu)
    journals = list(journals_of(storage or unfolded.sweep.storage))
    probed, device = probe_here(unfolded) if probe else None, gpu

    def speeds_of(plan: Plan) -> dict[Key, Speed]:
        return speeds_for(plan, gpu=device, journals=journals, probed=probed)

    speeds = speeds_of(unfolded)
    saving = saving_for(unfolded, speeds, journals=journals, nodes=machines)
    expected = replace(estimate(unfolded, speeds, machines, cpus=cpus), saving=saving)
    use = storage_use(unfolded)
    steps, memory = step_speeds(unfolded, speeds, gpu), device_memory(unfolded, gpu)
    labels = label_tokens(unfolded, [*journals, probed.rows if probed else ()])
    lines = [
        *([named] if named else []),
        *row_lines(unfolded),
        *label_lines(labels),
        *step_lines(steps),
        *memory_lines(memory, gpu),
        *longest_lines(probed.longest if probed else ()),
        *storage_lines(use, expected.wall),
        *missing_lines(missing),
    ]
    text = f"{plan_text(unfolded)}\n\n{cost_text(expected, lines)}"
    if html is not None:
        html.write_text(
            gantt_page(unfolded, planned_timeline(unfolded, speeds, machines, cpus), machines, text), encoding="utf-8"
        )
        print(f"{html}: when each trial runs", file=sys.stderr)
    if as_json:
        print_json(
            {
                **plan_json(unfolded),
                "cost": expected.to_json(),
                "label_tokens": labels.labels,
                "step_speeds": [asdict(one) for one in steps],
                "memory": [one.to_json() for one in memory],
                "longest_rows": [one._asdict() for one in (probed.longest if probed else ())],
                "storage": asdict(use) if use is not None else None,
                "missing": [str(fault) for fault in missing],
                "over_limits": expected.over_limits(unfolded),
            }
        )
    else:
        for line in plugins_used(unfolded.sweep):
            print(line)
        print(text)
    limits_kept(expected, unfolded, lambda other: estimate(other, speeds_of(other), machines, cpus=cpus))


@app.command()
def run(
    sweep: SweepFile, storage: FileStorage = None, in_process: InProcess = False, cpus: Cpus = None,
    dashboard: Dashboard = False, address: Address = None, as_job: AsJob = False,
) -> None:  # fmt: skip
    """Run a sweep to its end; the same command again resumes it."""
    from sweeps.config.sweep_file.yaml import load_with_line_errors

    if address is not None and address.startswith(("http://", "https://")):
        raise InputError(
            f"run: {address} takes jobs: dipsweep submit {sweep} --address {address}; run drives from here"
        )
    try:
        with load_with_line_errors(sweep) as read:
            run_with_output(read, storage, in_process, cpus, dashboard, address)
    except DipsweepError as e:
        if not as_job or e.exit_code not in NOT_TO_BE_TRIED_AGAIN:
            raise
        print(f"{e}\n(ends with 0 and not with {e.exit_code}, as --as-job asks)", file=sys.stderr)


@app.command()
def resume(
    sweep_id: SweepId, storage: Storage = None, in_process: InProcess = False, cpus: Cpus = None,
    dashboard: Dashboard = False, address: AddressOrUrl = None, token_file: TokenFile = None, driver_on: Places = None,
    installed: Installed = None, python: Python = None,
) -> None:  # fmt: skip
    """Go on with a sweep that was paused, interrupted, killed or ran into a limit."""
    from cluster.jobs.resume import locate_sweep, request_resume, request_resume_on_cluster

    if address is not None and address.startswith(("http://", "https://")):
        sweep, root = locate_sweep(sweep_id, storage, address, token_file)
        if said := request_resume_on_cluster(sweep.id, root):
            print(f"{sweep.id}: {said}")
            return
        commands.send(sweep, address, root, token_file, driver_on, again=True, installed=installed, python=python)
        return
    home = find(sweep_id, storage)
    if said := request_resume(home):
        print(f"{home.name}: {said}")
        return
    sweep = definition(home, to_run=True)
    if sweep.id != home.name:
        raise InputError(
            f"{home} holds the definition of {sweep.id}: it was renamed, or written by another version of dipsweep; "
            "give it back its name, or run the sweep file anew"
        )
    run_with_output(sweep, home.root.rpartition("/")[0], in_process, cpus, dashboard, address)


@app.command()
def cost(
    sweep_id: Annotated[
        str,
        typer.Argument(
            metavar="[ID]", help="A sweep: its id, name, folder or address; without it, all sweeps of a storage."
        ),
    ] = "",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Say where compute went.

    Of one sweep, trial by trial: training, scoring, work done twice, and what stopping and sharing saved. Without an id, of a
    whole storage: shares by user and by sweep.
    """
    from cluster.cli.render import print_json
    from sweeps.journal.writer import read_rows
    from sweeps.output import printable
    from sweeps.report import summarize
    from sweeps.report.analysis.costs.ledger import ledger, ledger_text
    from sweeps.report.analysis.costs.storage import costs_of_storage

    if not sweep_id:
        used = costs_of_storage(storage or DEFAULT)
        print_json(used.to_json()) if as_json else print(printable(used))
        return
    home = find(sweep_id, storage)
    rows = read_rows(home)
    account = ledger(rows, summarize(rows))
    print_json(account.to_json()) if as_json else print(ledger_text(account, definition(home).limits.usd_per_gpu_hour))


@app.command("list")
def list_sweeps(
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Only sweeps with that tag; again: with all.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List the sweeps under a storage root, or those of a cluster."""
    from cluster.cli.render import print_json, states_or_faults, sweep_line
    from sweeps.journal.writer import sweeps_in

    where = address or storage or DEFAULT
    tagged = f" with tag {', '.join(tag)}" if tag else ""
    if address is not None and tag:
        raise InputError("list: got --tag with --address; expected --storage beside it: tags are kept with the sweeps")
    if address is not None:
        from cluster.cli.job_text import job_json, job_line, latest

        jobs = latest(commands.jobs_at(address, token_file).all())
        found, lines = [job_json(j) for j in jobs], [job_line(j) for j in jobs]
    else:
        found = states_or_faults(sweeps_in(where))
        found = [state for state in found if set(tag or ()) <= set(state["tags"])]
        lines = [sweep_line(state) for state in found]
    print_json(found) if as_json else print(
        "\n".join(lines) or f"no sweeps {'on' if address else 'under'} {where}{tagged}"
    )


@app.command()
def status(
    sweep_id: SweepId, storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show the status of a sweep and of each trial; on a cluster, of its job too."""
    from cluster.cli.job_text import status_of
    from cluster.cli.render import print_json, status_text, sweep_state

    if address is not None:
        state, text = status_of(commands.jobs_at(address, token_file), sweep_id, storage)
    else:
        state = sweep_state(find(sweep_id, storage))
        text = status_text(state)
    print_json(state) if as_json else print(text)


@app.command()
def logs(
    sweep_id: SweepId, storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the sweep ends.")] = False,
) -> None:  # fmt: skip
    """Print what happened so far, one line per event: from the journal, or what its job on a cluster has printed."""
    from cluster.cli.job_text import log_lines
    from cluster.cli.render import narrated

    if address is not None:
        for chunk in log_lines(commands.jobs_at(address, token_file), sweep_id, follow=follow):
            print(chunk, end="", flush=True)
        return
    for line in narrated(find(sweep_id, storage), follow=follow):
        print(line, flush=True)


@app.command()
def export(
    sweep_id: SweepId,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id.")],
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    step: Annotated[
        str, typer.Option(help="Which checkpoint: best by the objective, last, or a step that is kept.")
    ] = "best",
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Weights in bf16: half the size of the fp32 they were trained in.")
    ] = False,
    for_rl: Annotated[
        str | None,
        typer.Option("--for", help="trl, verl or open-rlhf: also write prompts, a reward and a GRPO config."),
    ] = None,
    recurrences: Annotated[
        int | None,
        typer.Option(
            help="Of a model of recurrent depth (tiny-r): write the plain model that it is at so many; default its own number."
        ),
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a trial's checkpoint as a plain Hugging Face folder, or as the start of reinforcement learning."""
    import torch

    from cluster.cli.render import kept_checkpoint
    from trainers.export import export as write

    home, dtype = find(sweep_id, storage), torch.bfloat16 if bf16 else None
    kept = kept_checkpoint(home, trial, step)
    if for_rl is None:
        print(write(kept.path, target, digest=kept.digest, dtype=dtype, recurrences=recurrences))
        return
    from cluster.cli.results_commands import export_for_rl

    print(export_for_rl(home, trial, kept, target, for_rl, dtype, recurrences))


@app.command()
def schema() -> None:
    """Print the JSON Schema of sweep files, with which editors complete and check them."""
    from cluster.cli.render import print_json
    from sweeps.config.sweep_file.json_schema import sweep_schema

    print_json(sweep_schema())


@app.command()
def doctor(
    storage: Storage = None, address: Cluster = None, token_file: TokenFile = None,
    python: Annotated[str, typer.Option(help="With --address: interpreter of dipsweep on its nodes.")] = "python",
    install_dashboard: Annotated[
        bool, typer.Option("--install-dashboard", help="Put the Grafana dashboard beside Ray's own, on the head node.")
    ] = False,
    session: Annotated[Path, typer.Option(help="For --install-dashboard: Ray's session folder, or Grafana's folder.")]
    = Path("/tmp/ray/session_latest"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say what this machine, or a cluster, can do and what is missing: versions, GPUs, storage, token, disk, clocks."""
    from cluster.cli.render import print_json
    from cluster.doctor.machine import findings, table

    if install_dashboard:
        from cluster.observe.dashboard import install

        print(f"{install(session)}\nGrafana shows it within a minute; Ray makes the folder anew when its head starts")
        return
    if address is not None:
        from cluster.doctor.cluster import examine
        from cluster.jobs.submit import storage_for

        found = examine(address, token_file, storage_for(storage or DEFAULT, address), python)
    else:
        found = findings(storage or DEFAULT)
    print_json([f._asdict() for f in found]) if as_json else print(table(found))
    if any(f.state == "bad" for f in found):
        raise typer.Exit(1)


@app.command()
def serve(
    storage: Annotated[
        str, typer.Argument(metavar="STORAGE", help="Root of all sweeps, a folder or s3://bucket/prefix.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8765,
) -> None:
    """Show all sweeps of a storage root live in a browser: read-only, on loopback."""
    from sweeps.report.html.live import serve as serve_pages

    serve_pages(storage, port=port)


@app.command()
def replay(
    curves: Annotated[Path, typer.Argument(metavar="CURVES", help="Report rows: a JSONL file, or a sweep's folder.")],
    rule: Annotated[
        list[str], typer.Option(metavar="NAME[:key=value,...]", help="A stop rule; may be given again, to compare several.")
    ],
    metric: Annotated[
        str | None, typer.Option(help="Metric to rank by; default is the sweep's own, else the only one there is.")
    ] = None,
    goal: Annotated[str | None, typer.Option(help="maximize or minimize; default is the sweep's own.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials that run at once.")] = 8,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many best trials count as winners; default is the sweep's own, else 3.")
    ] = None,
    orders: Annotated[
        int, typer.Option(min=1, help="In how many orders the trials start: as recorded, then shuffled.")
    ] = 1,
    experience: Annotated[
        str | None,
        typer.Option(help="A storage of finished sweeps: replays dip-aware rules once more, beginning from these."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the whole result here.")] = None,
) -> None:  # fmt: skip
    """Run recorded curves under a stop rule: what would it have saved, and which winners would it have lost?"""
    from cluster.cli.render import replay_curves

    print(
        replay_curves(
            curves,
            rule,
            metric=metric,
            goal=goal,
            workers=workers,
            top=top,
            orders=orders,
            experience=experience,
            json_out=json_out,
        )
    )


app.add_typer(commands.app)
app.add_typer(replies.app)
app.add_typer(results_commands.app)
app.add_typer(note_commands.app)
app.add_typer(preview.app)
app.add_typer(fetch.app)


def main() -> None:
    """Entry point of the command."""
    main_of(lambda: app(standalone_mode=False))  # typer returns the code of an Exit, and 130 for Ctrl-C


if __name__ == "__main__":
    main()
