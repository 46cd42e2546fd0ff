"""Whatever stands in a sweep file: a sweep comes out, or faults that say where, within a second or so; never anything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeps import Sweep
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep as Schema
from sweeps.config.schema import block_fields
from sweeps.config.sweep_file.yaml import load, loads, value_of
from sweeps.errors import Fault, InputError, SpecError

BLOCKS = ("search", "objective", "stopping", "trainer", "evaluation", "limits")
WORDS = (
    "x", "", "log", "builtin", "tiny-s", "answer-only", "cosine", "dip-aware", "random", "transfer/score", "s3://b",
    "~nobody/x", "../up", "a\x00b", "\ud800", "١٢", "null", "on", "1e-4", "@8", "9" * 5000,
)  # fmt: skip
KEYS = (
    "grid",
    "choice",
    "uniform",
    "loguniform",
    "randint",
    "every",
    "path",
    "workers",
    "columns",
    "metric",
    "at_least",
    "lerning_rate",
    "",
)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(WORDS),
    st.sampled_from([0, -1, 2**31, 10**18, 10**40, 10**400, 1e308, 5e-324]),
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
axes = st.dictionaries(st.sampled_from(KEYS[:5]), st.lists(scalars, max_size=3) | trees, max_size=2) | trees


def block(name: str) -> st.SearchStrategy[Any]:
    fields = st.sampled_from(sorted(block_fields((name,))))
    return st.dictionaries(fields, trees, max_size=3) | trees


@st.composite
def sweeps_gone_wrong(draw: st.DrawFn) -> dict[str, Any]:
    """A sweep's own words in places of its schema, with values that nobody would write."""
    data: dict[str, Any] = {"name": "x"}
    for name in draw(st.sets(st.sampled_from(BLOCKS), max_size=3)):
        data[name] = draw(block(name))
    if draw(st.booleans()):
        names = st.sampled_from([*block_fields(("trainer",)), "model", "data", "seed", "nonsense"])
        data["space"] = draw(st.dictionaries(names, axes, max_size=3) | trees)
    for name in draw(st.sets(st.sampled_from([*Schema.model_fields, "spcae"]), max_size=2)):
        data.setdefault(name, draw(trees))
    return data


def answer(text: str) -> Sweep | None:
    """Reads a sweep; None when it was refused, by one fault or more that each say where."""
    try:
        return loads(text)
    except InputError as e:
        refusal = e
    told = refusal.faults if isinstance(refusal, SpecError) else [Fault(str(refusal), "refused")]
    assert told
    for fault in told:
        assert fault.where.startswith("sweep.yaml:"), fault
        assert int(fault.where.split(":")[1].split()[0]) <= text.count("\n") + 2, fault
        assert fault.message
    return None


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text(alphabet="ab:-[]{},&*!|>%@`'\"#?~<=\\ \n\t0.", max_size=60))
@example("\x07")
@example("name: \x00")
@example('name: "\\UFFFFFFFF"')
@example("a: &a [*a]\nname: *a")
@example("? {? [a]}\n: 1")
@example("name: !!bool maybe")
@example("<<: {name: x}")
@example("name: x\ntrainer: {steps: 1000000000}\nevaluation: {at: {every: 1}}")
def test_any_text_is_a_sweep_or_is_refused_with_a_place(text: str):
    answer(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xfen\x00a\x00")
@example(b"\xef\xbb\xbfname: x\r\n")
def test_any_bytes_in_a_file_are_a_sweep_or_are_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes):
    path = tmp_path_factory.getbasetemp() / "sweep.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(InputError):  # anything else is a finding
        load(path)


@settings(max_examples=80, deadline=None)
@given(sweeps_gone_wrong(), st.booleans())
@example({"name": "x", "search": {"algorithm": "random"}, "space": {"learning_rate": {"uniform": [1, 10**400]}}}, True)
@example({"name": "x", "trainer": {"steps": 10**40}}, True)
@example({"name": "x", "models": {"a": {"path": "~nobody/x"}}}, True)
@example({"name": "x", "evaluation": {"test_time": ["@99999999999999"]}}, True)
def test_any_structure_is_a_sweep_that_can_be_planned_or_is_refused_with_a_place(data: dict[str, Any], as_json: bool):
    text = json.dumps(data) if as_json else yaml.safe_dump(data, allow_unicode=True)
    sweep = answer(text)
    if sweep is not None:
        assert loads(json.dumps(sweep.to_json())).id == sweep.id
        if Plan(sweep).total <= 100:
            Plan(sweep).known_trials()


@settings(max_examples=100, deadline=None)
@given(sweeps_gone_wrong())
def test_in_python_any_structure_is_a_sweep_or_a_spec_error(data: Mapping[str, Any]):
    with contextlib.suppress(SpecError):
        Sweep(**data)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | st.sampled_from(WORDS))
def test_any_value_of_the_command_line_is_a_plain_value_or_refused(text: str):
    try:
        value = value_of(text)
    except InputError:
        return
    assert value is None or isinstance(value, str | int | float | bool)


BIG = 300_000
LARGE: dict[str, str] = {
    "one word": "name: " + "x" * BIG,
    "open brackets": "[" * BIG,
    "empty lists": "name: [" + "[]," * (BIG // 3) + "]",
    "dashes": "-\n" * (BIG // 2),
    "keys": "".join(f"k{i}: 1\n" for i in range(BIG // 11)),
    "typos of one block": "name: x\ntrainer:\n" + "".join(f"  lr{i}: 1\n" for i in range(4000)),
    "wrong words of a grid": "name: x\nspace: {data: {grid: [" + ",".join(f"w{i}" for i in range(9000)) + "]}}",
    "three grids": "name: x\nspace:\n" + "".join(
        f"  {n}: {{grid: [{','.join(str(i) for i in range(1, 1000))}]}}\n" for n in ("learning_rate", "steps", "max_grad_norm")),
    "anchors": "".join(f"a{i}: &a{i} 1\n" for i in range(BIG // 16)),
    "a long tag": "name: !" + "a" * BIG + " x",
    "digits": "name: x\nseed: " + "1" * BIG,
    "comments": "#\n" * (BIG // 2),
    "quotes": '"' * BIG,
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", LARGE)
def test_a_file_of_a_megabyte_is_refused_in_a_few_lines(case: str):
    """Without bounds the worst of these took 40 s, or all memory."""
    with pytest.raises(InputError) as e:
        loads(LARGE[case])
    assert len(str(e.value)) < 40_000
    assert str(e.value).startswith("sweep.yaml:")
