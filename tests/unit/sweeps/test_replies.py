import pytest

from sweeps.errors import InputError, StorageError
from sweeps.replies import (
    SAMPLE,
    SAMPLE_CHARS,
    KeptReply,
    ReplyWriter,
    from_bytes,
    kept_files,
    printable,
    read_replies,
    sampled,
    shortened,
    to_bytes,
    to_text,
)
from sweeps.storage.factory import open_store


def reply(role="math", task="sums", item=0, answer="3", **more):
    return KeptReply(role, task, item, "1+2?", "1+2=3", answer, 5, False, {f"{role}/{task}": 1.0}, **more)


def many(role, task, n):
    return [reply(role, task, i) for i in range(n)]


def test_a_sample_holds_the_first_items_of_all_tasks_of_each_role():
    kept = sampled(
        [*many("math", "a", 20), *many("math", "b", 3), *many("safety", "harm", 2), reply("math", "a", 0, sample=1)]
    )
    assert [(r.task, r.item) for r in kept if r.role == "math"] == [
        ("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("a", 4),
    ]  # fmt: skip
    assert len(kept) == SAMPLE + 2
    assert [r.item for r in kept if r.role == "safety"] == [0, 1]
    assert all(r.sample == 0 for r in kept)


def test_long_texts_of_a_sample_lose_their_middle_and_say_so():
    long = reply(answer="a" * SAMPLE_CHARS + "z" * SAMPLE_CHARS)
    short = shortened(long)
    assert short.shortened == SAMPLE_CHARS
    assert short.answer.startswith("aaa")
    assert short.answer.endswith("zzz")
    assert len(short.answer) < SAMPLE_CHARS + 100
    assert shortened(reply(answer=None)).answer is None
    assert f"{SAMPLE_CHARS} characters left out" in to_text(short)


@pytest.mark.parametrize("answer", ["x", "", None, "\u2028\x1b[31m\udc80", "日本"])
def test_replies_come_back_as_they_were(answer):
    kept = [reply(answer=answer), reply(item=1)]
    facts, again = from_bytes(to_bytes(kept, 7, {"suite": "s@1"}))
    assert again == kept
    assert (facts["kept"], facts["of"], facts["suite"]) == (2, 7, "s@1")


def test_what_is_kept_is_bounded_and_says_how_much_there_was(monkeypatch):
    monkeypatch.setattr("sweeps.replies.ALL_BYTES", 1000)
    facts, again = from_bytes(to_bytes(many("math", "a", 50), 50, {}))
    assert facts["kept"] == len(again) < 10
    assert facts["of"] == 50


def test_a_later_attempt_stands_in_for_an_earlier_one(tmp_path):
    home = open_store(tmp_path)
    for attempt, answer in ((10, "new"), (2, "old")):
        ReplyWriter(home, "sample", "t-1", 40, attempt)([reply(answer=answer)], 1, "s@1")
    ReplyWriter(home, "sample", "t-1", 5, 1)([reply(answer="first"), reply("safety", "harm")], 2, "s@1")
    assert kept_files(home) == {
        "t-1": {5: "replies/t-1/step-000005.attempt-1.jsonl.gz", 40: "replies/t-1/step-000040.attempt-10.jsonl.gz"}
    }
    assert [(r.step, r.attempt, r.answer) for r in read_replies(home, "t-1", role="math")] == [
        (5, 1, "first"),
        (40, 10, "new"),
    ]
    assert [r.task for r in read_replies(home, "t-1", 5, task="harm")] == ["harm"]


def test_what_was_not_kept_is_answered_with_what_was(tmp_path):
    with pytest.raises(InputError, match="kept are those of: nobody"):
        read_replies(tmp_path, "t-1")
    ReplyWriter(tmp_path, "sample", "t-1", 5, 1)([reply()], 1, "s@1")
    with pytest.raises(InputError, match=r"no replies of 't-2' .* did you mean 't-1'"):
        read_replies(tmp_path, "t-2")
    with pytest.raises(InputError, match="at step 6 are kept; kept are steps 5"):
        read_replies(tmp_path, "t-1", 6)
    with pytest.raises(InputError, match="role 'safety' are kept"):
        read_replies(tmp_path, "t-1", role="safety")


@pytest.mark.parametrize("data", [b"", b"no gzip", to_bytes([reply()], 1, {})[:-9], to_bytes([], 0, {"v": 99})])
def test_a_damaged_file_and_one_of_a_newer_version_are_told(tmp_path, data):
    place = tmp_path / "replies/t-1/step-000005.attempt-1.jsonl.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    with pytest.raises(StorageError, match=r"step-000005\.attempt-1"):
        read_replies(tmp_path, "t-1")


def test_a_terminal_is_shown_control_characters_and_obeys_none():
    shown = to_text(reply(answer="a\x1b[2Jb\x07\r\x9bc\u202ed\u2066\ttab\nline é"))
    assert not set("\x1b\x07\r\x9b\u202e\u2066") & set(shown)
    assert r"a\x1b[2Jb\x07\x0d\x9bc\u202ed\u2066" + "\ttab\nline é" in shown
    assert printable("plain — text") == "plain — text"
