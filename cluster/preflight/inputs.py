"""What a sweep is trained from, by content: digests of data files, weights, tokenizers and templates.

They are written down when a sweep first runs and compared whenever it goes on, before anything runs: trials that were
trained on other rows or from other weights must not be ranked with the first ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from cluster.train.inputs import FILE, changed_inputs, inputs_at_first
from evaluators.tasks import code_of
from sweeps.config.schema import Sweep
from sweeps.errors import InputError
from sweeps.plugins import TRAINERS
from sweeps.storage.base import Store
from trainers.data.chat.template import TEMPLATE_DATE
from trainers.model.files.digests import model_digests, tier_digests


def check_inputs(sweep: Sweep, home: Store) -> None:
    """Compares a sweep's inputs with those that it began with; of a sweep that begins, writes them down.

    Raises:
        InputError: some are others now; names them. No trial has been touched. Or what was written down is damaged.
    """
    before = inputs_at_first(home)
    found = {name: digest for name, digest in input_digests(sweep) if digest}
    now = {"template date": TEMPLATE_DATE.isoformat(), **found}
    if told := changed_inputs(before, now):
        raise InputError(
            "\n".join(told)
            + f"\n{home.name}: nothing was started; restore what was changed, or give the sweep another name to "
            "begin anew"
        )
    if before != (merged := {**before, **now}):
        home.write(FILE, (json.dumps(merged, indent=1) + "\n").encode())


def input_digests(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Yields name and digest of every input that is the user's own; "" for what is not on this machine."""
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        yield from model_digests(name, sweep.model_source(name))
    for name in map(str, sweep.axis_values("data", sweep.default_tier)):
        yield from tier_digests(name, sweep.tier_source(name))
    if (plugin := TRAINERS.find(sweep.trainer.loop)) is not None:
        yield (
            f"trainer {plugin.name} ({plugin.entry.value})",
            f"{plugin.package}, code {code_of(plugin.entry.module)[:8]}",
        )
