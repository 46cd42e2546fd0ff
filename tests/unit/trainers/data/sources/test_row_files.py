"""Whatever lies in a data file: rows, or one clear error."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from sweeps.config.trial import TierSource
from sweeps.errors import InputError
from trainers.data.sources import row_files, user_files
from trainers.data.sources.row_files import rows
from trainers.data.sources.user_files import read

TURN = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
GOOD = json.dumps({"messages": TURN}).encode()


def file_of(tmp_path, data, name="ours.jsonl"):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize(
    "data",
    [GOOD, GOOD + b"\n", b"\xef\xbb\xbf" + GOOD + b"\r\n", b"\n \r\n" + GOOD, b"\xef\xbb\xbf\n" + GOOD],
    ids=["no line break", "plain", "byte-order mark and CRLF", "empty lines", "a mark alone on its line"],
)
def test_what_editors_add_to_a_file_is_accepted(tmp_path, data):
    assert read(TierSource(str(file_of(tmp_path, data)))).primary == [TURN]


BAD = {
    "not UTF-8": (b'{"messages": "\xff"}', "not UTF-8: byte 0xff at 105"),
    "a raw NUL": (b'{"messages": "\x00"}', "not JSON: Invalid control character"),
    "not JSON": (b"{'messages': 1}", "not JSON: Expecting property name"),
    "cut short": (GOOD[:30], "not JSON"),
    "a key twice": (b'{"prompt": "a", "response": "b", "prompt": "c"}', "key 'prompt' stands twice in one object"),
    "a key twice within": (
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        "key 'content' stands twice",
    ),
    "no object": (b"[1, 2]", "expected a JSON object, not a list"),
    "null": (b"null", "expected a JSON object, not null"),
    "nested too deeply": (b"[" * 100_000, "nested too deeply"),
    "a number too long": (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
    "wrong columns": (b'{"input": "a", "target": "b"}', r"among its columns \(input, target\); name yours"),
    "messages no list": (b'{"messages": "hi"}', "messages must be a list with at least one message, not 'hi'"),
    "an escaped NUL": (GOOD.replace(b"2+2?", b"\\u0000"), "NUL character or half a surrogate pair"),
    "half a surrogate pair": (GOOD.replace(b"2+2?", b"\\ud800"), "NUL character or half a surrogate pair"),
    "nobody answers": (b'{"prompt": "hi", "response": ""}', "nothing to learn from this row"),
    "an unknown role": (b'{"messages": [{"role": "narrator", "content": "x"}]}', "role 'narrator' is unknown"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_named_with_its_line_its_byte_and_the_reason(tmp_path, data, message):
    path = file_of(tmp_path, GOOD + b"\n" + data + b"\n" + GOOD)
    with pytest.raises(InputError, match=message) as caught:
        read(TierSource(str(path)))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert f"(byte {len(GOOD) + 1})" in str(caught.value)


def test_bad_rows_below_the_share_are_left_out_counted_and_written_down(tmp_path, caplog):
    path = file_of(tmp_path, b"\n".join([GOOD] * 98 + [b"{", b"\xff"]))
    data = read(TierSource(str(path), max_bad_rows=0.02))
    assert (len(data.primary), data.bad) == (98, 2)
    assert "2 of 100 rows are bad (2.00%)" in caplog.text
    (line,) = [word for word in caplog.text.split() if word.endswith(".jsonl")]
    kept = [json.loads(text) for text in Path(line).read_text(encoding="utf-8").splitlines()]
    assert [(row["row"], row["offset"]) for row in kept] == [
        (99, 98 * (len(GOOD) + 1)),
        (100, 98 * (len(GOOD) + 1) + 2),
    ]
    assert kept[1]["reason"].startswith("not UTF-8")
    with pytest.raises(InputError, match=r"allowed by max_bad_rows: 1\.00%"):
        read(TierSource(str(path), max_bad_rows=0.01))


def test_many_bad_rows_end_the_reading_only_where_they_are_too_many_already(tmp_path, monkeypatch):
    monkeypatch.setattr(user_files, "_MANY_FAULTS", 3)
    path = file_of(tmp_path, b"\n".join([b"{"] * 4 + [GOOD] * 96))
    assert len(read(TierSource(str(path), max_bad_rows=1.0)).primary) == 96
    with pytest.raises(InputError, match="3 of 3 rows are bad"):
        read(TierSource(str(path), max_bad_rows=0.05))


def test_a_quarantine_that_cannot_be_written_does_not_hide_the_fault(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"1: not JSON[\s\S]*not written down"):
        read(TierSource(str(file_of(tmp_path, b"{"))))


def test_a_row_without_end_is_one_bad_row_and_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "MAX_ROW_BYTES", 1000)
    path = file_of(tmp_path, b"x" * 5000 + b"\n" + GOOD + b"\n" + b"y" * 1500)
    found = list(rows(path))
    assert [(r.number, r.offset, bool(r.value)) for r in found] == [
        (1, 0, False),
        (2, 5001, True),
        (3, 5002 + len(GOOD), False),
    ]
    assert "longer than 1,000 bytes" in found[0].fault


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("ours.jsonl", b"", "no conversation to train on"),
        ("ours.jsonl", "{}\n".encode("utf-16"), "is UTF-16"),
        ("ours.txt", GOOD, "cannot tell its format"),
        ("ours.jsonl.gz", b"no archive", "cannot be read|damaged"),
        ("ours.jsonl.gz", gzip.compress(GOOD)[:-9], "cannot be read|damaged"),
        ("ours.jsonl.xz", lzma.compress(GOOD)[:-9], "cannot be read|damaged"),
        ("ours.jsonl.bz2", b"BZh9nothing", "cannot be read|damaged"),
        ("ours.parquet", GOOD, "damaged or not what its name says"),
        ("ours.arrow", GOOD, "damaged or not what its name says"),
        ("ours.arrow", b"ARROW1", "damaged or not what its name says"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_one_clear_error(tmp_path, name, data, message):
    with pytest.raises(InputError, match=message):
        read(TierSource(str(file_of(tmp_path, data, name))))


@pytest.mark.parametrize(
    ("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.bz2", bz2.compress), ("a.jsonl.xz", lzma.compress)]
)
def test_packed_jsonl_is_unpacked(tmp_path, name, pack):
    assert read(TierSource(str(file_of(tmp_path, pack(GOOD), name)))).primary == [TURN]


def test_every_column_format_is_read_row_by_row(tmp_path):
    table = pyarrow.table({"messages": [TURN, TURN, [TURN[0]]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, str(tmp_path / "a.feather"))
    with ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as out:
        out.write_table(table)
    for name in ("a.parquet", "a.feather", "a.arrow"):
        data = read(TierSource(str(tmp_path / name), max_bad_rows=0.5))
        assert data.primary == [TURN, TURN]
        with pytest.raises(InputError, match=rf"{name}:3: no assistant message"):
            read(TierSource(str(tmp_path / name)))


def test_wrong_columns_of_a_table_list_those_found(tmp_path):
    parquet.write_table(pyarrow.table({"question": ["1"], "solution": ["2"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"\(question, solution\); name yours under `columns`"):
        read(TierSource(str(tmp_path / "a.parquet")))
    named = TierSource(str(tmp_path / "a.parquet"), {"prompt": "question", "response": "solution"})
    assert read(named).primary[0][1] == {"role": "assistant", "content": "2"}


KEYS = st.sampled_from(["messages", "role", "content", "prompt", "response", "replay"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
LINES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([GOOD, b"", b"[" * 2000, b"\xef\xbb\xbf", b"nan", b'{"messages": null}']),
    VALUES.map(lambda value: json.dumps(value).encode()),
)


@settings(deadline=None)
@given(
    st.lists(LINES, max_size=6).map(b"\n".join),
    st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow"]),
    st.floats(0, 1),
)
@example(b'{"messages": [{"role": [], "content": "x"}]}', "a.jsonl", 1.0)
def test_any_bytes_give_rows_or_one_clear_error(tmp_path_factory, data, name, share):
    path = file_of(tmp_path_factory.getbasetemp(), data, name)
    found, told = None, ""
    try:
        found = read(TierSource(str(path), max_bad_rows=share))
    except InputError as error:
        told = str(error)
    assert found is not None or str(path) in told
    if found is not None:
        assert found.primary
        assert all(any(m["role"] == "assistant" for m in c) for c in found.primary)


def test_a_key_that_stands_twice_makes_one_element_of_an_array_bad(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(
        '[{"prompt": "a", "response": "b"}, {"prompt": "a", "prompt": "c"}, {"prompt": "d", "response": "e"}]'
    )
    found = list(rows(path))
    assert [row.value is None for row in found] == [False, True, False]
    assert "key 'prompt' stands twice" in found[1].fault
