"""Following a job on a cluster: a connection that drops says nothing about the sweep. Against a stand-in for Ray's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from cluster.cli import cluster_commands as commands
from cluster.cli import job_text as remote
from cluster.connect.address import JobsEndpoint
from cluster.jobs import submit as submit_module
from cluster.jobs.client import HELD_S, PAUSES_S, Jobs
from cluster.jobs.submit import Submission
from sweeps import Sweep
from sweeps.errors import DipsweepError

LOG = "one\ntwo\nthree\nfour\n"
CUT = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
LOST = ConnectionError("Connection refused")
RAN = ["RUNNING"]


class Client:
    """Ray's client, whose answers are written down beforehand; the last of each kind is given for ever.

    Args:
        tails: what each tail sends from the log's start before it ends, and how: an error, or None for a clean close.
        states: what each status query answers, a state or an error.
    """

    def __init__(
        self, tails: list[tuple[str, Exception | None]], states: list[str | Exception], log: Any = LOG
    ) -> None:
        self.tails, self.states, self.log = list(tails), list(states), log
        self.asked = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        text, end = self.tails.pop(0) if len(self.tails) > 1 else self.tails[0]
        for at in range(0, len(text), 6):  # chunks cut lines, as Ray's do
            yield text[at : at + 6]
        if end is not None:
            raise end

    def get_job_info(self, job: str) -> Any:
        self.asked += 1
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        code = {"SUCCEEDED": 0, "FAILED": 1}.get(state)
        return SimpleNamespace(submission_id=job, metadata={}, status=state, message="", driver_exit_code=code,
                               start_time=1, end_time=0)  # fmt: skip

    def get_job_logs(self, job: str) -> str:
        if isinstance(self.log, Exception):
            raise self.log
        return str(self.log)


class Wire(Jobs):
    """A cluster's jobs over such a client, with a clock that only sleep moves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endpoint = JobsEndpoint("http://10.1.1.1:8265", {}, "2.60.0", True)
        self._client = Client(*args, **kwargs)
        self.now, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def read(self) -> str:
        return "".join(self.follow("s-1"))


@pytest.mark.parametrize("end", [CUT, None], ids=["cut", "closed in order"])
def test_a_connection_that_drops_is_made_again_and_nothing_is_printed_twice(end: Exception | None):
    wire = Wire([(LOG[:7], end), (LOG[:7], end), (LOG[:15], end), (LOG, None)], [*RAN * 3, "SUCCEEDED"])
    assert wire.read() == LOG
    assert wire.slept == [PAUSES_S[0], PAUSES_S[1], PAUSES_S[0]]  # the second one brought nothing new


def test_what_was_printed_while_nobody_listened_comes_at_the_end():
    wire = Wire([(LOG[:4], CUT)], [LOST, LOST, "FAILED"])
    assert wire.read() == LOG


def test_a_log_that_went_with_its_node_does_not_hide_how_the_job_ended():
    wire = Wire([(LOG[:4], CUT)], ["FAILED"], log=LOST)
    assert wire.read().startswith("one\n")
    assert remote.wait(wire, "s-1") == 1


def test_a_log_that_cannot_be_followed_is_given_up_after_a_while_and_it_is_said_that_the_job_lives():
    wire = Wire([("", CUT)], RAN)
    with pytest.raises(DipsweepError, match=r"s-1 goes on.*close code 1006.*dipsweep logs s-1 --address http://10"):
        wire.read()
    assert wire.slept == list(PAUSES_S)


def test_progress_starts_the_tries_anew():
    grows = [(LOG[:n], CUT) for n in range(1, len(LOG)) for _ in range(len(PAUSES_S))]
    wire = Wire([*grows, (LOG, None)], [*RAN * len(grows), "SUCCEEDED"])
    assert wire.read() == LOG


def test_a_quiet_job_behind_a_proxy_that_closes_idle_connections_is_followed_for_ever(monkeypatch: pytest.MonkeyPatch):
    wire = Wire([(LOG, None)], [*RAN * 50, "SUCCEEDED"])
    really = wire._tail

    def idle(job: str) -> Any:
        yield from really(job)
        wire.now += HELD_S

    monkeypatch.setattr(wire, "_tail", idle)
    assert wire.read() == LOG


def test_waiting_outlives_requests_that_fail_and_gives_up_in_a_sentence_when_none_is_answered():
    wire = Wire([("", None)], ["RUNNING", LOST, LOST, "RUNNING", LOST, "SUCCEEDED"])
    assert remote.wait(wire, "s-1") == 0
    gone = Wire([("", None)], [LOST])
    with pytest.raises(DipsweepError, match=r"10\.1\.1\.1.*not answered.*refused.*may run on: dipsweep status s-1"):
        remote.wait(gone, "s-1")
    assert gone._client.asked == len(PAUSES_S) + 1


def test_submit_that_cannot_follow_the_log_still_ends_with_the_sweeps_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    wire = Wire([("", CUT)], [*RAN * 20, "SUCCEEDED"])
    done = Submission("s-1", "s-1", wire.endpoint.url, "submitted", "s3://bucket/x")
    monkeypatch.setattr(submit_module, "submit", lambda *a, **k: done)
    monkeypatch.setattr(Jobs, "at", classmethod(lambda cls, address, token: wire))
    with pytest.raises(typer.Exit) as ended:
        commands.send(Sweep(name="s"), wire.endpoint.url, None, None, follow=True)
    assert ended.value.exit_code == 0
    assert "s-1 goes on" in capsys.readouterr().err
