"""Every key of a row and of a message is used, known to be harmless, told of, or makes the row bad."""

import datetime
import decimal
import json

import pyarrow
import pytest
from pyarrow import parquet

from sweeps.config.trial import TierSource
from sweeps.errors import InputError
from trainers.data.sources.messages import parse_row
from trainers.data.sources.row_files import objects, rows
from trainers.data.sources.user_files import read

USER, REPLY = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
TURN = [USER, REPLY]


def parsed(row, **columns):
    return parse_row(row, columns)


def chat(*messages):
    return parsed({"messages": list(messages)}).conversation


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "thought", "chain_of_thought", "cot"])
def test_a_thought_is_kept_under_one_name_wherever_the_data_has_it(key):
    assert chat(USER, {**REPLY, key: "two twos"})[1] == {**REPLY, "reasoning_content": "two twos"}
    row = {"prompt": "2+2?", "response": "4", key: "two twos"}
    assert parsed(row).conversation[1] == {**REPLY, "reasoning_content": "two twos"}


def test_a_thought_beside_the_messages_is_that_of_the_one_reply_and_else_told_of():
    row = parsed({"messages": [USER, dict(REPLY)], "reasoning_content": "two twos"})
    assert (row.conversation[1], row.unused) == ({**REPLY, "reasoning_content": "two twos"}, ())
    assert parsed({"messages": TURN + TURN, "reasoning_content": "two twos"}).unused == ("reasoning_content",)


@pytest.mark.parametrize("messages", [[{**USER, "content": " "}, REPLY], [{**USER, "content": ""}, REPLY]])
def test_a_question_without_text_makes_the_row_bad(messages):
    with pytest.raises(ValueError, match="message 0: user message without text"):
        chat(*messages)


def test_an_input_that_is_no_text_makes_the_row_bad():
    with pytest.raises(ValueError, match="input must be text, not 5"):
        parsed({"instruction": "Add 3.", "input": 5, "output": "8"})


def test_roles_are_read_in_capitals_too():
    assert chat({**USER, "role": "User"}, {**REPLY, "role": "ASSISTANT"}) == TURN


def test_a_thought_among_the_parts_of_a_message_is_kept():
    parts = [{"type": "thinking", "thinking": "two twos"}, {"type": "text", "text": "4"}]
    assert chat(USER, {"role": "assistant", "content": parts})[1] == {**REPLY, "reasoning_content": "two twos"}


def test_a_thought_told_twice_is_kept_once_and_two_thoughts_are_bad():
    inline = {"role": "assistant", "content": "<think>\ntwo twos\n</think>\n\n4"}
    assert chat(USER, {**inline, "reasoning": "two twos"}) == [USER, inline]
    with pytest.raises(ValueError, match="message 1: a thought stands in its content, and another one beside it"):
        chat(USER, {**inline, "reasoning": "something else"})


@pytest.mark.parametrize("key", ["weight", "train", "loss_mask", "learn", "trainable", "loss"])
@pytest.mark.parametrize("value", [0, False, 0.0, "false", "0", "no"])
def test_a_reply_that_is_masked_is_not_learnt(key, value):
    first = chat(USER, {**REPLY, key: value}, USER, REPLY)[1]
    assert first == {**REPLY, "learn": False}


@pytest.mark.parametrize("value", [0.5, "perhaps", 2, float("nan"), [1, 0]])
def test_a_mask_that_is_neither_true_nor_false_makes_the_row_bad(value):
    with pytest.raises(ValueError, match="message 1: 'weight' must be true or false, or 0 or 1"):
        chat(USER, {**REPLY, "weight": value})


def test_a_row_whose_every_reply_is_masked_is_bad_and_so_is_one_that_would_learn_a_question():
    with pytest.raises(ValueError, match="nothing to learn"):
        chat(USER, {**REPLY, "weight": 0})
    with pytest.raises(ValueError, match="asks for a user message to be learnt"):
        chat({**USER, "train": True}, REPLY)
    assert chat({**USER, "weight": 0}, REPLY) == TURN


@pytest.mark.parametrize("value", ["false", "0", "no", "", 0, False, None])
def test_replay_that_says_no_is_no(value):
    assert not parsed({"messages": TURN, "replay": value}).replay


@pytest.mark.parametrize("value", ["true", "yes", 1, True])
def test_replay_that_says_yes_is_yes(value):
    assert parsed({"messages": TURN, "replay": value}).replay


@pytest.mark.parametrize("value", ["maybe", float("nan"), 2, [True]])
def test_replay_that_says_neither_makes_the_row_bad(value):
    with pytest.raises(ValueError, match="'replay' must be true or false"):
        parsed({"messages": TURN, "replay": value})


@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_a_system_prompt_in_a_column_comes_first(key):
    wanted = [{"role": "system", "content": "Be brief"}, *TURN]
    assert parsed({key: "Be brief", "prompt": "2+2?", "response": "4"}).conversation == wanted
    assert parsed({key: "Be brief", "messages": TURN}).conversation == wanted
    assert parsed({key: "Be brief", "messages": wanted}).conversation == wanted
    assert parsed({key: "", "messages": TURN}).conversation == TURN
    with pytest.raises(ValueError, match="a system prompt stands in a column, and another one among the messages"):
        parsed({key: "Be long", "messages": wanted})


def test_a_reply_that_is_only_begun_makes_the_row_bad():
    with pytest.raises(ValueError, match="'prefix' marks a reply that is begun and not ended"):
        chat(USER, {**REPLY, "prefix": True})
    assert chat(USER, {**REPLY, "prefix": False}) == TURN


CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}]},
        {"role": "assistant", "content": "", "function_call": CALL},
        {"from": "function_call", "value": json.dumps(CALL)},
    ],
)  # fmt: skip
def test_calls_of_tools_are_kept_in_one_spelling(message):
    assert chat(USER, message)[1]["tool_calls"] == [{"type": "function", "function": CALL}]


def test_tools_of_a_row_come_before_its_messages():
    tools = [{"type": "function", "function": {"name": "add", "parameters": None}}]
    for given in (tools, json.dumps(tools)):
        first, *rest = parsed({"tools": given, "messages": TURN}).conversation
        assert first["tools"] == tools
        assert (first["role"], rest) == ("tools", TURN)
    assert parsed({"tools": "[]", "messages": TURN}).conversation == TURN


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
         "conversations of from and value"),
        ({"messages": json.dumps(TURN)}, "messages of role and content"),
        ({"prompt": "2+2?", "completion": "4"}, "prompt and completion"),
        ({"instruction": "2+2?", "input": "", "output": "4"}, "instruction and output"),
        ({"question": "2+2?", "answer": "4"}, "question and answer"),
        ({"prompt": [USER], "completion": [REPLY]}, "prompt and completion, lists of messages"),
    ],
)  # fmt: skip
def test_the_usual_forms_are_read_and_named(row, form):
    found = parsed(row)
    assert found.conversation == TURN
    assert found.form == form


def test_of_two_lists_of_messages_only_the_second_is_learnt():
    again = parsed({"prompt": [USER, REPLY, USER], "completion": [REPLY]}).conversation
    assert [message.get("learn", True) for message in again] == [True, False, True, True]


def test_an_input_is_part_of_what_is_asked():
    row = {"instruction": "Add", "input": "2 and 2", "output": "4"}
    assert parsed(row).conversation[0]["content"] == "Add\n\n2 and 2"


def test_pictures_make_the_row_bad():
    with pytest.raises(ValueError, match="column 'images'"):
        parsed({"messages": TURN, "images": ["a.png"]})
    with pytest.raises(ValueError, match="message 0: a part of its content"):
        chat({"role": "user", "content": [{"type": "image", "url": "a.png"}]}, REPLY)


def write(path, *given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return TierSource(str(path))


def test_one_line_says_how_rows_were_understood_and_one_which_keys_were_not_used(tmp_path):
    row = {"id": 7, "messages": [{**USER, "mood": "merry"}, REPLY], "answer": "4"}
    data = read(write(tmp_path / "ours.jsonl", row, row, {"prompt": "a", "response": "b"}))
    assert data.notes == (
        "3 rows read as messages of role and content (2); prompt and response (1)",
        "not used, since nothing here is trained by it: message.mood (2 of 3), answer (2 of 3)",
    )


def test_thoughts_in_tags_of_another_name_are_told_of(tmp_path):
    said = {"role": "assistant", "content": "<reasoning>two twos</reasoning>4"}
    notes = read(write(tmp_path / "x.jsonl", {"messages": TURN}, {"messages": [USER, said]})).notes
    assert notes[1].startswith("1 of 2 rows hold <reasoning> … </reasoning>, which is learnt as it stands")


def test_a_json_array_is_read_like_lines(tmp_path):
    (tmp_path / "ours.json").write_text(
        "\ufeff [\n" + json.dumps({"messages": TURN}, indent=2) + ",\n 3, {}]\n", "utf-8"
    )
    first, second, third = rows(tmp_path / "ours.json")
    assert first.value == {"messages": TURN}
    assert (second.number, second.fault) == (2, "expected a JSON object, not a number")
    assert third.value == {}
    (tmp_path / "none.json").write_text("[]")
    assert list(rows(tmp_path / "none.json")) == []


@pytest.mark.parametrize(
    ("text", "place"), [("[{}, {]", "element 2"), ("[{} {}]", "after element 1"), ("[{}", "element 1")]
)
def test_a_broken_array_is_one_error_with_its_place(tmp_path, text, place):
    (tmp_path / "ours.json").write_text(text)
    with pytest.raises(InputError, match=place):
        list(rows(tmp_path / "ours.json"))


def test_lines_end_where_json_says_and_not_where_unicode_has_a_line_separator(tmp_path):
    rows_ = [{"problem": "one\u2028two\u0085three", "answer": "1"}, {"problem": "four", "answer": "2"}]
    path = tmp_path / "math500.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_), encoding="utf-8")
    assert list(objects(path)) == rows_


def test_objects_name_the_first_row_that_is_none(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n[]\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2: expected a JSON object, not a list"):
        list(objects(tmp_path / "a.jsonl"))


def call(arguments):
    return {
        "messages": [USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": arguments}]}]
    }


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"x": null, "y": 0}', {"x": None, "y": 0}),
        ({"x": None, "y": [{"z": None}]}, {"x": None, "y": [{"z": None}]}),
        ("", {}),
        (None, {}),
    ],
)
def test_a_null_that_somebody_wrote_is_an_argument(arguments, kept):
    (made,) = parse_row(call(arguments), {}).conversation[-1]["tool_calls"]
    assert made["function"]["arguments"] == kept


@pytest.mark.parametrize("arguments", [0, False, [1, 2], "[1]", "3"])
def test_arguments_that_are_no_object_are_not_taken_for_none(arguments):
    with pytest.raises(ValueError, match="message 1: arguments of tool call 'f' must be an object"):
        parse_row(call(arguments), {})


@pytest.mark.parametrize(
    "row",
    [
        call({"x": "\ud800"}),
        call({"\ud800": "x"}),
        {"messages": TURN, "tools": [{"type": "function", "function": {"name": "f", "description": "a\0"}}]},
        {"messages": [USER, {"role": "tool", "name": "\udfff", "content": "x"}, {"role": "assistant", "content": "6"}]},
    ],
)
def test_text_that_no_tokenizer_takes_makes_the_row_bad_wherever_it_stands(row):
    with pytest.raises(ValueError, match="NUL character or half a surrogate pair"):
        parse_row(row, {})


@pytest.mark.parametrize("value", [b"x", datetime.date(2026, 1, 1), decimal.Decimal(1)])
def test_a_tool_or_a_call_holds_what_json_has(value):
    """Columns of Parquet may be of any type; a template writes JSON."""
    for row in (call({"x": [value]}), {"messages": TURN, "tools": [{"name": "f", "since": value}]}):
        with pytest.raises(ValueError, match=r"a tool or a call holds .*, which is nothing that JSON has"):
            parse_row(row, {})


def test_an_answer_that_is_a_json_list_is_an_answer():
    answer = '[{"name": "f", "arguments": {"x": 1}}]'
    assert parse_row({"query": '[{"a": 1}]', "response": answer}, {}).conversation == [
        {"role": "user", "content": '[{"a": 1}]'},
        {"role": "assistant", "content": answer},
    ]


@pytest.mark.parametrize("completion", ["6", [{"role": "assistant", "content": "6"}]])
def test_a_thought_beside_lists_of_messages_is_that_of_the_reply_that_is_learnt(completion):
    prompt = [USER, {"role": "assistant", "content": "What?"}, USER]
    parsed = parse_row({"prompt": prompt, "completion": completion, "reasoning": "2 * 3"}, {})
    assert parsed.conversation[-1]["reasoning_content"] == "2 * 3"
    assert "reasoning_content" not in parsed.conversation[1]
    assert not parsed.unused


def test_replies_that_were_cut_off_in_their_thought_are_told_of(tmp_path):
    said = [
        {"content": "", "reasoning_content": "2 * 3"},
        {"content": "<think>2 *"},
        {"content": "<think>6</think>\n"},
        {"content": "<think>2 * 3</think>6"},
        {"content": "", "reasoning_content": "look", "tool_calls": [{"name": "f", "arguments": {}}]},
    ]
    rows_ = [{"messages": [USER, {"role": "assistant", **reply}]} for reply in said]
    notes = read(write(tmp_path / "x.jsonl", *rows_)).notes
    assert notes[1].startswith("3 of 5 rows have a reply that is a thought without an answer")


def test_one_column_for_two_is_refused(tmp_path):
    source = TierSource(str(tmp_path / "x.jsonl"), {"prompt": "a", "response": "a"})
    with pytest.raises(InputError, match="columns: 'a' stands for two of them"):
        read(source)


def test_a_column_that_stands_twice_in_parquet_is_refused_and_empty_keys_of_structs_are_none(tmp_path):
    columns = [pyarrow.array(["q"]), pyarrow.array(["a"]), pyarrow.array(["b"])]
    parquet.write_table(pyarrow.table(columns, names=["prompt", "response", "response"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="column 'response' stands twice in it"):
        list(rows(tmp_path / "a.parquet"))
    table = pyarrow.table({"messages": [[{"role": "user", "name": None}, {"role": "assistant", "name": "x"}]]})
    parquet.write_table(table, tmp_path / "b.parquet")
    assert [row.value for row in rows(tmp_path / "b.parquet")] == [
        {"messages": [{"role": "user"}, {"role": "assistant", "name": "x"}]}
    ]


@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
def test_a_column_of_calls_that_is_empty_holds_no_call(key):
    """Columns that are text have "" where a row has nothing."""
    assert chat(USER, {**REPLY, key: ""}) == TURN


def test_a_call_with_a_role_of_its_own_has_a_mask_and_a_thought_as_replies_have():
    said = {"from": "function_call", "value": json.dumps(CALL)}
    assert chat(USER, {**said, "weight": 0}, USER, REPLY)[1]["learn"] is False
    assert chat(USER, {**said, "reasoning": "I add"})[1]["reasoning_content"] == "I add"


@pytest.mark.parametrize("key", ["parameters", "input", "args"])
@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}', [1]])
def test_arguments_under_another_name_are_not_lost(key, arguments):
    made = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", key: arguments}}]}
    with pytest.raises(ValueError, match=f"message 1: tool call 'f' has no 'arguments' but '{key}'"):
        chat(USER, made)
    chat(USER, {**made, "tool_calls": [{"name": "f", key: None, "index": 0}]})


def test_parts_of_a_message_lose_nothing_they_carry():
    """A mask of a part, what else it holds, and that its thought came behind text."""

    def said(*parts):
        return parsed({"messages": [USER, {"role": "assistant", "content": list(parts)}]})

    text, thought = {"type": "text", "text": "4"}, {"type": "thinking", "thinking": "two twos"}
    with pytest.raises(ValueError, match="message 1: 'train' masks a part of its content"):
        said({**text, "train": False}, text)
    assert said({**text, "train": True, "mood": "merry"}).unused == ("message.content.mood",)
    with pytest.raises(ValueError, match="message 1: a thought stands behind text of the same message"):
        said(thought, text, thought, text)
    asked = {"role": "user", "content": [thought, {"type": "text", "text": USER["content"]}]}
    row = parsed({"messages": [asked, REPLY]})
    assert (row.conversation, row.unused) == (TURN, ("message.content.thinking",))
    both = said(thought, {"type": "reasoning", "text": ", so 4"}, text).conversation[1]
    assert both == {**REPLY, "reasoning_content": "two twos, so 4"}


@pytest.mark.parametrize("switch", ["on", "off", "None", True, False])
def test_a_switch_that_says_whether_there_is_a_thought_is_no_thought(switch):
    """Nemotron's post-training data has `reasoning: on` beside its messages."""
    thinking = {"role": "assistant", "content": "<think>\ntwo twos\n</think>\n\n4"}
    for reply in (REPLY, thinking):
        row = parsed({"messages": [USER, dict(reply)], "reasoning": switch})
        assert (row.conversation, row.unused) == ([USER, reply], ("reasoning",))
    assert chat(USER, {**REPLY, "thinking": switch, "reasoning": "two twos"})[1]["reasoning_content"] == "two twos"
    assert parsed({"prompt": "2+2?", "response": "4", "reasoning": switch}).conversation == TURN


def test_a_thought_told_twice_is_kept_once_where_the_template_writes_its_first_tag():
    inline = {"role": "assistant", "content": "two twos\n</think>\n\n4"}
    assert chat(USER, {**inline, "reasoning": "two twos"}) == [USER, inline]
    with pytest.raises(ValueError, match="message 1: a thought stands in its content, and another one beside it"):
        chat(USER, {"role": "assistant", "content": "\n</think>\n\n4", "reasoning": "two twos"})


def test_a_speaker_beside_the_role_is_told_of():
    assert parsed({"messages": [USER, {**REPLY, "from": "human"}]}).unused == ("message.from",)


def test_messages_that_are_text_are_held_to_what_lines_are():
    twice = '[{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "x"}]'
    with pytest.raises(ValueError, match="messages must be a list"):
        parsed({"messages": twice})
    with pytest.raises(ValueError, match="arguments of tool call 'f': key 'x' stands twice"):
        parse_row(call('{"x": 1, "x": 2}'), {})


def test_what_is_nested_too_deeply_is_a_bad_row_and_no_traceback(tmp_path):
    deep = json.loads('{"a":' * 700 + "1" + "}" * 700)
    with pytest.raises(InputError, match=r"x\.jsonl:2: nested too deeply"):
        read(write(tmp_path / "x.jsonl", {"messages": TURN}, call(deep)))
    with pytest.raises(InputError, match=r"y\.jsonl:1: messages must be a list"):
        read(write(tmp_path / "y.jsonl", {"messages": '[{"role":' + "[" * 100_000}))


@pytest.mark.parametrize(
    ("begin", "end"), [("<|begin_of_thought|>", "<|end_of_thought|>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷")]
)
def test_marks_of_a_thought_that_are_no_tags_are_told_of_too(tmp_path, begin, end):
    said = {"role": "assistant", "content": f"{begin}two twos{end}4"}
    notes = read(write(tmp_path / "x.jsonl", {"messages": [USER, said]})).notes
    assert notes[1].startswith(f"1 of 1 rows hold {begin} … {end}, which is learnt as it stands")
