"""Looking at a cluster sends it a job, and Ray shows a job's command line to everybody who may look at its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.doctor import cluster as module
from cluster.doctor.cluster import examine
from cluster.jobs.probe_job import why_no_answer
from sweeps.errors import SpecError


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        ("s3://KEY:SECRET@bucket/sweeps", "a name and password"),
        ("s3://AKIAABCDEFGHIJKLMNOP@bucket/sweeps", "an AWS access key"),
        ("s3://bucket/sweeps?secret_key=SECRET", "keyed URL"),
    ],
)
def test_doctor_refuses_a_storage_with_credentials_before_it_talks_to_the_cluster(
    monkeypatch: pytest.MonkeyPatch, storage: str, says: str
):
    def reached(address: str, token: Path | None) -> None:
        pytest.fail("the cluster was talked to")

    monkeypatch.setattr(module.Jobs, "at", reached)
    with pytest.raises(SpecError, match=rf"doctor\.--storage: holds .*{says}.*put it on the nodes") as refused:
        examine("http://10.1.1.1:8265", None, storage)
    assert "SECRET" not in str(refused.value)  # and does not repeat it


@pytest.mark.parametrize(
    ("code", "log", "says"),
    [
        (127, "sh: pyhton: not found", "'pyhton' was not found on the cluster; give --python"),
        (1, "Traceback …\nModuleNotFoundError: No module named 'ray'", "lacks ray: install dipsweep's dependencies"),
        (1, "Killed", "it failed: Killed"),
    ],
)
def test_a_probe_that_brings_nothing_back_says_why_in_one_line(code: int, log: str, says: str):
    why = why_no_answer("pyhton", code, log)
    assert says in why
    assert "\n" not in why
