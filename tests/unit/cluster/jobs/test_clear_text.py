"""What goes with a job is shown by Ray to everybody: nothing that looks like a secret passes."""

from __future__ import annotations

import pytest

from cluster.jobs.secrets import refuse_secrets
from sweeps import Sweep
from sweeps.errors import SpecError

AWS = "AKIA" + "IOSFODNN7EXAMPLE"  # in two parts, so that no scanner takes this file for a leak


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"env_vars": {"AWS_SECRET_ACCESS_KEY": "x"}}, "job.env_vars.AWS_SECRET_ACCESS_KEY"),
        ({"env_vars": {"HF_TOKEN": "x"}}, "job.env_vars.HF_TOKEN"),
        ({"metadata": {"api-key": "x"}}, "job.metadata.api-key"),
        ({"metadata": {"note": f"use {AWS}"}}, "job.metadata.note"),
        ({"storage": "s3://key:word@bucket/x"}, "job.storage"),
        ({"storage": "s3://key:wo/rd+1@bucket/x"}, "job.storage"),
        ({"storage": "s3://bucket/x?secret_key=abc"}, "job.storage"),
        ({"entrypoint": ["run", "hf_" + "a" * 30]}, "job.entrypoint[1]"),
        ({"tiers": {"sk-" + "b" * 24: {"path": "builtin"}}}, "job.tiers: the name of an entry"),
    ],
)
def test_a_secret_is_refused_with_its_place_and_without_its_value(data, place: str):
    with pytest.raises(SpecError) as e:
        refuse_secrets("job", data)
    (fault,) = e.value.faults
    assert fault.where == place
    assert "instance role" in fault.message
    assert AWS not in str(e.value)
    assert "key:word" not in str(e.value)


def test_every_secret_is_named_at_once():
    with pytest.raises(SpecError) as e:
        refuse_secrets("job", {"password": "a", "deep": [{"token": "b"}]})
    assert [f.where for f in e.value.faults] == ["job.password", "job.deep[0].token"]


def test_an_ordinary_sweep_holds_no_secret_although_it_counts_tokens():
    sweep = Sweep(
        name="tokens-and-keys",
        tiers={"long-token-cot": {"path": "s3://bucket/tokens.parquet", "columns": {"messages": "messages"}}},
        space={"data": {"grid": ["long-token-cot"]}, "batch_tokens": {"grid": [1024, 2048]}},
        storage="s3://bucket/sweeps",
    )
    refuse_secrets("sweep", sweep.to_json())
