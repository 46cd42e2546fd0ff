"""Output that nobody takes ends no sweep, and what is printed is text and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.journal.history import History
from sweeps.journal.writer import read_rows
from sweeps.output import LossyStream, droppable, printable
from sweeps.report.html.page import render
from tests.support.output_program import SWEEP
from tests.support.programs import REPO


def start(root: Path, pace_s: float, **settings) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.output_program", str(root), str(pace_s)]
    return subprocess.Popen(command, cwd=REPO, text=True, start_new_session=True, **settings)


def states(root: Path) -> set[str]:
    return {c.state for c in History(read_rows(root / SWEEP.id)).trials()}


def test_a_pipe_whose_reader_has_ended_ends_no_trial(tmp_path: Path):
    process = start(tmp_path, 0.02, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()  # head -1
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0
    assert states(tmp_path) == {"completed"}


def test_a_terminal_that_is_gone_ends_no_sweep_that_ignores_its_hangup(tmp_path: Path):
    ours, theirs = os.openpty()
    process = start(tmp_path, 0.02, stdout=theirs, stderr=theirs, stdin=theirs,
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # fmt: skip  # nohup
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    assert process.wait(60) == 0
    assert states(tmp_path) == {"completed"}


CLOSED = """
import os, sys
from cluster.launch import main_of
from sweeps.journal.writer import SweepJournal

def act():
    with SweepJournal(sys.argv[1], beating=False, lease_s=0):
        for number in (0, 1, 2):
            assert os.readlink(f"/proc/self/fd/{number}") == os.devnull
        os.write(2, b"a library of C++ warns")
        print("so do we", file=sys.stderr)

main_of(act)
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_started_without_standard_streams_a_log_does_not_get_their_numbers(tmp_path: Path, closed: str):
    open_ = {"<&-": "</dev/null ", ">&-": ">/dev/null ", "2>&-": "2>/dev/null "}
    others = "".join(to for stream, to in open_.items() if stream not in closed.split())
    shell = f"exec {sys.executable} -c '{CLOSED}' {tmp_path / 's'} {others}{closed}"
    assert subprocess.run(["sh", "-c", shell], cwd=REPO, check=False).returncode == 0
    assert [row.kind for row in read_rows(tmp_path / "s")] == ["lease"]
    assert b"warns" not in (tmp_path / "s/log/000000000.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR"])
def test_whatever_asks_a_driver_to_end_lets_it_save_and_it_can_be_resumed(tmp_path: Path, name: str):
    process = start(tmp_path, 0.1, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    while "step 4" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(getattr(signal, name))
    if name != "SIGINT":
        process.send_signal(getattr(signal, name))  # a closed terminal sends two: no reason to hurry
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    reason = "Ctrl-C" if name == "SIGINT" else name
    assert f"{reason}: running trials save a checkpoint and stop" in out
    rows = read_rows(tmp_path / SWEEP.id)
    assert rows[-1].kind == "control"
    assert rows[-1].to_json()["reason"] == reason
    assert start(tmp_path, 0.0, stdout=subprocess.DEVNULL).wait(60) == 0
    assert states(tmp_path) == {"completed"}


def test_what_is_no_text_is_shown_as_an_escape():
    assert printable("a\tb\nüöß 日本 🙂") == "a\tb\nüöß 日本 🙂"
    assert printable("\x1b[31mred\x1b[0m\r\x00\x9b") == r"\x1b[31mred\x1b[0m\x0d\x00\x9b"
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
    assert printable("\u202etxt.exe") == r"\u202etxt.exe"
    printable(os.fsdecode(bytes(range(256)))).encode()


class Gone:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str = "") -> int:
        raise self.error

    flush = fileno = write


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "x"), OSError(5, "x"), OSError(28, "x"), ValueError("closed")], ids=str
)
def test_a_write_that_nobody_takes_raises_nothing(error: Exception):
    stream = LossyStream(Gone(error))  # type: ignore[arg-type]
    print("x", file=stream)  # type: ignore[call-overload]
    droppable(Gone(error).write)("x")


def test_a_page_can_be_written_whatever_its_names_hold():
    page = render("live.html", css="", script="", script_hash="", storage=os.fsdecode(b"/sweeps\xff\x1b[1m"), sweeps=[])
    assert r"/sweeps\udcff\x1b[1m" in page
    page.encode()
