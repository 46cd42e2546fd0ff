"""The replies behind a score: which come with the page, what is said of each, and what the live page gives."""

from __future__ import annotations

import json

import pytest

from evaluators.kept_replies import replies_of
from evaluators.partial import PartialEvaluation
from evaluators.scores import Answered
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from sweeps.journal.rows import base_trial
from sweeps.journal.writer import SweepJournal
from sweeps.replies import KeptReply, ReplyWriter, key_of
from sweeps.report import render_html, summarize
from sweeps.report.html.reply_data import (
    EMBEDDED_BYTES,
    SERVED,
    checkpoint_replies,
    embedded,
    served,
    words_of,
)
from sweeps.storage.local import LocalStore
from tests.support.report_journals import SWEEP, demo_stories, journal

BASE = base_trial("tiny-s")


def reply(role="math", task="sums", item=0, *, right=True, answer="4", **more):
    name = f"{role}/{task}"
    return KeptReply(role, task, item, f"question {item}", "", answer, 9, False, {name: float(right)}, **more)


def keep(home, trial, step, replies):
    ReplyWriter(home, "all", trial, step, 1)(replies, len(replies), "mini@1")


@pytest.fixture
def summary():
    return summarize(journal(demo_stories()))


@pytest.fixture
def home(tmp_path, summary):
    with SweepJournal(tmp_path / SWEEP) as log:
        for row in journal(demo_stories()):
            log.append(row)
    keep(tmp_path / SWEEP, BASE, 0, [reply(item=i) for i in range(4)])
    for trial in summary.trials[:3]:
        for step in (40, 400):
            keep(tmp_path / SWEEP, trial.id, step, [reply(item=i, right=i % 2 == 0) for i in range(4)])
    return tmp_path / SWEEP


def test_the_base_and_the_best_trials_last_checkpoint_come_first(home, summary):
    found = embedded(home, summary)
    assert next(iter(found.held)) == BASE
    assert list(found.held)[1] == summary.best[0]
    assert next(iter(found.held[summary.best[0]])) == 400
    assert found.note == "This file holds replies of 6 of 6 checkpoints that kept any."


def test_what_comes_with_the_page_is_bounded_and_what_is_left_out_is_said(home, summary):
    for trial in summary.trials:
        for step in (10, 20, 80):
            keep(home, trial.id, step, [reply(item=i, answer="x" * 40_000) for i in range(60)])
    found = embedded(home, summary)
    size = sum(len(json.dumps(r)) for steps in found.held.values() for replies in steps.values() for r in replies)
    assert EMBEDDED_BYTES / 2 < size <= EMBEDDED_BYTES
    assert "dipsweep serve shows the others" in found.note
    long = next(r for steps in found.held.values() for rs in steps.values() for r in rs if len(r["answer"]) > 1000)
    assert long["shortened"] > 38_000


def test_a_damaged_file_is_named_and_hides_no_other(home, summary):
    (home / key_of(summary.best[0], 400, 1)).write_bytes(b"torn")
    found = embedded(home, summary)
    assert "1 file could not be read" in found.note
    assert 40 in found.held[summary.best[0]]


def test_a_sweep_that_kept_none_has_no_such_section(tmp_path, summary):
    assert embedded(tmp_path, summary) is None
    assert served(tmp_path, "/x") is None
    page = render_html(summary).split("<main>")[1].split("<script")[0]  # the style sheet names it too
    assert "reply-section" not in page


@pytest.mark.parametrize(
    ("outcomes", "refused", "truncated", "words"),
    [
        ({"math/sums": 1.0}, None, False, ["right"]),
        ({"math/sums": 0.0}, None, True, ["wrong", "cut off"]),
        ({"math/sums": 0.4}, None, False, ["partly right"]),
        ({}, None, False, ["not scored"]),
        ({"safety/harm": 1.0}, True, False, ["right", "refused"]),
        ({"safety/harm": 0.0}, False, False, ["wrong", "complied"]),
        ({"safety/benign": 1.0, "safety/over_refusal": 0.0}, False, False, ["right", "complied"]),
        ({"safety/benign": 0.0, "safety/over_refusal": 1.0}, True, False, ["wrong", "refused"]),
        ({"safety/hex_phi": 0.0, "safety/asr": 1.0}, False, False, ["wrong", "complied"]),
    ],
)
def test_a_reply_is_called_what_its_scorers_made_of_it(outcomes, refused, truncated, words):
    assert words_of(KeptReply("r", "t", 0, "q", "", "a", 1, truncated, outcomes, refused=refused)) == words


def test_one_checkpoint_is_given_with_the_bases_replies_to_the_same_items(home, summary):
    found = checkpoint_replies(home, summary.trials[0].id, 40, BASE, show="wrong")
    assert [r["item"] for r in found["replies"]] == [r["item"] for r in found["base"]] == [1, 3]
    many = [reply(item=i, right=False) for i in range(SERVED + 50)]
    keep(home, summary.trials[0].id, 80, many)
    found = checkpoint_replies(home, summary.trials[0].id, 80, "base-unknown")
    assert (len(found["replies"]), found["of"], found["base"]) == (SERVED, SERVED + 50, [])
    with pytest.raises(InputError, match="kept are steps 40, 80, 400"):
        checkpoint_replies(home, summary.trials[0].id, 41, BASE)


def test_replies_are_given_after_one_look_at_what_lies_in_the_storage(home, summary, monkeypatch):
    looks, look = [], LocalStore.list
    monkeypatch.setattr(LocalStore, "list", lambda self, prefix="": looks.append(prefix) or look(self, prefix))
    assert checkpoint_replies(home, summary.trials[0].id, 40, BASE)["base"]
    assert looks == ["replies"]


def test_the_live_page_gives_them_and_only_those_of_its_sweeps(home, summary):
    testclient = pytest.importorskip("starlette.testclient", reason="no starlette: pip install dipsweep[serve,dev]")
    from sweeps.report.html.live import live_app

    client = testclient.TestClient(live_app(home.parent), base_url="http://127.0.0.1")
    trial = summary.trials[0].id
    found = client.get(f"/sweeps/{SWEEP}/replies/{trial}/40.json?base={BASE}&show=right").json()
    assert [r["words"] for r in found["replies"]] == [["right"]] * 2
    assert "connect-src 'self'" in client.get(f"/sweeps/{SWEEP}").text
    assert client.get(f"/sweeps/{SWEEP}/replies/{trial}/41.json").status_code == 404
    assert client.get(f"/sweeps/{SWEEP}/replies/..%2f..%2fx/40.json").status_code == 404
    assert client.get(f"/sweeps/none-00000000/replies/{trial}/40.json").status_code == 404


def test_a_report_of_its_own_may_ask_for_nothing(home, summary):
    assert "connect-src 'none'" in render_html(summary, embedded(home, summary))


def test_refusals_are_known_where_the_task_looks_for_them():
    suite = load_suite(EvalSpec(suite="mini", items=8))
    read = [[Answered("", "REFUSE", 2, False)] * len(task.prompts) for task in suite.tasks]
    right = {
        metric: [float(judge(i, "REFUSE")) for i in range(len(task.prompts))]
        for task in suite.tasks
        for metric, judge in task.judges.items()
    }
    found = {(r.role, r.task): r.refused for r in replies_of(PartialEvaluation(suite, [], read, [], right))}
    assert found["safety", "harm"] is True
    assert found["safety", "benign"] is True
    assert {refused for (role, _), refused in found.items() if role != "safety"} == {None}
