"""`dipsweep preview` shows rows as the model will see them, and each tier in numbers."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from tests.support.models.tiny_sft import sums, write_base


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    write_base(tmp_path / "model")
    talks = [{"messages": talk, "mark": 1} for talk in [*sums(8), sums(1)[0]]]
    long = {"prompt": "1+1=", "response": "2" * 90}
    talks += [long, {"messages": [{"role": "user", "content": "1</s>="}, {"role": "assistant", "content": "1"}]}]
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    (tmp_path / "own.yaml").write_text(
        "name: own\nmodels: {mine: {path: model}}\ntiers: {ours: {path: ours.jsonl}}\n"
        "trainer: {steps: 2, max_length: 64}\nevaluation: {items: 4}\n"
    )
    return tmp_path


def shown(home, *options):
    result = CliRunner().invoke(app, ["preview", str(home / "own.yaml"), *options])
    assert result.exception is None, result.exception
    return result.stdout


def test_learnt_tokens_are_marked_and_the_generation_prompt_stands_beside_them(home):
    text = shown(home, "--rows", "1").replace(" ", "")
    user, reply = sums(1)[0]
    assert f"[u]{user['content']}</s>[a]⟦{reply['content']}</s>⟧" in text
    assert "therowbeginswithit,tokenbytoken" in text


def test_the_card_says_what_is_kept_lost_repeated_and_not_used(home):
    text = shown(home, "--rows", "0")
    assert "11 rows read as messages of role and content (10); prompt and response (1)" in text
    assert "not used, since nothing here is trained by it: mark (9 of 11)" in text
    assert "conversations    11; 0 bad rows, 1 refused" in text
    assert "1 of 10 rows (10.0%" in text
    assert "duplicates       1" in text
    assert "with a thought   81.8%" in text
    assert "replies end with '</s>' (9)" in text
    assert "ours.jsonl:11: message 0 (user) holds '</s>'" in text


def test_rows_that_are_dropped_or_bad_are_shown_as_such(home):
    text = shown(home, "--rows", "11")
    assert "; dropped: it has" in text
    assert "bad row: message 0 (user) holds '</s>'" in text


def test_a_page_marks_the_same_tokens_and_runs_nothing(home):
    shown(home, "--rows", "1", "--html", str(home / "page.html"))
    page = (home / "page.html").read_text()
    assert "<mark>" in page
    assert "<script" not in page


def test_an_unknown_tier_is_refused_with_those_there_are(home):
    result = CliRunner().invoke(app, ["preview", str(home / "own.yaml"), "--tier", "our"])
    assert "tier 'our' is not trained in this sweep; did you mean 'ours'" in str(result.exception)
