"""`dipsweep preview`: what a sweep's models are going to be trained on, before anything trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.output_files import check_output
from sweeps.errors import InputError, nearest

if TYPE_CHECKING:
    from cluster.preflight.model_data import Pair
    from sweeps.config.schema import Sweep
    from trainers.data.inspection.preview import PreviewRow
    from trainers.data.types import TierData

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def preview(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (YAML).")],
    tier: Annotated[str | None, typer.Option(metavar="T", help="One tier; default is all.")] = None,
    model: Annotated[str | None, typer.Option(metavar="M", help="One model; default is all.")] = None,
    rows: Annotated[int, typer.Option(min=0, max=1000, help="Rows to show of each tier.")] = 2,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page to this file instead.")] = None,
) -> None:
    """Show rows exactly as the models will see them, what of them is learnt, and each tier in numbers."""
    from sweeps.config.sweep_file.yaml import load
    from trainers.data.inspection.preview import LEARNT, PLAIN, page, row_lines

    if html is not None:
        check_output(html)
    read = load(sweep)
    sections = [_section(read, pair, rows) for pair in _chosen(read, model, tier)]
    if html is not None:
        html.write_text(page(f"{read.name}: what is trained on", sections), encoding="utf-8")
        print(html)
        return
    marks = LEARNT if sys.stdout.isatty() else PLAIN
    print(f"Learnt tokens stand {'in green' if marks is LEARNT else 'in ' + ' '.join(PLAIN)}; the rest is only shown.")
    for heading, card, shown in sections:
        print(f"\n== {heading}")
        print("\n".join(f"  {line}" for line in card))
        for name, row in shown:
            print(f"\n-- {name}")
            print(row if isinstance(row, str) else "\n".join(row_lines(row, marks)))


def _chosen(sweep: Sweep, model: str | None, tier: str | None) -> list[Pair]:
    """Returns the pairs of model and tier to show, the first of those that differ in length limits alone.

    Raises:
        InputError: the sweep has no such model or tier.
    """
    from cluster.preflight.model_data import pairs

    found = {(pair.model, pair.tier): pair for pair in reversed(list(pairs(sweep)))}
    for wanted, names, kind in ((model, {m for m, _ in found}, "model"), (tier, {t for _, t in found}, "tier")):
        if wanted is not None and wanted not in names:
            known = ", ".join(sorted(names))
            raise InputError(
                f"{kind} {wanted!r} is not trained in this sweep{nearest(wanted, names)}; it trains: {known}"
            )
    return [p for (m, t), p in reversed(found.items()) if model in (None, m) and tier in (None, t)]


def _section(sweep: Sweep, pair: Pair, count: int) -> tuple[str, list[str], list[tuple[str, PreviewRow | str]]]:
    """Returns a pair's heading, its card and its first rows."""
    from cluster.preflight.model_data import read_tier
    from trainers.data.inspection.card import measure_tier
    from trainers.model.load import load_tokenizer, model_folder

    tokenizer = load_tokenizer(model_folder(pair.model, sweep.model_source(pair.model)))
    data, evaluation = read_tier(sweep, pair)
    try:
        card, _ = measure_tier(tokenizer, data, pair.config, strict=False, evaluation=evaluation)
        lines = card.lines(pair.config.long_rows)
    except InputError as e:
        lines = [str(e)]
    return f"tier {pair.tier} with model {pair.model}", lines, _rows(tokenizer, data, pair, count)


def _rows(tokenizer: Any, data: TierData, pair: Pair, count: int) -> list[tuple[str, PreviewRow | str]]:
    from trainers.data.inspection.preview import preview_rows

    out: list[tuple[str, PreviewRow | str]] = []
    for pool, numbers, name in (
        (data.primary, data.primary_numbers, "row"),
        (data.replay, data.replay_numbers, "replay row"),
    ):
        if name == "replay row" and not pair.config.replay:
            continue
        for place, conversation in enumerate(pool[:count]):
            heading = f"{name} {numbers[place] if numbers else place + 1}"
            try:
                found = preview_rows(tokenizer, conversation, pair.config)
            except InputError as e:
                out.append((heading, f"bad row: {e}"))
                continue
            many = len(found) > 1
            out += [(f"{heading}, reply {i + 1}" if many else heading, row) for i, row in enumerate(found)]
    return out
