"""Rows as types: what is written is what was written before, and what has another shape is refused by name."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from sweeps.errors import JournalError
from sweeps.journal.codec import decode, parse
from sweeps.journal.reader import parse_lines
from sweeps.journal.rows import (
    KINDS,
    ROW_TYPES,
    AttemptRow,
    CommitRow,
    ControlRow,
    EndRow,
    EvalRow,
    ReportRow,
    TierRow,
    TrialRow,
    VerdictRow,
)
from sweeps.journal.vocabulary import Action, ControlAction, EndOf, EndStatus, EvalStatus, Phase

LINES = [
    (TrialRow("s", "t-1", budget=8, config={"data": "x"}, number=0, search={}, seq=1),
     '{"number":0,"search":{},"v":1,"seq":1,"kind":"trial","sweep":"s","trial":"t-1","budget":8,"config":{"data":"x"}}'),
    (TierRow("s", model="m", tier="t", row_limit=8, long_rows="drop", counts={"rows": 2}, shares={"reasoning": 0.5}, seq=1),
     '{"model":"m","tier":"t","row_limit":8,"long_rows":"drop","counts":{"rows":2},"shares":{"reasoning":0.5},"v":1,"seq":1,'
     '"kind":"tier","sweep":"s"}'),
    (AttemptRow("s", "t-1", 2, 4, budget=8, workers=1, parent="t-0", fork_step=4, seq=2),
     '{"workers":1,"parent":"t-0","fork_step":4,"v":1,"seq":2,"kind":"attempt","sweep":"s","trial":"t-1","attempt":2,'
     '"step":4,"budget":8}'),
    (AttemptRow("s", "t-1", 1, 0, budget=8, workers=2, gpus=0.5, seq=2),
     '{"workers":2,"gpus":0.5,"v":1,"seq":2,"kind":"attempt","sweep":"s","trial":"t-1","attempt":1,"step":0,"budget":8}'),
    (ReportRow("s", "t-1", 1, 3, metrics={"a/b": 0.5}, n={"a/b": 10}, suite="m@1", cost={"cpu_s": 1.5}, seq=3),
     '{"v":1,"seq":3,"kind":"report","sweep":"s","trial":"t-1","attempt":1,"step":3,"metrics":{"a/b":0.5},'
     '"n":{"a/b":10},"suite":"m@1","cost":{"cpu_s":1.5}}'),
    (EvalRow("s", "t-1", 1, 3, suite="m@1", cost={"gpu_s": 2.0}, seconds=4.0, seq=4),
     '{"status":"done","seconds":4.0,"v":1,"seq":4,"kind":"eval","sweep":"s","trial":"t-1","attempt":1,"step":3,'
     '"suite":"m@1","cost":{"gpu_s":2.0}}'),
    (EvalRow("s", "t-1", 1, 3, status=EvalStatus.FAILED, reason="out", tries=1, given_up=False, seq=4),
     '{"status":"failed","reason":"out","try":1,"given_up":false,"v":1,"seq":4,"kind":"eval","sweep":"s","trial":"t-1",'
     '"attempt":1,"step":3}'),
    (VerdictRow("s", "t-1", 1, 3, action=Action.PAUSE, phase=Phase.DIP, seen=4, seq=5),
     '{"action":"PAUSE","phase":"dip","reason":"","evidence":{},"seen":4,"v":1,"seq":5,"kind":"verdict","sweep":"s",'
     '"trial":"t-1","attempt":1,"step":3}'),
    (ControlRow("s", "t-1", who="ana", action=ControlAction.EXTEND, refused=True, reason="no", seq=6),
     '{"who":"ana","action":"extend refused","reason":"no","v":1,"seq":6,"kind":"control","sweep":"s","trial":"t-1"}'),
    (CommitRow("s", "t-1", 1, 3, path="trials/x", damaged=True, reason="changed", seq=7),
     '{"path":"trials/x","damaged":true,"reason":"changed","v":1,"seq":7,"kind":"commit","sweep":"s","trial":"t-1",'
     '"attempt":1,"step":3}'),
    (EndRow("s", "t-1", 1, 8, of=EndOf.SCORING, status=EndStatus.COMPLETED, reason="", seq=8),
     '{"of":"scoring","status":"completed","reason":"","v":1,"seq":8,"kind":"end","sweep":"s","trial":"t-1","attempt":1,'
     '"step":8}'),
]  # fmt: skip


@pytest.mark.parametrize(("row", "line"), LINES, ids=[row.kind for row, _ in LINES])
def test_a_row_is_written_as_version_1_and_read_back_the_same(row, line: str):
    assert row.line() == line + "\n"
    assert decode(line) == row
    assert decode(line) == row  # by the shape that was remembered


def test_every_kind_has_a_type_and_no_two_share_one():
    assert ROW_TYPES.keys() == KINDS
    assert len(set(ROW_TYPES.values())) == len(KINDS)
    assert all("extra" in {f.name for f in fields(row)} for row in ROW_TYPES.values())


def test_keys_that_this_version_does_not_know_are_kept_and_written_again():
    row = parse({"v": 1, "kind": "end", "sweep": "s", "trial": "t", "status": "pruned", "colour": {"hue": 3}})
    assert row.extra == {"colour": {"hue": 3}}
    assert row.to_json()["colour"] == {"hue": 3}


def report(**keys) -> dict:
    return {"v": 1, "kind": "report", "sweep": "s", "trial": "t", "attempt": 1, "step": 3, **keys}


WRONG = [
    (report(metrics={"a": "0.5"}), r"report row: got metrics \{'a': '0.5'\}; expected finite numbers by name"),
    (report(metrics=[0.5]), r"report row: got metrics \[0.5\]; expected finite numbers by name"),
    (report(se={"a": None}), "got se"),
    (report(cost={"gpu_s": {}}), "got cost"),
    (report(n={"a": 1.5}), "expected whole numbers by name"),
    (report(invalid={"a": 1}), "expected texts by name"),
    (report(step=1.5), "got step 1.5; expected a whole number"),
    (report(step=True), "got step True; expected a whole number"),
    (report(suite=3), "got suite 3; expected text"),
    (report(v=2), r"written by a newer dipsweep \(journal version 2; this one reads 1\)"),
    (report(v="1"), "got journal version '1'; expected 1"),
    (report(v=0), "got journal version 0; expected 1"),
    (report(trial=""), "report row: got no trial; expected one"),
    (report(kind="reprot"), "got row kind 'reprot'; expected one of attempt, commit"),
    (report(kind=["report"]), r"got row kind \['report'\]"),
    ({"kind": "commit", "sweep": "s", "trial": "t", "step": 3}, "commit row: got no path; expected one"),
    ({"kind": "commit", "sweep": "s", "trial": "t", "path": "p"}, "commit row: got no step; expected one"),
    ({"kind": "verdict", "sweep": "s", "trial": "t", "action": "pause"}, "expected one of CONTINUE, PAUSE, STOP"),
    ({"kind": "verdict", "sweep": "s", "trial": "t"}, "verdict row: got no action"),
    ({"kind": "end", "sweep": "s", "trial": "t", "status": "gone"}, "expected one of completed, pruned, failed, done"),
    ({"kind": "control", "sweep": "s", "action": "dance refused"}, "control row: got action 'dance refused'"),
    ({"kind": "eval", "sweep": "s", "trial": "t", "status": "lost"}, "expected one of queued, done, failed, skipped"),
    ({"kind": "attempt", "sweep": "s", "trial": "t", "gpus": -1}, "got gpus -1; expected a finite number, 0 or more"),
    (
        {"kind": "attempt", "sweep": "s", "trial": "t", "gpus": True},
        "got gpus True; expected a finite number, 0 or more",
    ),
    ({"kind": "eval", "sweep": "s", "trial": "t", "seconds": "4"}, "got seconds '4'; expected a finite number"),
    ([], r"got \[\]; expected a row"),
    (None, "got nothing; expected a row"),
]


@pytest.mark.parametrize(("data", "message"), WRONG)
def test_a_row_of_another_shape_is_refused_with_what_came_and_what_was_expected(data, message: str):
    for _ in range(2):
        with pytest.raises(JournalError, match=message):
            parse(data)


def test_a_good_row_does_not_make_a_bad_one_of_the_same_keys_and_types_pass():
    parse(report(metrics={"a": 0.5}))
    for bad in (report(metrics={"a": "x"}), report(metrics={"a": float("inf")}), report(metrics={"a": 0.5}, v=2)):
        with pytest.raises(JournalError):
            parse(bad)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"kind":"report","trial":"t","step":1,"seq":0,"metrics":{"a":1e400}}', "expected finite numbers by name"),
        (b'{"kind":"verdict","trial":"t","action":"STOP","seq":0,"evidence":{"p":[1e400]}}', "not finite"),
        (b'{"kind":"report","trial":"t","step":1,"seq":0,"later":[-1e400]}', "expected finite numbers"),
        (b'{"kind":"report","trial":"t","step":1,"seq":0,"metrics":{"a":NaN}}', "NaN is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"kind":"report","extra":' + b"[" * 100_000, "nested too deeply"),
        (b'{"kind":"report"', "got no JSON"),
        (b"\xff\xfe", "got no JSON"),
        (b"", "got no JSON"),
        (b'{"kind":"report","trial":"t","step":' + b"9" * 5000 + b',"seq":0}', "got no JSON|whole number"),
    ],
)
def test_a_line_that_is_no_row_is_damage_named_by_file_and_line(line: bytes, message: str):
    good = ReportRow("s", "t", 1, 1, seq=0).line().encode()[:-1]
    with pytest.raises(JournalError, match=r"log/000000000\.jsonl:2: .*(" + message + ")"):
        parse_lines([good, line], 0, "log/000000000.jsonl", 0)


def test_a_whole_number_that_no_float_holds_is_no_score():
    with pytest.raises(JournalError, match="expected finite numbers by name"):
        decode(json.dumps(report(metrics={"a": 10**400})))


def test_a_refused_request_is_told_from_one_that_was_carried_out():
    row = parse({"kind": "control", "sweep": "s", "who": "ana", "action": "extend refused", "reason": "no"})
    assert (row.action, row.refused) == (ControlAction.EXTEND, True)
    assert parse(row.to_json()) == row


def test_a_journal_from_before_pause_had_its_name_is_read():
    row = parse({"v": 1, "kind": "verdict", "sweep": "s", "trial": "t", "attempt": 1, "step": 3, "action": "PARK"})
    assert row.action is Action.PAUSE
    assert row.to_json()["action"] == "PAUSE"
