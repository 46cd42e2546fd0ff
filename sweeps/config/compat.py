"""`compat: paper`: what the trainer of arXiv 2604.06628 does differently, as far as it can be done here.

Read from its published scripts (verl's SFT trainer on 8 GPUs, 4 rows of each at a time; github.com/Nebularaid2000/
rethink_sft_generalization). With the switch on:

    order     rows in the order of the file, the same in every epoch; what is left of an epoch at its end is not trained on
    loss      a mean over the label tokens of each micro-batch of 4 rows; their gradients are summed on a GPU and averaged
              over the 8, so a step's gradient is 8 times the mean over its 64 micro-batches, and is clipped at that size
    warm-up   its first step has a rate of zero: every step has the rate that is else that of the step before

Which rows share a micro-batch follows from 8 GPUs, on however many it runs here. What stays as it is here is in `UNLIKE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

PAPER: Final = "paper"
GPUS: Final = 8
ROWS: Final = 4
"""Rows of a micro-batch, on one GPU."""


class Need(NamedTuple):
    """A setting without which the switch would not give what it says."""

    setting: str
    works: Callable[[Any], bool]
    expected: str


NEEDS: Final = (
    Need("batch_rows", lambda n: n > 0 and n % (GPUS * ROWS) == 0,
         f"a multiple of {GPUS * ROWS}: {ROWS} rows at a time on {GPUS} GPUs (the paper's is 256)"),
    Need("replay", lambda share: share == 0, "0: the paper's trainer mixes nothing in"),
    Need("lr_scheduler_type", lambda kind: kind in ("cosine", "constant"), "cosine or constant, the paper's schedules"),
    Need("long_rows", lambda how: how == "cut-answer", "cut-answer: the paper's trainer cuts rows on the right"),
    Need("lora_rank", lambda rank: rank == 0, "0: the paper trains all weights"),
)  # fmt: skip
UNLIKE: Final = (
    "weights and AdamW's moments are fp32 (there bf16, which loses updates smaller than 1/256 of a weight)",
    "a gradient that is no finite number ends the run as diverged (there the step is left out in silence)",
    "rows are packed (there padded to max_length, which costs time and changes nothing that is computed)",
    "train/grad_norm is the norm of the whole gradient (there the mean over GPUs of the norms of their shards)",
)
"""Differences from the paper's trainer that the switch does not remove."""


def paper_faults(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields those of some settings of a trial that `compat: paper` cannot go with, and what it expects of them."""
    for need in NEEDS:
        if need.setting in settings and not need.works(settings[need.setting]):
            yield need.setting, f"got {settings[need.setting]!r} under compat {PAPER}; expected {need.expected}"
