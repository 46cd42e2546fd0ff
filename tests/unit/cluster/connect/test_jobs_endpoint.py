"""Tokens and doors: no cluster beyond this machine without a token, and no token for a server that did not ask."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.connect.address import connect, is_loopback, jobs_url
from cluster.connect.environment import JOB_CONFIG, prepare
from cluster.connect.tokens import find_token, make_token, read_token
from sweeps.errors import InputError

TOKEN = "a-token-for-this-test-alone"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of our own, and nothing of Ray in the environment."""
    for name in [n for n in os.environ if n.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "home"


class Board:
    """A stand-in for Ray's dashboard: three answers of its own, and a record of what it was asked with."""

    def __init__(self, mode: str | None, token: str = TOKEN) -> None:
        self.asked: list[tuple[str, str]] = []
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                sent = self.headers.get("Authorization", "")
                board.asked.append((self.path, sent))
                if self.path == "/api/authentication_mode" and mode is not None:
                    self.answer(200, {"authentication_mode": mode})
                elif self.path == "/api/version" and mode is not None:
                    right = mode == "disabled" or sent == f"Bearer {token}"
                    self.answer(200 if right else 403 if sent else 401, {"ray_version": "2.60.0"})
                else:
                    self.answer(404, {})

            def answer(self, status, data):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(data).encode())

            def log_message(self, *args):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def board() -> Iterator[Callable[[str | None], Board]]:
    made: list[Board] = []

    def make(mode: str | None) -> Board:
        made.append(Board(mode))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN)
    return path


def test_a_token_is_its_owners_alone_whatever_the_umask(tmp_path: Path):
    before = os.umask(0o000)
    try:
        path = make_token(tmp_path / "new" / "token")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_token(path)) == 64
    with pytest.raises(InputError, match="exists already"):
        make_token(path)


def test_a_token_is_not_written_through_a_link(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        make_token(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_token_that_others_can_read_is_refused(token_file: Path, mode: int):
    token_file.chmod(mode)
    with pytest.raises(InputError, match=f"mode {mode:04o}"):
        read_token(token_file)


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough", "gr\xfc\xdfe-aus-einer-datei"])
def test_what_is_no_token_is_refused_and_never_repeated(token_file: Path, text: str):
    token_file.write_text(text)
    with pytest.raises(InputError) as e:
        read_token(token_file)
    assert not text or text not in str(e.value)


def test_the_token_comes_from_where_one_would_look(monkeypatch: pytest.MonkeyPatch, home: Path, token_file: Path):
    assert find_token() is None
    mine = make_token(home / ".dipsweep" / "token")
    assert find_token() == read_token(mine)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token_file))
    assert find_token() == TOKEN
    monkeypatch.setenv("RAY_AUTH_TOKEN", "one-from-the-environment")
    assert find_token() == "one-from-the-environment"
    assert find_token(mine) == read_token(mine)


@pytest.mark.parametrize(
    ("came", "says"),
    [
        ("10.0.0.1:8265", "http://10.0.0.1:8265"),
        ("10.0.0.1:6379", "http://10.0.0.1:8265"),
        ("http://10.0.0.1:6379", "port of Ray itself"),
        ("ray://10.0.0.1:10001", "dashboard"),
        ("http://me:secret@10.0.0.1:8265", "ends up in logs"),
        ("http://10.0.0.1:99999", "port"),
        ("http://", "dashboard"),
    ],
)
def test_an_address_that_is_none_says_what_would_do(came: str, says: str):
    with pytest.raises(InputError) as e:
        jobs_url(came)
    assert says in str(e.value)
    assert "secret" not in str(e.value)


def test_what_loopback_is():
    assert all(
        is_loopback(a) for a in ("http://localhost:8265", "http://127.0.0.1:1", "http://[::1]:8265", "127.0.0.9:6379")
    )
    far = (
        "http://10.0.0.1:8265",
        "http://localhost.example.org",
        "http://127.0.0.1.nip.io:8265",
        "0.0.0.0:6379",
        "http://head:8265",
    )
    assert not any(is_loopback(a) for a in far)


def test_a_right_token_opens_the_door(board, token_file: Path):
    endpoint = connect(board("token").url + "/", token_file)
    assert endpoint.requires_token
    assert endpoint.ray == "2.60.0"
    assert TOKEN not in repr(endpoint)


def test_a_missing_and_a_wrong_token_are_told_apart(board, tmp_path: Path, token_file: Path):
    locked = board("token")
    with pytest.raises(InputError, match="wants a token"):
        connect(locked.url)
    token_file.write_text("another-token-of-some-length")
    with pytest.raises(InputError, match=r"refuses this token \(403\)"):
        connect(locked.url, token_file)


def test_an_open_cluster_on_this_machine_is_used_without_sending_a_token(board, token_file: Path):
    unlocked = board("disabled")
    assert connect(unlocked.url, token_file).headers == {}
    assert all(sent == "" for _, sent in unlocked.asked)


def test_a_server_that_is_no_ray_never_sees_the_token(board, token_file: Path):
    other = board(None)
    with pytest.raises(InputError, match="not as the dashboard"):
        connect(other.url, token_file)
    assert other.asked == [("/api/authentication_mode", "")]


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes loopback count as a machine elsewhere: a second host is for the tests with network namespaces."""
    monkeypatch.setattr("cluster.connect.address.is_loopback", lambda address: False)


def test_beyond_this_machine_nothing_is_sent_without_a_token(board, beyond: None):
    far = board("token")
    with pytest.raises(InputError, match="needs a token"):
        connect(far.url)
    assert far.asked == []


@pytest.mark.parametrize(
    ("given", "environment"), [("10.0.0.1:6379", ""), ("ray://10.0.0.1:10001", ""), (None, "10.0.0.1:6379")]
)
def test_ray_itself_beyond_this_machine_is_not_spoken_to_without_a_token(
    monkeypatch, given: str | None, environment: str
):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    if environment:
        os.environ["RAY_ADDRESS"] = environment
    with pytest.raises(InputError, match="needs a token"):
        prepare(given)
    os.environ[JOB_CONFIG] = "{}"
    if given is None:
        prepare()  # the driver of a job is where Ray has put it
    make_token(Path.home() / ".dipsweep" / "token")
    prepare(given)


def test_beyond_this_machine_an_open_cluster_is_refused(board, beyond: None, token_file: Path):
    far = board("disabled")
    with pytest.raises(InputError, match="runs the code of everybody"):
        connect(far.url, token_file)
    assert far.asked == [("/api/authentication_mode", "")]


def test_nobody_there_is_said_in_one_sentence():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match="nobody answers") as e:
            connect(f"http://127.0.0.1:{s.getsockname()[1]}")
    assert "\n" not in str(e.value)
