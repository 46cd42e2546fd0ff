"""`deploy/slurm.sh` under SLURM itself, on two nodes: preempted, out of time, cancelled, put back by hand, and run to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.writer import is_sweep, read_rows
from tests.support.crash import no_row_twice
from tests.support.machines.slurm import Slurm, slurm, why_not
from tests.support.programs import REPO

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.optional, pytest.mark.timeout(2400)]
PATIENCE_S = 600
SWEEP = """
name: {name}
space: {{replay: {{grid: [0.0, 0.2]}}}}
trainer: {{steps: {steps}, learning_rate: 3.0e-3, batch_tokens: 256, max_length: 128}}
evaluation: {{items: 2, at: {{every: {every}}}}}
"""
LONG = 100_000
"""Steps that nobody waits for."""


@pytest.fixture(scope="module")
def site() -> Iterator[Slurm]:
    if reason := why_not():
        pytest.skip(reason)
    with (
        TemporaryDirectory(prefix="dsl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        slurm(Path(folder)) as made,
    ):
        yield made


class Job:
    """One sweep in one SLURM job of the script as it is shipped."""

    def __init__(self, site: Slurm, name: str, steps: int = LONG, *options: str) -> None:
        self.site, self.options = site, options
        self.file, self.storage = site.folder / f"{name}.yaml", site.folder / name
        self.file.write_text(SWEEP.format(name=name, steps=steps, every=min(200, steps // 2)))
        self.submit()

    def submit(self) -> None:
        self.number = self.site.submit(*self.options, str(REPO / "deploy/slurm.sh"), str(self.file), str(self.storage))

    def rows(self) -> list[Row]:
        homes = [home for home in self.storage.glob("*") if is_sweep(home)]
        return read_rows(homes[0]) if homes else []

    def commits(self) -> dict[str, int]:
        """Returns the newest committed step of each trial."""
        return {row.trial: row.step or 0 for row in self.rows() if row.kind == "commit" and not row.dropped}

    def until_both_train(self) -> None:
        """Waits until both trials have committed a checkpoint, and one more than they had."""
        before = self.commits()
        self.site.until(lambda: self._newer(before) == 2, PATIENCE_S, "checkpoints of both trials")

    def _newer(self, before: dict[str, int]) -> int:
        assert self.site.job(self.number)["JobState"] not in ("FAILED", "COMPLETED"), self.site.told()
        return sum(step > before.get(trial, 0) for trial, step in self.commits().items())

    def until_again(self, restarts: int) -> None:
        """Waits until SLURM has started the job once more."""
        again = {"JobState": "RUNNING", "Restarts": str(restarts)}
        self.site.until(
            lambda: again.items() <= self.site.job(self.number).items(), PATIENCE_S, "the job to start again"
        )

    def saved_between(self, before: dict[str, int]) -> bool:
        """True when both trials saved where they were: past their last checkpoint and off the schedule's steps."""
        return all(step > before[trial] and step % 200 for trial, step in self.commits().items())

    def end(self) -> None:
        """Ends the job as the script says, with all trials saved."""
        self.site.ask("scancel", "--batch", "--signal=INT", self.number)
        assert self.site.until_state(self.number, "FAILED", PATIENCE_S)["ExitCode"] == "130:0"

    def check(self, resumed_from: list[dict[str, int]]) -> None:
        """Holds what must be true however often the job was taken away.

        Args:
            resumed_from: the newest checkpoints when each life but the first began.
        """
        rows = self.rows()
        no_row_twice(rows, retrained=True)
        assert not [row for row in rows if row.kind == "end" and row.status == "failed"]
        assert [len([r for r in rows if r.kind == "lease"])] == [len(resumed_from) + 1]
        for trial in {row.trial for row in rows if row.kind == "trial"}:
            starts = [row.step for row in rows if row.kind == "attempt" and row.trial == trial]
            assert starts == [0, *(steps[trial] for steps in resumed_from)]


def test_preempted_the_job_saves_is_requeued_by_itself_and_ends_with_the_sweep_complete(site: Slurm):
    job = Job(site, "preempted", 4000)
    job.until_both_train()
    before = job.commits()
    urgent = site.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 1")
    site.until_state(urgent, "COMPLETED", PATIENCE_S)
    saved = job.commits()
    assert job.saved_between(before)
    site.until_state(job.number, "COMPLETED", 2 * PATIENCE_S)
    assert site.job(job.number)["Restarts"] == "1"
    assert {curve.state for curve in History(job.rows()).trials()} == {"completed"}
    job.check([saved])


def test_before_its_time_is_up_the_job_saves_and_puts_itself_into_the_queue_again(site: Slurm):
    # SLURM counts in minutes, and warns up to one of them early: between two and three minutes are left to start and train.
    job = Job(site, "time", LONG, "--time=5", "--signal=B:USR1@90")
    job.until_both_train()
    before = job.commits()
    job.until_again(1)
    saved = job.commits()
    assert job.saved_between(before)
    job.until_both_train()
    job.end()
    job.check([saved])


def test_cancelled_with_sigint_it_saves_and_ends_and_submitted_again_it_goes_on_from_there(site: Slurm):
    job = Job(site, "cancelled")
    job.until_both_train()
    before = job.commits()
    job.end()
    saved = job.commits()
    assert job.saved_between(before)
    job.submit()
    job.until_both_train()
    site.ask("scancel", job.number)  # plainly: all of it ends at once
    site.until_state(job.number, "CANCELLED", PATIENCE_S)
    left = job.commits()
    job.submit()
    job.until_both_train()
    job.end()
    job.check([saved, left])


def test_requeued_by_an_administrator_it_goes_on_from_its_last_checkpoints(site: Slurm):
    job = Job(site, "requeued")
    job.until_both_train()
    site.ask("scontrol", "requeue", job.number)
    job.until_again(1)
    left = job.commits()
    job.until_both_train()
    job.end()
    job.check([left])
