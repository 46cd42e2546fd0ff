"""Rows and weights of a step as the trainer of arXiv 2604.06628 has them (`sweeps.config.compat`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeps.config.compat import GPUS, ROWS
from sweeps.errors import InputError


def in_file_order(num_rows: int, batch_rows: int) -> Iterator[list[int]]:
    """Yields the rows of each step in the order of the file, epoch after epoch; an epoch's incomplete last step is left out.

    Raises:
        InputError: there are fewer rows than a step takes.
    """
    if num_rows < batch_rows:
        raise InputError(
            f"batch_rows is {batch_rows}, but there are {num_rows} rows to train on; under compat paper a step has "
            "different rows alone"
        )
    while True:
        for start in range(0, num_rows - batch_rows + 1, batch_rows):
            yield list(range(start, start + batch_rows))


def micro_batches(batch_rows: int) -> list[list[int]]:
    """Returns the places in a step of the rows of each micro-batch: GPU g has the rows g, g + 8, g + 16 and so on, in order."""
    per_gpu = [list(range(gpu, batch_rows, GPUS)) for gpu in range(GPUS)]
    return [rows[at : at + ROWS] for rows in per_gpu for at in range(0, len(rows), ROWS)]


def label_weights(labels: Sequence[int]) -> list[float]:
    """Returns how much a label token of each row of a step counts in the loss whose gradient is taken.

    Args:
        labels: label tokens of each row, in the order of the step.
    """
    weights = [0.0] * len(labels)
    for rows in micro_batches(len(labels)):
        whole = sum(labels[row] for row in rows)
        for row in rows:
            weights[row] = 1 / (GPUS * whole)
    return weights


def loss_scale(batch_rows: int) -> float:
    """Returns what turns the loss whose gradient is taken into the mean over micro-batches, which is reported."""
    return GPUS * ROWS / batch_rows
