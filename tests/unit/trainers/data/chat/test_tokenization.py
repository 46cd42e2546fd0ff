"""Conversations become rows as the model would meet them, with the loss on replies only."""

import pytest

from tests.support.models.tiny_sft import sums, tokenizer
from trainers.data.batching.row_cache import tokenised
from trainers.data.chat.template import ChatTemplate
from trainers.data.chat.tokenization import prompt_ids, render_rows, tokenise

TOKENIZER = tokenizer()
USER = {"role": "user", "content": "1+2="}
REPLY = {"role": "assistant", "content": "<think>1;3</think>3"}
MORE = [{"role": "user", "content": "4+4="}, {"role": "assistant", "content": "8"}]

# What Qwen3 does to history, in small: thoughts of earlier turns are dropped once a later user turn follows.
FORGETFUL = (
    "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{% for m in messages %}[{{ m.role[0] }}]"
    "{% if m.role == 'assistant' and messages.index(m) < messages.index(last) %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)


def with_template(template):
    made = tokenizer()
    made.chat_template = template
    return made


def learnt(made, row):
    rows = made.rows
    return TOKENIZER.decode(rows.ids(row)[rows.learn(row)]).replace(" ", "")


def whole(made, row):
    """A row's text; the tokenizer knows no line break, so those fall out."""
    return TOKENIZER.decode(made.rows.ids(row)).replace(" ", "").replace("<unk>", "")


def test_only_the_reply_is_learnt_and_its_end_of_turn_with_it():
    made = tokenise(TOKENIZER, [[USER, REPLY]], 100)
    assert whole(made, 0) == "[u]1+2=</s>[a]<think>1;3</think>3</s>"
    assert learnt(made, 0) == "<think>1;3</think>3</s>"


def test_a_row_begins_with_exactly_the_tokens_of_its_prompt():
    made = tokenise(TOKENIZER, [[USER, REPLY]], 100)
    prompt = prompt_ids(TOKENIZER, [USER])
    assert made.rows.ids(0)[: len(prompt)].tolist() == prompt
    assert not made.rows.learn(0)[: len(prompt)].any()
    assert made.rows.learn(0)[len(prompt) :].all()


def test_every_reply_of_a_conversation_is_learnt_in_one_row():
    made = tokenise(TOKENIZER, [[USER, REPLY, *MORE]], 100)
    assert len(made.rows) == 1
    assert learnt(made, 0) == "<think>1;3</think>3</s>8</s>"


def test_a_template_that_forgets_thoughts_gives_a_row_for_each_reply_with_the_history_it_will_see():
    made = tokenise(with_template(FORGETFUL), [[USER, REPLY, *MORE]], 100)
    assert [whole(made, i) for i in range(2)] == [
        "[u]1+2=</s>[a]<think>1;3</think>3</s>",
        "[u]1+2=</s>[a]3</s>[u]4+4=</s>[a]8</s>",
    ]
    assert [learnt(made, i) for i in range(2)] == ["<think>1;3</think>3</s>", "8</s>"]


def test_white_space_behind_the_end_of_turn_is_not_learnt():
    (row,) = render_rows(ChatTemplate(with_template(FORGETFUL)), [USER, REPLY])
    assert row.text.endswith("<think>1;3</think>3</s>")


def test_a_template_without_an_end_of_turn_gets_one():
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    made = tokenise(with_template(plain), [[USER, REPLY]], 100)
    assert learnt(made, 0) == "<think>1;3</think>3</s>"


def test_a_template_that_loses_part_of_a_reply_is_refused():
    lossy = FORGETFUL.replace("{% else %}{{ m.content }}", "{% else %}{{ m.content[:6] }}")
    (refused,) = tokenise(with_template(lossy), [[USER, MORE[1]], [USER, REPLY]], 100).refused
    assert refused.conversation == 1
    assert "the chat template loses part of a reply" in refused.reason


def test_a_template_whose_replies_do_not_follow_its_generation_prompt_is_refused():
    other = "{% for m in messages %}[{{ m.role[0] }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}>>{% endif %}"
    (refused,) = tokenise(with_template(other), [[USER, REPLY]], 100).refused
    assert "does not begin with its generation prompt" in refused.reason


def test_a_conversation_without_a_reply_is_refused():
    (refused,) = tokenise(TOKENIZER, [[USER, REPLY], [USER]], 100).refused
    assert refused.conversation == 1
    assert "nothing to learn" in refused.reason


LONG = len("[u]1+2=") + 1 + len("[a]<think>1;3</think>3") + 1


@pytest.mark.parametrize(
    ("policy", "limit", "kept", "cut", "dropped"),
    [
        ("drop", LONG, "[u]1+2=</s>[a]<think>1;3</think>3</s>", 0, 0),
        ("drop", LONG - 1, None, 0, 1),
        ("cut-prompt", LONG - 4, "+2=</s>[a]<think>1;3</think>3</s>", 1, 0),
        ("cut-prompt", 10, None, 0, 1),  # the answer itself is longer: it is never cut by this policy
        ("cut-answer", LONG - 4, "[u]1+2=</s>[a]<think>1;3</thin", 1, 0),
        ("cut-answer", 11, None, 0, 1),  # nothing of the answer would be left
    ],
)
def test_long_rows_follow_the_policy_and_are_counted(policy, limit, kept, cut, dropped):
    made = tokenise(TOKENIZER, [[USER, REPLY]], limit, policy)
    assert (made.cut, made.dropped) == (cut, dropped)
    assert len(made.rows) == (kept is not None)
    if kept is not None:
        assert made.rows.length(0) == limit
        assert whole(made, 0) == kept


def test_cached_rows_are_the_rows_and_are_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path))
    made = tokenised(TOKENIZER, sums(20), 40, "drop")
    (file,) = (tmp_path / "rows").iterdir()
    again = tokenised(TOKENIZER, sums(20), 40, "drop")
    assert again.rows.fingerprint() == made.rows.fingerprint() == tokenise(TOKENIZER, sums(20), 40).rows.fingerprint()
    assert again[1:4] == made[1:4]
    assert all((a == b).all() for a, b in zip(again[4:], made[4:], strict=True))
    assert made.dropped > 0
    assert list((tmp_path / "rows").iterdir()) == [file]


def test_anything_that_changes_rows_changes_their_place_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path))
    tokenised(TOKENIZER, sums(5), 80, "drop")
    tokenised(TOKENIZER, sums(6), 80, "drop")
    tokenised(TOKENIZER, sums(5), 81, "drop")
    tokenised(TOKENIZER, sums(5), 80, "cut-answer")
    tokenised(with_template(FORGETFUL), sums(5), 80, "drop")
    assert len(list((tmp_path / "rows").iterdir())) == 5


def test_a_damaged_cache_file_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path))
    made = tokenised(TOKENIZER, sums(5), 80, "drop")
    (file,) = (tmp_path / "rows").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert tokenised(TOKENIZER, sums(5), 80, "drop").rows.fingerprint() == made.rows.fingerprint()


def test_a_cache_that_cannot_be_written_is_only_slow(tmp_path, monkeypatch):
    (tmp_path / "rows").write_text("a file where the folder should be")
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path))
    assert len(tokenised(TOKENIZER, sums(5), 80, "drop").rows) == 5
