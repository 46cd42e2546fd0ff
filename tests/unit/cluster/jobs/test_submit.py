"""Submitting: the same sweep is the same job, whoever submits it and however often. Against a stand-in for Ray's Jobs API."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import job_text as remote
from cluster.connect.address import JobsEndpoint
from cluster.jobs import entrypoint as driver
from cluster.jobs import submit as module
from cluster.jobs.client import Job, JobExists, Jobs
from cluster.jobs.interpreter import MARK
from cluster.jobs.probe_job import check_interpreter
from cluster.jobs.submit import describe, local_paths, storage_for, submit
from sweeps import Sweep
from sweeps.errors import DipsweepError, InputError, SpecError
from sweeps.journal.writer import SweepJournal
from sweeps.results import Results
from tests.support.rows import make_row

SWEEP = Sweep(name="tiers", space={"data": {"grid": ["answer-only", "verified-long-cot"]}})
URL = "http://10.1.1.1:8265"


class FakeJobs(Jobs):
    """A cluster's jobs in memory, with Ray's rule that an id is taken once and for ever."""

    def __init__(self) -> None:
        self.endpoint = JobsEndpoint(URL, {}, "2.60.0", True)
        self.jobs: dict[str, Job] = {}
        self.requests: list[dict[str, Any]] = []
        self.probed: list[str] = []

    def submit(self, job, entrypoint, runtime_env, metadata, **where):
        if job in self.jobs:
            raise JobExists(job)
        self.requests.append(
            {"job": job, "entrypoint": entrypoint, "runtime_env": runtime_env, "metadata": metadata, **where}
        )
        self.jobs[job] = Job(job, metadata["sweep"], "running", metadata=metadata, start_ms=len(self.jobs) + 1)

    def all(self) -> list[Job]:
        return list(self.jobs.values())

    def get(self, job: str) -> Job:
        return self.jobs[job]

    def becomes(self, job: str, **changes: Any) -> None:
        self.jobs[job] = replace(self.jobs[job], **changes)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    server = FakeJobs()
    monkeypatch.setattr(module.Jobs, "at", classmethod(lambda cls, address, token: server))
    monkeypatch.setattr(
        module, "check_interpreter", lambda jobs, python, environment, version: server.probed.append(python)
    )
    return server


def send(sweep: Sweep = SWEEP, **options: Any) -> Any:
    return submit(sweep, **{"address": URL, "storage": "s3://bucket/sweeps", **options})


def test_the_first_submit_names_the_job_by_the_sweeps_content(server: FakeJobs):
    done = send()
    assert (done.became, done.job, done.sweep) == ("submitted", SWEEP.id, SWEEP.id)
    (request,) = server.requests
    assert shlex.split(request["entrypoint"]) == [
        "python",
        "-m",
        "cluster.jobs.entrypoint",
        SWEEP.id,
        "--storage",
        "s3://bucket/sweeps",
    ]
    assert [Path(p).name for p in request["runtime_env"]["py_modules"]] == [
        "sweeps",
        "trainers",
        "evaluators",
        "cluster",
    ]
    assert request["runtime_env"]["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    assert {"sweep", "name", "trials", "user", "storage"} <= request["metadata"].keys()


def test_submitted_again_while_it_runs_it_is_the_same_job(server: FakeJobs):
    assert send().became == "submitted"
    assert send().became == "running"
    assert list(server.jobs) == [SWEEP.id]


def test_a_stopped_or_lost_sweep_goes_on_under_the_next_number_and_a_finished_one_does_not(server: FakeJobs):
    send()
    server.becomes(SWEEP.id, state="stopped")
    assert (send().job, send().became) == (f"{SWEEP.id}-r2", "running")
    server.becomes(f"{SWEEP.id}-r2", state="failed")
    resumed = send()
    assert (resumed.became, resumed.job) == ("resumed", f"{SWEEP.id}-r3")
    server.becomes(resumed.job, state="finished")
    assert (send().became, send().job) == ("finished", f"{SWEEP.id}-r3")
    assert send(again=True).job == f"{SWEEP.id}-r4"


def test_of_two_that_submit_at_the_same_moment_both_get_the_one_job(server: FakeJobs, monkeypatch: pytest.MonkeyPatch):
    really = server.submit

    def overtaken(job, *args, **kwargs):
        monkeypatch.setattr(server, "submit", really)
        really(job, *args, **kwargs)  # somebody else's, a moment before ours
        really(job, *args, **kwargs)

    monkeypatch.setattr(server, "submit", overtaken)
    assert (send().became, len(server.jobs)) == ("running", 1)


def test_a_running_sweep_is_not_moved_to_another_storage(server: FakeJobs):
    send()
    with pytest.raises(InputError, match=r"with storage s3://bucket/sweeps, not s3://other"):
        send(storage="s3://other/place")


def test_a_folder_of_this_machine_is_no_storage_for_a_cluster_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="folder of this machine"):
        storage_for("./runs", URL)
    assert storage_for("./runs", "http://127.0.0.1:8265") == str(tmp_path / "runs")
    assert storage_for("/shared/runs", URL) == "/shared/runs"
    assert storage_for("s3://bucket/x", URL) == "s3://bucket/x"


@pytest.mark.parametrize("storage", ["/tmp/$(touch owned)", "/tmp/a b; rm -rf c", "/tmp/'quoted' `x`"])
def test_nothing_a_user_wrote_is_read_by_the_clusters_shell(server: FakeJobs, storage: str):
    send(storage=storage)
    assert shlex.split(server.requests[0]["entrypoint"])[-1] == storage
    assert len(shlex.split(server.requests[0]["entrypoint"])) == 6


def test_a_secret_in_the_sweep_is_refused_before_anything_is_sent(server: FakeJobs):
    with pytest.raises(SpecError, match="keyed URL"):
        send(storage="s3://bucket/x?secret_key=abc")
    assert server.jobs == {}


def test_where_the_driver_may_sit_reaches_ray(server: FakeJobs):
    send(driver_labels={"market": "on-demand"}, driver_resources={"head": 0.01})
    assert server.requests[0]["entrypoint_label_selector"] == {"market": "on-demand"}
    assert server.requests[0]["entrypoint_resources"] == {"head": 0.01}


def test_the_nodes_own_dipsweep_is_used_when_asked(server: FakeJobs):
    send(installed=True)
    assert "py_modules" not in server.requests[0]["runtime_env"]


def test_paths_that_every_node_must_see_are_named():
    sweep = Sweep(name="own", models={"m": {"path": "/models/m"}}, tiers={"t": {"path": "/data/t.jsonl"}},
                  space={"model": {"grid": ["m"]}, "data": {"grid": ["t", "answer-only"]}})  # fmt: skip
    assert dict(local_paths(sweep)) == {"models.m.path": "/models/m", "tiers.t.path": "/data/t.jsonl"}


def test_the_driver_starts_from_what_came_with_the_job(monkeypatch: pytest.MonkeyPatch):
    config = {"metadata": describe(SWEEP, "s3://bucket/x")}
    monkeypatch.setenv(driver.JOB_CONFIG, json.dumps(config))
    assert driver.sent_sweep(SWEEP.id) == SWEEP
    with pytest.raises(InputError, match="different versions"):
        driver.sent_sweep("tiers-00000000")
    monkeypatch.delenv(driver.JOB_CONFIG)
    with pytest.raises(InputError, match="came without a sweep"):
        driver.sent_sweep(SWEEP.id)


def test_a_sweep_is_found_by_id_name_or_job_and_a_near_miss_is_named(server: FakeJobs):
    send()
    other = send(Sweep(name="others"))
    assert server.find("tiers").sweep == server.find(SWEEP.id).sweep == SWEEP.id
    server.becomes(SWEEP.id, state="failed")
    send()
    assert server.find(SWEEP.id).id == f"{SWEEP.id}-r2"
    with pytest.raises(InputError, match=f"did you mean '{other.sweep}'"):
        server.find(f"{other.sweep}0")


def test_an_exit_code_is_said_in_words():
    job = Job("a", "a", "failed", exit_code=3)
    assert "limits" in remote.state(job)
    assert "lost with its node" in remote.state(replace(job, exit_code=None))
    assert "--python" in remote.state(replace(job, exit_code=127))


@pytest.mark.parametrize(("state", "code"), [("stopped", None), ("failed", None), ("failed", 1), ("failed", 3)])
def test_a_sweep_that_ended_goes_on_where_it_was_kept_or_not_at_all(server: FakeJobs, state: str, code: int | None):
    send()
    server.becomes(SWEEP.id, state=state, exit_code=code)
    with pytest.raises(
        InputError, match=r"s3://bucket/sweeps, not s3://other/place.*--storage s3://bucket/sweeps.*name"
    ):
        send(storage="s3://other/place")
    assert len(server.jobs) == 1
    assert send(storage="s3://bucket/sweeps/").became == "resumed"  # the same place


def test_a_finished_sweep_that_is_to_go_on_is_not_moved_either(server: FakeJobs):
    send()
    server.becomes(SWEEP.id, state="finished", exit_code=0)
    assert (
        send(storage="s3://other/place").storage == "s3://bucket/sweeps"
    )  # nothing is started, and it is said where it lies
    with pytest.raises(InputError, match="its checkpoints are in s3://bucket/sweeps"):
        send(storage="s3://other/place", again=True)


@pytest.mark.parametrize("code", [2, 127])
def test_a_run_that_never_started_holds_no_sweep_to_its_storage(server: FakeJobs, code: int):
    send(storage="s3://typo/sweeps")
    server.becomes(SWEEP.id, state="failed", exit_code=code)
    assert (send().became, send().job) == ("submitted", f"{SWEEP.id}-r2")
    server.becomes(f"{SWEEP.id}-r2", state="stopped")
    server.jobs[f"{SWEEP.id}-r3"] = Job(
        f"{SWEEP.id}-r3", SWEEP.id, "failed", exit_code=code, metadata={"storage": "s3://typo/x"}
    )
    with pytest.raises(InputError, match="its checkpoints are in s3://bucket/sweeps"):
        send(storage="s3://typo/x")
    assert send().became == "resumed"


def test_what_goes_on_after_a_stop_is_said_as_a_command_that_finds_the_sweep(
    server: FakeJobs, monkeypatch: pytest.MonkeyPatch
):
    send()
    monkeypatch.setattr(server, "stop", lambda job: None, raising=False)
    assert remote.stop(server, SWEEP.id).endswith(f"dipsweep resume {SWEEP.id} --address {URL} goes on")


def test_the_interpreter_is_probed_before_anything_is_submitted_and_remembered(server: FakeJobs):
    send(python="/opt/env/bin/python", installed=True)
    server.becomes(SWEEP.id, state="stopped")
    again = send()
    assert again.became == "resumed"
    assert again.installed
    assert server.probed == ["/opt/env/bin/python"] * 2
    assert [shlex.split(r["entrypoint"])[0] for r in server.requests] == ["/opt/env/bin/python"] * 2
    assert "py_modules" not in server.requests[-1]["runtime_env"]
    server.becomes(again.job, state="failed")
    assert not send(python="python3.12", installed=False).installed
    assert server.probed[-1] == "python3.12"


def test_what_the_probe_refuses_is_not_submitted(server: FakeJobs, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any) -> None:
        raise InputError("lacks torch")

    monkeypatch.setattr(module, "check_interpreter", refuse)
    with pytest.raises(InputError, match="lacks torch"):
        send()
    assert server.requests == []


class Node(Jobs):
    """A cluster whose probe jobs end at once, with a log."""

    def __init__(self, log: str, exit_code: int = 0) -> None:
        self.endpoint = JobsEndpoint(URL, {}, "2.60.0", True)
        self.text, self.exit_code, self.ran = log, exit_code, list[str]()

    def submit(self, job, entrypoint, runtime_env, metadata, **where):
        self.ran.append(entrypoint)

    def get(self, job: str) -> Job:
        return Job(job, "", "finished" if not self.exit_code else "failed", exit_code=self.exit_code)

    def log(self, job: str) -> str:
        return self.text

    def delete(self, job: str) -> None:
        self.ran.append("deleted")


def answer(**found: Any) -> str:
    return (
        "noise\n"
        + MARK
        + json.dumps({"python": "3.11.9", "missing": [], "refused": "", "dipsweep": "0.1.0", **found})
        + "\n"
    )


@pytest.mark.parametrize(
    ("log", "code", "environment", "says"),
    [
        ("sh: nopython: not found", 127, {"py_modules": []}, "was not found on the cluster; give --python"),
        ("ModuleNotFoundError: No module named 'pydantic'", 1, {"py_modules": []}, "lacks pydantic"),
        (answer(missing=["torch", "ray"]), 0, {"py_modules": []}, "lacks torch, ray"),
        (answer(refused="Version mismatch"), 0, {"py_modules": []}, "cannot join the cluster: Version mismatch"),
        (answer(dipsweep="0.0.9"), 0, {}, "has dipsweep 0.0.9 installed, and this is 0.1.0"),
        (answer(dipsweep=""), 0, {}, r"has dipsweep \(none\) installed"),
    ],
)
def test_an_interpreter_that_cannot_run_the_sweep_is_refused_with_what_would_do(log, code, environment, says: str):
    with pytest.raises(InputError, match=says + ".*nothing was submitted"):
        check_interpreter(Node(log, code), "python", environment, "0.1.0")


def test_an_interpreter_that_can_leaves_no_job_behind():
    node = Node(answer(dipsweep=""))
    check_interpreter(node, "/opt/my env/python", {"py_modules": []}, "0.1.0")
    assert node.ran == ["'/opt/my env/python' -m cluster.jobs.interpreter", "deleted"]


class SlowNode(Node):
    """A cluster that has no room for the probe, or a user who does not wait for it."""

    interrupted = False

    def get(self, job: str) -> Job:
        if self.interrupted:
            raise KeyboardInterrupt
        return Job(job, "", "pending", "Job has not started yet. ")

    def stop(self, job: str) -> bool:
        self.ran.append("stopped")
        return True


def test_a_cluster_without_room_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cluster.jobs.probe_job.WAIT_S", 0.0)
    node = SlowNode("")
    with pytest.raises(InputError, match=r"no answer in 0 s .Job has not started yet.*nothing was submitted"):
        check_interpreter(node, "python", {"py_modules": []}, "0.1.0")
    assert node.ran[-1] == "stopped"


def test_ctrl_c_leaves_no_probe_behind():
    node = SlowNode("")
    node.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        check_interpreter(node, "python", {"py_modules": []}, "0.1.0")
    assert node.ran[-1] == "stopped"


def test_waiting_gives_the_results_that_run_would_have_given(server: FakeJobs, tmp_path: Path):
    with SweepJournal(tmp_path / SWEEP.id) as log:
        log.append(make_row("sweep", SWEEP.id, extra={"name": "tiers", "spec": SWEEP.to_json(), "trials": 2}))
    sent = send(storage=str(tmp_path), token_file=tmp_path / "token")
    server.sleep = lambda seconds: server.becomes(SWEEP.id, state="finished")
    results = sent.wait()
    assert (type(results), results.id) == (Results, SWEEP.id)
    assert sent.token_file == tmp_path / "token"


@pytest.mark.parametrize(("code", "said"), [(1, "exit code 1"), (None, "its node was lost")])
def test_waiting_for_a_job_that_fails_says_where_the_reason_stands(server: FakeJobs, code: int | None, said: str):
    sent = send()
    server.becomes(SWEEP.id, state="failed", exit_code=code)
    with pytest.raises(DipsweepError, match=f"{said}.*dipsweep logs {SWEEP.id} --address {URL}"):
        sent.wait()
