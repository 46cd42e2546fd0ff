"""What a run tells: dated lines where nobody looks, a bar under its lines on a terminal."""

import io
import re

from cluster import run_output as module
from cluster.run_output import LogOutput, TerminalOutput, run_output
from sweeps.planning.estimate import Range
from sweeps.planning.progress import Progress

HALF = Progress(
    done=0.5, left=Range(90.0, 60.0, 240.0), spent={"cpu_s": 60.0}, limits={"gpu_hours": (1.0, 2.0)},
    states={"completed": 1, "running": 1}, running=("t-1",), waiting=(), total=2,
)  # fmt: skip
TOLD = "50% done; 90 s left (60 s to 4 min); 1 of 2 trials ended, 1 running; 1 of 2 GPU hours"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_carry_a_date_and_progress_is_told_once_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with run_output(stream) as output:
        assert isinstance(output, LogOutput)
        output.say("t-1 starts")
        for now[0] in (30.0, 61.0, 90.0, 122.0):
            output.progress(HALF)
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
    assert [line[21:] for line in lines] == ["t-1 starts", TOLD, TOLD]


def test_on_a_terminal_the_bar_stays_under_the_lines_and_is_gone_at_the_end(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with run_output(stream) as output:
        assert isinstance(output, TerminalOutput)
        output.progress(HALF)
        output.say("t-1 [starts] in /a/long/path")
    written = stream.getvalue()
    assert TOLD in written
    assert "  0:00  t-1 [starts] in /a/long/path" in written  # brackets are text, not markup
    assert written.index("\x1b[?25l") < written.rindex("\x1b[?25h")  # the cursor is back


def test_a_process_without_standard_output_tells_nobody(monkeypatch):
    monkeypatch.setattr(module.sys, "stdout", None)
    with run_output() as output:
        output.say("t-1 starts")
    closed = io.StringIO()
    closed.close()
    assert isinstance(run_output(closed), LogOutput)
