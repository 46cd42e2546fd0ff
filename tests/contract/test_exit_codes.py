"""What a script sees: 0 done, 1 failed, 2 bad input, 3 over a limit, 4 no driver, 130 interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import main as cli
from sweeps.errors import Interrupted, LimitError, StorageError


def code_of(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dipsweep", *argv])
    with pytest.raises(SystemExit) as e:
        cli.main()
    return int(e.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [(StorageError("gone"), 1), (LimitError("too much"), 3), (Interrupted("later"), 130), (KeyboardInterrupt(), 130)],
)
def test_every_way_to_end_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path, error, code: int):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli, "run_with_output", fail)
    (tmp_path / "s.yaml").write_text("name: s\n")
    assert code_of(monkeypatch, "run", str(tmp_path / "s.yaml")) == code
    if str(error):
        assert str(error) in capsys.readouterr().err


def test_bad_input_is_2_and_help_is_0(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert code_of(monkeypatch, "validate", "missing.yaml") == 2
    assert code_of(monkeypatch, "status", "nobody") == 2
    assert code_of(monkeypatch, "no-such-command") == 2
    assert code_of(monkeypatch, "--help") == 0
    assert "no sweep 'nobody' under runs" in capsys.readouterr().err


def test_a_doctor_that_finds_something_bad_says_so_to_scripts_too(monkeypatch: pytest.MonkeyPatch, capsys):
    from cluster.doctor import machine as doctor

    monkeypatch.setattr(doctor, "findings", lambda storage: [doctor.Finding("disk", "bad", "full")])
    assert code_of(monkeypatch, "doctor") == 1
    assert "full" in capsys.readouterr().out


def test_one_damaged_sweep_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    (tmp_path / "broken-1" / "log").mkdir(parents=True)
    (tmp_path / "broken-1" / "log" / "000000000.jsonl").write_text("nonsense\n")
    assert code_of(monkeypatch, "list", "--storage", str(tmp_path)) == 0
    assert "broken-1  unreadable" in capsys.readouterr().out


def test_a_renamed_sweep_is_not_silently_started_anew(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    from cluster.run_sweep import write_spec
    from sweeps import Sweep
    from sweeps.journal.writer import SweepJournal

    SweepJournal(tmp_path / "other-12345678").close()
    write_spec(Sweep(name="s"), tmp_path / "other-12345678")
    assert code_of(monkeypatch, "resume", "other", "--storage", str(tmp_path)) == 2
    assert "was renamed" in capsys.readouterr().err


@pytest.mark.parametrize("buffered", ["", "1"], ids=["at its end", "at once"])
def test_output_for_which_there_is_no_room_is_one_sentence_and_1(tmp_path: Path, buffered: str):
    """Left to Python it is a traceback, or 120 with an exception that is ignored."""
    command = [sys.executable, "-c", "from cluster.cli.main import main; main()", "list", "--storage", str(tmp_path)]
    with open("/dev/full", "w") as full:
        env = {**os.environ, "PYTHONUNBUFFERED": buffered, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: this machine: no room is left on this disk (No space left on device")


@pytest.mark.parametrize(
    ("acts", "code"),
    [("os.kill(os.getpid(), signal.SIGHUP)", 130), ("raise InputError('no')", 2), ("raise OSError(28, 'full')", 1)],
)
def test_a_terminal_that_is_gone_changes_no_exit_code(acts: str, code: int):
    """It takes no word of why a command ended, nor what would be written of that."""
    program = (
        "import os, signal, time\n"
        "from cluster.launch import main_of\n"
        "from sweeps.errors import InputError\n"
        f"def act():\n    {acts}\n    time.sleep(9)\n"
        "main_of(act)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert subprocess.run([sys.executable, "-c", program], stderr=writer, env=env, check=False).returncode == code
    finally:
        os.close(writer)


def test_trouble_in_reading_is_no_trouble_in_writing_and_what_was_said_before_is_said():
    program = (
        "from cluster.launch import main_of\n"
        "def act():\n"
        "    print('said before')\n"
        "    raise OSError(24, 'Too many open files')\n"
        "main_of(act)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (1, "said before\n")
    assert done.stderr == "error: this machine: too many open files; raise the limit of open files (ulimit -n)\n"
