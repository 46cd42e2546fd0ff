"""A cluster of two hosts, steered from a third: tokens everywhere, submit, watch, stop, the head lost, resume."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cluster.connect.tokens import make_token
from sweeps.journal.history import History
from sweeps.journal.writer import is_sweep, read_rows
from tests.support.machines.heads import clean_env
from tests.support.machines.hosts import Host, hosts, why_not
from tests.support.machines.processes import TRAINING

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(1800)]
REPO = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMMON = ["--block", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
SWEEP = """
name: hosts
space: {data: {grid: [answer-only, verified-long-cot]}}
trainer: {steps: 1000, learning_rate: 3.0e-3, batch_tokens: 256, max_length: 128}
evaluation: {items: 2, at: {every: 100}}
limits: {retries: 5}
"""


@dataclass
class Town:
    """Host `a` is a user's laptop; `b` the cluster's head, `c` its worker. All see one folder."""

    a: Host
    b: Host
    c: Host
    folder: Path

    @property
    def url(self) -> str:
        return f"http://{self.b.address}:8265"

    @property
    def storage(self) -> Path:
        return self.folder / "sweeps"

    def env(self, token: str | None = "token") -> dict[str, str]:
        """The environment of a process; `token` names the file of its token, None for a process that has none."""
        env = {**clean_env(), "HOME": str(self.folder / "home"), "PATH": f"{BIN}:{os.environ['PATH']}", "NO_PROXY": "*"}
        if token:
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / token)}
        return env

    def boot(self, generation: int) -> None:
        """Starts the head on b and the worker on c; both hold one CPU, so a sweep of two trials needs both."""
        temp = self.folder / f"r{generation}"
        self.b.machine([str(BIN / "ray"), "start", "--head", "--port=6379", f"--node-ip-address={self.b.address}",
                        "--dashboard-host=0.0.0.0", "--dashboard-port=8265", "--metrics-export-port=8480",
                        "--labels=market=on-demand", f"--temp-dir={temp}", *COMMON],
                       self.env(), self.folder / "b.log")  # fmt: skip
        self.until(lambda: len(self.nodes()) == 1, 300)  # a worker that comes before the head has joined gives up
        self.join()

    def join(self) -> None:
        """Starts the worker on c."""
        self.c.machine([str(BIN / "ray"), "start", f"--address={self.b.address}:6379", f"--node-ip-address={self.c.address}",
                        *COMMON], self.env(), self.folder / "c.log")  # fmt: skip
        self.until(lambda: len(self.nodes()) == 2, 300)

    def nodes(self) -> list[str]:
        """Returns the addresses of the cluster's living nodes, by the head's own account."""
        code = ("import json, sys, urllib.request as u; t = open(sys.argv[2]).read(); "
                "r = u.Request(sys.argv[1] + '/api/v0/nodes', headers={'Authorization': 'Bearer ' + t}); "
                "print(u.urlopen(r, timeout=10).read().decode())")  # fmt: skip
        out = self.a.run(
            [sys.executable, "-c", code, self.url, str(self.folder / "token")], self.env(), cwd=self.folder
        )
        if out.returncode:
            return []
        return [n["node_ip"] for n in json.loads(out.stdout)["data"]["result"]["result"] if n["state"] == "ALIVE"]

    def ask(self, *words: str, token: str | None = "token"):
        """Runs dipsweep on the laptop."""
        return self.a.run([str(BIN / "dipsweep"), *words], self.env(token), cwd=self.folder)

    def submit(self, file: str) -> dict[str, str]:
        """Submits a sweep from the laptop; its driver goes where machines are not taken away."""
        out = self.ask("submit", file, "--address", self.url, "--storage", str(self.storage),
                       "--driver-on", "market=on-demand", "--json")  # fmt: skip
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout)

    def states(self, sweep: str) -> dict[str, str]:
        home = self.storage / sweep
        return {c.trial: c.state for c in History(read_rows(home)).trials()} if is_sweep(home) else {}

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "b.log").read_text()[-2000:]
            time.sleep(0.5)


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    if reason := why_not():
        pytest.skip(reason)
    with TemporaryDirectory(prefix="dsh", dir="/tmp", ignore_cleanup_errors=True) as folder, hosts(3) as (a, b, c):
        town = Town(a, b, c, Path(folder))
        (town.folder / "home").mkdir()
        make_token(town.folder / "token")
        make_token(town.folder / "wrong")
        (town.folder / "readable").touch(0o644)
        (town.folder / "readable").write_text((town.folder / "token").read_text())
        (town.folder / "sweep.yaml").write_text(SWEEP)
        town.boot(1)
        yield town


PATHS = [
    ("GET", "/api/version"), ("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/api/jobs/x"), ("DELETE", "/api/jobs/x"),
    ("POST", "/api/jobs/x/stop"), ("GET", "/api/jobs/x/logs"), ("PUT", "/api/packages/gcs/x.zip"), ("GET", "/nodes?view=summary"),
    ("GET", "/api/v0/actors"), ("GET", "/api/v0/logs"), ("GET", "/logical/actors"), ("GET", "/api/cluster_status"),
    ("GET", "/api/train/v2/runs/v1"), ("GET", "/api/actors/kill"), ("GET", "/worker/traceback"), ("GET", "/log_proxy"),
]  # fmt: skip
TABLE = """
import http.client, json, sys
host, token, paths = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
out = {}
for method, path in paths:
    door = http.client.HTTPConnection(host, 8265, timeout=20)
    door.request(method, path, headers={"Authorization": "Bearer " + token} if token else {})
    out[method + " " + path] = door.getresponse().status
print(json.dumps(out))
"""


@pytest.mark.parametrize(("token", "code"), [("", 401), ("a-token-that-is-not-theirs", 403)])
def test_every_path_of_the_head_refuses_a_missing_and_a_wrong_token(town: Town, token: str, code: int):
    out = town.a.run([sys.executable, "-c", TABLE, town.b.address, token, json.dumps(PATHS)], town.env(None), cwd=REPO)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == {f"{method} {path}": code for method, path in PATHS}


@pytest.mark.parametrize(
    ("token", "says"),
    [(None, "needs a token"), ("wrong", "refuses this token (403)"), ("readable", "can be read by others (mode 0644)")],
)
@pytest.mark.parametrize("command", ["submit", "list", "status", "logs", "stop", "resume", "watch", "pause", "doctor"])
def test_every_command_ends_with_2_and_one_sentence(town: Town, command: str, token: str | None, says: str):
    at = ["--storage", str(town.storage)]
    subject = {"submit": ["sweep.yaml", *at], "list": [], "doctor": at}.get(command, ["hosts"])
    out = town.ask(command, *subject, "--address", town.url, token=token)
    assert (out.returncode, out.stdout) == (2, "")
    assert says in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("token", [None, "wrong"])
def test_rays_own_door_is_shut_too(town: Town, token: str | None):
    code = f"import ray; ray.init(address='{town.b.address}:6379', log_to_driver=False)"
    out = town.a.run([sys.executable, "-c", code], town.env(token), cwd=town.folder)
    assert out.returncode != 0
    assert "auth" in out.stderr.lower()


def test_a_run_from_here_does_not_speak_to_a_cluster_beyond_this_machine_without_a_token(town: Town):
    out = town.ask(
        "run", "sweep.yaml", "--address", f"{town.b.address}:6379", "--storage", str(town.storage), token=None
    )
    assert out.returncode == 2, out.stderr
    assert "needs a token" in out.stderr


def test_the_doctor_sees_both_hosts(town: Town):
    town.storage.mkdir(exist_ok=True)
    out = town.ask("doctor", "--address", town.url, "--storage", str(town.storage), "--json")
    found = {f["what"]: f for f in json.loads(out.stdout)}
    assert out.returncode == 0, found
    assert {name.split()[1] for name in found if name.startswith("node ")} == {town.b.address, town.c.address}
    assert found["storage: put"]["state"] == "ok"
    assert "not encrypted" in found["way there"]["detail"]


def test_submitted_watched_stopped_and_resumed_after_the_head_was_lost(town: Town):
    sent = town.submit("sweep.yaml")
    sweep = sent["sweep"]
    assert sent["became"] == "submitted"
    town.until(lambda: list(town.states(sweep).values()).count("running") == 2, 400)  # one trial on each host
    assert town.submit("sweep.yaml")["became"] == "running"

    town.until(lambda: saved(town, sweep) >= 2, 400)
    stopped = town.ask("stop", sweep, "--address", town.url)
    assert stopped.returncode == 0, stopped.stderr
    town.until(lambda: job(town, sweep)["state"] == "stopped", 200)
    assert set(town.states(sweep).values()) <= {"running", "waiting"}  # open: they go on
    kept = saved(town, sweep)

    town.b.crash()
    town.c.crash()
    town.boot(2)
    forgotten = town.ask("resume", sweep, "--address", town.url)
    assert forgotten.returncode == 2
    assert "give --storage" in forgotten.stderr
    resumed = town.ask("resume", sweep, "--address", town.url, "--storage", str(town.storage))
    assert resumed.returncode == 0, resumed.stderr
    # The journal is cheaper to ask than the cluster.
    town.until(lambda: set(town.states(sweep).values()) == {"completed"}, 600)
    town.until(lambda: job(town, sweep)["state"] == "finished", 100)
    rows = read_rows(town.storage / sweep)
    assert set(town.states(sweep).values()) == {"completed"}
    second = {r.trial: r.step for r in rows if r.kind == "attempt" and r.attempt == 2}
    assert len(second) == 2
    assert sum(step or 0 for step in second.values()) >= kept - 2 * 100  # nothing saved was run again
    seen = town.ask("watch", sweep, "--storage", str(town.storage))
    assert seen.stdout.count("completed at step 1000") == 2
    assert "2 of 2 trials ended" in town.ask("list", "--address", town.url).stdout


def test_a_host_that_is_cut_off_commits_nothing_more_and_its_trial_goes_on_elsewhere(town: Town):
    """Its processes live on, and they see the storage all the time, as over a network of its own."""
    (town.folder / "cut.yaml").write_text(SWEEP.replace("name: hosts", "name: cut"))
    sweep = town.submit("cut.yaml")["sweep"]
    home = town.storage / sweep
    town.until(lambda: is_sweep(home) and len(committed(town, sweep)) == 2, 400)  # one trial on each host
    town.c.cut()
    zombies = trainers(town.c)
    assert zombies
    town.until(lambda: any(again(town, sweep)), 300)
    assert zombies == trainers(town.c)  # given up by everybody, and still there

    town.c.heal()
    town.until(lambda: set(town.states(sweep).values()) == {"completed"}, 600)
    town.until(lambda: not trainers(town.c), 300)  # they stop themselves
    rows = read_rows(home)
    (moved,) = {r.trial for r in rows if r.kind == "attempt" and r.attempt == 2}
    second = next(r for r in rows if r.trial == moved and r.attempt == 2)
    assert second.step  # from what the first attempt had saved
    rows = [r for r in rows if not getattr(r, "dropped", False)]  # a checkpoint that nobody needs any more
    late = [r for r in rows if r.trial == moved and r.attempt == 1 and r.seq > second.seq]
    trained = [r for r in late if r.kind in ("report", "commit", "end") and not r.suite]
    assert trained == []  # late scores of what it had saved in time are welcome
    assert all(r.step <= second.step for r in late if r.suite)
    steps = [r.step for r in rows if r.trial == moved and r.kind == "commit"]
    assert steps == sorted(set(steps))  # no checkpoint of a later step by the wrong one, none twice
    town.c.crash()
    town.join()


def test_a_machine_that_is_told_to_end_lets_its_trial_save_and_go_on_elsewhere(town: Town):
    spot = SWEEP.replace("name: hosts", "name: spot").replace("retries: 5", "retries: 0")
    (town.folder / "spot.yaml").write_text(spot)
    sweep = town.submit("spot.yaml")["sweep"]
    town.until(lambda: is_sweep(town.storage / sweep) and len(reporting(town, sweep)) == 2, 400)  # one on each host
    town.c.shut_down()
    town.until(lambda: set(town.states(sweep).values()) == {"completed"}, 600)
    rows = read_rows(town.storage / sweep)
    assert [r.reason for r in rows if r.kind == "control" and r.action == "retry"] == ["preempted"]
    assert [r.step for r in rows if r.kind == "attempt" and r.attempt == 2] > [0]  # from what it saved


def trainers(host: Host) -> set[int]:
    """Returns the processes of a host that train."""
    out = set()
    for pid in host.pids():
        with contextlib.suppress(OSError):
            if re.search(TRAINING, Path(f"/proc/{pid}/cmdline").read_text()):
                out.add(pid)
    return out


def again(town: Town, sweep: str) -> list[str]:
    """Returns the trials that were given up on their machine and are to run again."""
    rows = read_rows(town.storage / sweep)
    return [r.trial for r in rows if r.kind == "control" and r.action == "retry"]


def committed(town: Town, sweep: str) -> set[str]:
    """Returns the trials that have saved a checkpoint."""
    return {r.trial for r in read_rows(town.storage / sweep) if r.kind == "commit" and r.step}


def reporting(town: Town, sweep: str) -> set[str]:
    """Returns the trials that have made steps."""
    return {
        r.trial for r in read_rows(town.storage / sweep) if r.kind == "report" and r.step and r.trial.startswith("t-")
    }


def saved(town: Town, sweep: str) -> int:
    """Returns the sum of the last saved steps of all trials."""
    last: dict[str, int] = {}
    for row in read_rows(town.storage / sweep):
        if row.kind == "commit" and row.step is not None:
            last[row.trial] = max(row.step, last.get(row.trial, 0))
    return sum(last.values())


def job(town: Town, sweep: str) -> dict[str, object]:
    """Returns a sweep's job as `list --json` gives it."""
    found = json.loads(town.ask("list", "--address", town.url, "--json").stdout)
    return next(j for j in found if j["sweep"] == sweep)
