"""Commands that take a sweep's results elsewhere: its report, tables, figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.cluster_commands import AsJson, Storage, SweepId
from cluster.cli.output_files import check_output
from cluster.locate import definition, find
from sweeps.config.trial import Saved
from sweeps.errors import InputError, nearest
from sweeps.storage.base import Store

if TYPE_CHECKING:
    import torch

app = typer.Typer()
TABLES = ("curves", "scores", "trials", "verdicts", "decisions", "costs")


@app.command()
def report(
    sweep_dirs: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="A sweep: its id, name, folder or address; several are set side by side."),
    ],
    storage: Storage = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request.")] = False,
    card: Annotated[
        bool, typer.Option("--card", help="With --markdown: model card metadata of Hugging Face in front.")
    ] = False,
) -> None:
    """Write the report of a sweep, finished or not, from its journal alone; of several, print what can be compared."""
    from cluster.cli.render import print_json
    from cluster.run_sweep import summary_of, write_report
    from sweeps.output import printable
    from sweeps.report.markdown import markdown as as_markdown
    from sweeps.report.markdown import side_by_side

    if as_json and (markdown or card):
        raise InputError(f"report: got --json with {'--card' if card else '--markdown'}; expected one of them")
    homes = [find(name, storage) for name in sweep_dirs]
    if len(homes) > 1:
        if card:
            raise InputError("report: got --card with several sweeps; expected one: a card is of one model")
        if twice := [id for id, n in Counter(home.root for home in homes).items() if n > 1]:
            raise InputError(f"report: got {', '.join(twice)} twice; expected different sweeps to set side by side")
        summaries = [summary_of(home) for home in homes]
        print_json([s.to_json() for s in summaries]) if as_json else print(printable(side_by_side(summaries)), end="")
    elif markdown or card:
        summary = summary_of(homes[0])
        if card and not summary.ranked():
            raise InputError(f"report: {homes[0].name} has no best setting yet that a card could be of; without --card it "
                             "is printed as it stands")  # fmt: skip
        print(printable(as_markdown(summary, card=card)), end="")
    else:
        page = write_report(homes[0])
        print_json(summary_of(homes[0]).to_json()) if as_json else print(page)


@app.command("export-table")
def export_table(
    sweep_id: SweepId,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new file: .csv or .parquet.")],
    table: Annotated[str, typer.Option(help=f"One of {', '.join(TABLES)}.")] = "curves",
    storage: Storage = None,
) -> None:
    """Write one of a sweep's tables as CSV or Parquet; by default every score of every checkpoint."""
    from sweeps.results import Results

    if table not in TABLES:
        raise InputError(f"--table: got {table!r}; expected one of {', '.join(TABLES)}{nearest(table, TABLES)}")
    check_output(out)
    results = Results(find(sweep_id, storage))
    rows = results.trials if table == "trials" else getattr(results, table)()
    print(f"{rows.write(out)}: {len(rows):,} rows")


@app.command()
def figure(
    sweep_id: SweepId,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to draw: curves.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new file: .svg; .pdf or .png with the extra `figures`.")
    ],
    metric: Annotated[str, typer.Option(help="Which score; default is the sweep's objective.")] = "",
    trials: Annotated[str, typer.Option(help="Ids of trials, with commas; default is up to six.")] = "",
    storage: Storage = None,
) -> None:
    """Draw a sweep's curves for a paper or a slide."""
    from sweeps.report.figure import write_figure
    from sweeps.results import Results

    if kind != "curves":
        raise InputError(f"got figure {kind!r}; expected curves")
    check_output(out)
    chosen = [id.strip() for id in trials.split(",") if id.strip()]
    print(write_figure(Results(find(sweep_id, storage)).summary, out, metric=metric, trials=chosen))


@app.command("next")
def next_command(
    sweep_id: SweepId,
    storage: Storage = None,
    gpu: Annotated[str, typer.Option(help="Device that the cost is planned for: H100, H200, A100 or L40S.")] = "H100",
) -> None:
    """Print the sweep file of what to run next, with the reason and the planned cost: `dipsweep next ID > next.yaml`."""
    from cluster.cli.plan_view import cost_text
    from cluster.preflight.cost import journals_of, speeds_for
    from sweeps.config.plan import Plan
    from sweeps.planning.estimate import estimate
    from sweeps.report.next_sweep import next_sweep
    from sweeps.results import Results

    home = find(sweep_id, storage)
    found = next_sweep(Results(home).summary)
    if found is None:
        raise InputError(
            f"{home.name}: nothing to propose: it has not ended, or no setting that ran to its budget meets the constraints"
        )
    plan = Plan(found.sweep)
    cost = cost_text(estimate(plan, speeds_for(plan, gpu=gpu, journals=journals_of(storage or plan.sweep.storage))))
    print(found.yaml(f"Planned cost of {found.sweep.id}:", cost), end="")


def export_for_rl(
    home: Store,
    trial: str,
    checkpoint: Saved,
    target: Path,
    framework: str,
    dtype: torch.dtype | None,
    recurrences: int | None = None,
) -> str:
    """Writes a checkpoint with the prompts of its trial for an RL framework; returns what to print."""
    from cluster.train.inputs import verify_tier
    from sweeps.journal.state import SweepState
    from sweeps.journal.writer import read_rows
    from trainers.export import export, new_folder
    from trainers.export_rl import RlSettings, check_framework, counted, fitting_prompts, rl_prompts, write_rl

    check_framework(framework, target)
    config, sweep = SweepState(read_rows(home)).trials[trial].curve.config, definition(home)
    settings, source = RlSettings.of(config), sweep.tier_source(config["data"])
    with new_folder(target) as made:
        found = rl_prompts(config["data"], source, config["seed"])
        unknown = verify_tier(home, config["data"], source)  # what was read, not what will be
        export(checkpoint.path, made / "model", digest=checkpoint.digest, dtype=dtype, recurrences=recurrences)
        fitting = fitting_prompts(made / "model", found.prompts, settings)
        started = target / write_rl(framework, made, fitting.prompts, settings).name
    said = [
        f"{started}: {framework}, {len(fitting.prompts):,} prompts of {config['data']}, model in {target / 'model'}"
    ]
    for of, left_out in (("conversations", found.left_out), ("prompts", fitting.left_out)):
        if left_out:
            said.append(f"left out of the {of}: {counted(left_out)}")
    return "\n".join([*said, *fitting.doubts, *filter(None, [unknown])])
