"""What goes with a job is shown by Ray to everybody: nothing that looks like a secret passes."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from cluster.jobs.secrets import refuse_secrets
from sweeps import Sweep
from sweeps.errors import SpecError

EXAMPLES = Path(__file__).parents[4] / "examples"
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


TOKENS = {  # in parts, so that no scanner takes this file for a leak
    "GitLab": "glpat" + "-a1B2c3D4e5F6g7H8i9J0",
    "Slack": "xoxb" + "-123456789012-123456789012-abcdefghijklmnopqrstuvwx",
    "Google": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "npm": "npm" + "_a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8",
    "PyPI": "pypi" + "-AgEIcHlwaS5vcmcCJDAwMDAwMDAwLTAwMDAtMDAwMC0wMDAwLTAwMDAwMDAwMDAwMAAC" + "x" * 60,
    "JWT": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    "bearer": "Authorization: " + "Bearer abcdefghijklmnop1234567890",
    "address": "https://" + "0123456789abcdef0123@host.example/x",
    "GitHub": "ghp" + "_a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8",
}


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("form", ["plain", "base64", "in a sentence"])
def test_tokens_of_many_kinds_are_seen_also_in_base64(kind: str, form: str):
    token = TOKENS[kind]
    text = {"plain": token, "base64": base64.b64encode(token.encode()).decode(), "in a sentence": f"use {token} there"}[
        form
    ]
    with pytest.raises(SpecError) as e:
        refuse_secrets("job", {"note": text})
    assert token not in str(e.value)


@pytest.mark.parametrize("value", [["a", "b"], {"first": "a"}, [{"deep": ["a"]}]])
def test_whatever_stands_under_a_secrets_name_is_one(value):
    with pytest.raises(SpecError, match=r"job\.api_keys: is named like a secret"):
        refuse_secrets("job", {"api_keys": value})


@pytest.mark.parametrize("value", [[], {}, None, 4096, "", [1, 2]])
def test_a_name_without_text_under_it_is_none(value):
    refuse_secrets("job", {"api_keys": value})


@pytest.mark.parametrize("file", sorted(p.name for p in EXAMPLES.glob("*.yaml")))
def test_none_of_the_examples_is_taken_for_a_secret(file: str):
    refuse_secrets("sweep", yaml.safe_load((EXAMPLES / file).read_text()))
    refuse_secrets("sweep", {"text": (EXAMPLES / file).read_text(), "digest": "sha256:" + "0123456789abcdef" * 4})
