"""A driver joins a running Ray: it is let in with the right token, and else told in one sentence why not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.connect.address import check_ray
from cluster.connect.tokens import make_token
from sweeps import InputError
from tests.support.machines.heads import Head, clean_env, free_ports, head_node

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@contextmanager
def started(mode: str) -> Iterator[Head]:
    """A head of this test, with a token or open to everybody."""
    with (
        tempfile.TemporaryDirectory(prefix="dsj", dir="/tmp", ignore_cleanup_errors=True) as folder,
        head_node(Path(folder), mode=mode) as head,
    ):
        yield head


def join(address: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What a driver does first, as a process of its own."""
    program = (
        "from cluster.connect.environment import prepare; from cluster.launch import main_of\n"
        f"def join():\n"
        f"    prepare({address!r})\n"
        "    from cluster.connect.session import local_ray\n"
        f"    with local_ray(address={address!r}): print('in')\n"
        "main_of(join)"
    )
    return subprocess.run([sys.executable, "-c", program], env={**clean_env(), "HOME": str(home), **env},
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes loopback count as another machine."""
    monkeypatch.setattr("cluster.connect.address.is_loopback", lambda address: False)


def test_a_driver_is_let_in_with_the_token_of_the_cluster_and_with_no_other(elsewhere: None, tmp_path: Path):
    with started("token") as head:
        check_ray(head.address)
        wrong = join(
            head.address, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(make_token(tmp_path / "wrong"))
        )
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "does not let this driver in" in wrong.stderr
        make_token(tmp_path / ".dipsweep" / "token").write_bytes(head.token_file.read_bytes())
        right = join(head.address, tmp_path)
        assert (right.returncode, right.stdout) == (0, "in\n"), right.stderr


def test_a_cluster_elsewhere_that_lets_everybody_in_is_refused(elsewhere: None):
    with started("disabled") as head, pytest.raises(InputError, match="must ask for a token, and it lets everybody in"):
        check_ray(head.address)


def test_where_no_ray_answers_one_sentence_says_so(tmp_path: Path):
    (port,) = free_ports(1)
    nobody = join(f"127.0.0.1:{port}", tmp_path)
    assert nobody.returncode == 2
    assert "no Ray answers there" in nobody.stderr
    assert len(nobody.stderr.splitlines()) == 1
    with pytest.raises(InputError, match=r"dipsweep submit SWEEP --address http://10\.0\.0\.1:8265"):
        check_ray("ray://10.0.0.1:10001")
