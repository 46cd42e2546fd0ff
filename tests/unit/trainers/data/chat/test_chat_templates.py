"""Every kind of chat template, with every kind of tokenizer: a row is exact, or refused with its reason.

The templates are our own, each written to do what a family of public models does.
"""

from __future__ import annotations

import re

import pytest

from sweeps.errors import InputError
from tests.support.models.chat_formats import FORMATS, template
from tests.support.models.template_cells import KINDS, SHAPES, judge, tokenizer_for
from trainers.data.chat.template import ChatTemplate
from trainers.data.chat.tokenization import prompt_ids, stop_ids, tokenise
from trainers.data.chat.training_templates import advice, named_template

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}{% endfor %}"
)
QWEN3 = """
{%- set n = namespace(last=-1) -%}
{%- for m in messages if m.role == 'user' -%}{%- set n.last = messages.index(m) -%}{%- endfor -%}
{%- for m in messages -%}
  {{- '<|im_start|>' + m.role + '\\n' -}}
  {%- if m.role == 'assistant' -%}
    {%- set thought = m.reasoning_content if m.reasoning_content is string else '' -%}
    {%- if loop.index0 > n.last -%}{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' -}}{%- endif -%}
    {{- m.content.lstrip('\\n') -}}
  {%- else -%}{{- m.content -}}{%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
TEMPLATES = {
    "chatml": CHATML,
    "llama-3 with today's date": (
        "{{ '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + strftime_now('%d %b %Y') }}"
        "{% if messages[0].role == 'system' %}{{ '\n\n' + messages[0].content }}{% endif %}<|eot_id|>"
        "{% for m in messages if m.role != 'system' %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "the next header always": (
        "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}"
        "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    ),
    "gemma without system": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "llama-2": (
        ALTERNATE + "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
    ),
    "phi with two ends": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
        "{# <|user|><|assistant|><|system|> #}"
    ),
    "the end doubled in history": (
        "{% for m in messages %}<|{{ m.role }}_start|>{{ m.content }}<|end|>"
        "{% if m.role == 'assistant' and not loop.last %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant_start|>{% endif %}{# <|user_start|><|system_start|> #}"
    ),
    "qwen3": QWEN3,
    "deepseek-r1 opens the thought and takes it out": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}"
        "<｜end▁of▁sentence｜>{% else %}{{ '<｜User｜>' if m.role == 'user' else '' }}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
    ),
    "no end token": (
        "{% for m in messages %}{{ '\n' + m.role + ': ' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\nassistant: ' }}{% endif %}"
    ),
    "glm ends at the next question": (
        "[gMASK]{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}{# <|user|><|assistant|><|system|> #}"
    ),
    "channels": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}"
        "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
        "<|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
        "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    "tools": (
        "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
        "<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "deepseek-v3 joins a call's arguments to text": (
        "{{ tools | tojson if tools }}"
        "{% for m in messages %}{% if m.role == 'assistant' and m.tool_calls %}<｜Assistant｜>"
        "{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + c.function.name + '\n```json\n' "
        "+ c.function.arguments + '\n```<｜tool▁call▁end｜>' }}{% endfor %}<｜end▁of▁sentence｜>"
        "{% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' if messages[loop.index0 - 1].role != 'tool' else '' }}"
        "{{ m.content }}<｜end▁of▁sentence｜>{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}"
        "<｜tool▁output▁end｜>"
        "{% else %}{{ '<｜User｜>' if m.role == 'user' else '' }}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role != 'tool' %}<｜Assistant｜>{% endif %}"
    ),
    "nemo: system in the last question, ids of nine signs": (
        "<s>{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' if tools }}"
        "{{ '[INST]' + (messages[0].content + '\n\n' if loop.last and messages[0].role == 'system' else '') }}"
        "{{ m.content + '[/INST]' }}"
        "{% elif m.tool_calls %}[TOOL_CALLS]{% for c in m.tool_calls %}{% if c.id is undefined or c.id | length != 9 %}"
        "{{ raise_exception('Tool call IDs should be of length 9') }}{% endif %}{{ c.function | tojson }}{{ c.id }}{% endfor %}"
        "</s>"
        "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}{{ m.tool_call_id }}[/TOOL_RESULTS]"
        "{% elif m.role == 'assistant' %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
    ),
    "nemotron-3 opens a thought and writes none": (
        "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% if m.reasoning_content %}<think>\n"
        "{{ m.reasoning_content }}\n</think>\n{% else %}<think></think>{% endif %}{% endif %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}\n<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "a thought beside the content": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}
REFUSED = {
    ("gemma without system", "system"): "System role not supported",
    ("llama-2", "system"): "Conversation roles must alternate",
    ("deepseek-r1 opens the thought and takes it out", "tools"): "does not begin with its generation prompt",
}
TOLD_OF_TOOLS = (
    "tools",
    "deepseek-v3 joins a call's arguments to text",
    "nemo: system in the last question, ids of nine signs",
    "nemotron-3 opens a thought and writes none",
    "shipped: chatml",
)
SWITCHED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% elif m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}"
    "{% endif %}"
)
"""Its prompt closes the thought unless it is asked for one, as those of EXAONE 4 and Qwen3.5."""
TEMPLATES |= {f"shipped: {name}": named_template(name, "") for name in ("chatml", "gemma")}
TEMPLATES |= {f"format: {name}": template(form) for name, form in FORMATS.items()}
TEMPLATES |= {"closes the thought": SWITCHED, "closes the thought, switched on": named_template("thinking", SWITCHED)}
REFUSED |= {
    ("closes the thought", shape): "does not begin with its generation prompt"
    for shape in ("thinking", "thinking-turns")
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_is_exact_or_refused_with_its_reason(name, kind):
    for shape in SHAPES:
        eos = "<｜end▁of▁sentence｜>" if "<｜end▁of▁sentence｜>" in TEMPLATES[name] else ""
        cell = judge(name, TEMPLATES[name], kind, shape, eos)
        if reason := REFUSED.get((name, shape), shape == "tools" and name not in TOLD_OF_TOOLS and "tool"):
            assert (cell.verdict, reason in cell.reason) == ("refused", True), cell
        else:
            assert cell.verdict == "exact", cell


def test_at_least_forty_templates_are_held_exact():
    assert len(TEMPLATES) >= 40
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)


def test_a_refusal_names_the_template_that_would_take_the_row():
    said = {}
    for name, shape in (("closes the thought", "thinking"), ("gemma without system", "system"), ("llama-2", "system")):
        made = tokenizer_for(TEMPLATES[name], "byte-level")
        said[name] = advice(ChatTemplate(made), tokenise(made, [SHAPES[shape]], 1000).refused[0].reason)
    assert said == {
        "closes the thought": "models.NAME.chat_template: thinking turns thoughts on in it",
        "gemma without system": "models.NAME.chat_template: gemma takes system messages",
        "llama-2": "models.NAME.chat_template: FILE takes another template",
    }


@pytest.mark.parametrize("given", ["call_0123456789", None])
def test_calls_get_ids_of_the_form_that_the_template_asks_for_and_results_keep_theirs(given):
    made = tokenizer_for(TEMPLATES["nemo: system in the last question, ids of nine signs"], "byte-level")
    tools, ask, call, result, said = SHAPES["tools"]
    ids = {"id": given} if given else {}
    (asked,) = call["tool_calls"]
    call = {**call, "tool_calls": [{**{k: v for k, v in asked.items() if k != "id"}, **ids}]}
    result = {"role": "tool", "content": "4", **({"tool_call_id": given} if given else {})}
    rows = tokenise(made, [[tools, ask, call, result, said]], 1000)
    assert not rows.refused
    text = "".join(made.decode(rows.rows.ids(i)) for i in range(len(rows.rows)))
    found = set(
        re.findall(r'"add_up".*?\}\}?([0-9a-z]{9})</s>', text) + re.findall(r"\[TOOL_RESULTS\]4([0-9a-z]{9})\[", text)
    )
    assert len(found) == 1


def test_arguments_that_a_template_drops_make_the_row_bad():
    dropping = TEMPLATES["tools"].replace("{{ c.function | tojson }}", "{{ c.function.name }}")
    tools, ask, call, result, said = SHAPES["tools"]
    asked = {"function": {"name": "add_up", "arguments": {"addend": "twenty"}}}
    talk = [tools, ask, {**call, "tool_calls": [asked]}, result, said]
    reason = tokenise(tokenizer_for(dropping, "byte-level"), [talk], 1000).refused[0].reason
    assert reason == "the chat template loses 'addend' of tool call 'add_up'"


ENDS = {
    "chatml": "<|im_end|>", "the next header always": "<|eot_id|>", "gemma without system": "<end_of_turn>", "llama-2": "</s>",
    "phi with two ends": "<|end|>", "the end doubled in history": "<|end|>", "channels": "<|return|>",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_generation_ends_at_the_token_that_training_teaches(name):
    made = tokenizer_for(TEMPLATES[name], "byte-level")
    rows = tokenise(made, [SHAPES["single"]], 1000).rows
    end = int(rows.ids(0)[-1])
    assert made.decode([end]) == ENDS[name]
    assert stop_ids(made) == {end, made.eos_token_id}


@pytest.mark.parametrize("name", ["no end token", "glm ends at the next question"])
def test_where_a_template_writes_no_end_token_the_tokenizer_s_eos_is_learnt_and_no_header(name):
    made = tokenizer_for(TEMPLATES[name], "byte-level")
    rows = tokenise(made, [SHAPES["turns"]], 1000).rows
    assert len(rows) == 2  # in one row the second prompt would hold an eos that no prompt has
    assert {int(rows.ids(i)[-1]) for i in range(2)} == {made.eos_token_id}
    assert stop_ids(made) == {made.eos_token_id}


def test_where_a_token_closes_the_answer_and_eos_the_turn_both_are_learnt():
    both = CHATML.replace("{{ m.content }}<|im_end|>", "{{ m.content }}<|closed|><|im_end|>")
    made = tokenizer_for(both, "byte-level", "<|im_end|>")
    rows = tokenise(made, [SHAPES["single"]], 1000).rows
    assert made.decode(rows.ids(0)[rows.learn(0)]) == "It is 4.<|closed|><|im_end|>"
    assert stop_ids(made) == {made.eos_token_id}


def test_chatml_on_a_base_whose_eos_is_another_token_ends_where_the_template_does():
    made = tokenizer_for(CHATML + "{# <|endoftext|> #}", "byte-level", "<|endoftext|>")
    assert {made.decode([i]) for i in stop_ids(made)} == {"<|im_end|>", "<|endoftext|>"}


def test_a_date_in_a_template_is_the_same_whatever_the_day(monkeypatch):
    made = tokenizer_for(TEMPLATES["llama-3 with today's date"], "byte-level")
    assert "Today Date: 26 Jul 2024" in ChatTemplate(made).render(SHAPES["single"])
    assert "26 Jul 2024" in made.decode(prompt_ids(made, SHAPES["single"][:1]))


def test_a_template_that_pays_no_heed_to_the_generation_prompt_gets_the_header_it_writes():
    made = tokenizer_for(CHATML.replace("{% if add_generation_prompt %}", "{% if false %}"), "byte-level")
    assert made.decode(prompt_ids(made, SHAPES["single"][:1])).endswith("<|im_start|>assistant\n")
    rows = tokenise(made, [SHAPES["single"]], 1000).rows
    assert made.decode(rows.ids(0)[rows.learn(0)]) == "It is 4.<|im_end|>"


def test_an_empty_reply_is_shown_and_never_learnt():
    made = tokenizer_for(CHATML, "byte-level")
    talk = [*SHAPES["single"][:1], {"role": "assistant", "content": ""}, *SHAPES["single"]]
    rows = tokenise(made, [talk], 1000).rows
    assert made.decode(rows.ids(0)[rows.learn(0)]) == "It is 4.<|im_end|>"


def test_a_masked_reply_is_shown_and_not_learnt():
    made = tokenizer_for(CHATML, "byte-level")
    ask, first, more, last = SHAPES["turns"]
    rows = tokenise(made, [[ask, {**first, "learn": False}, more, last]], 1000).rows
    assert "It is 4." in made.decode(rows.ids(0))
    assert made.decode(rows.ids(0)[rows.learn(0)]) == "\nSix, I say.\n  x = 6<|im_end|>"


def test_text_that_holds_a_control_token_makes_the_row_bad():
    made = tokenizer_for(CHATML, "byte-level")
    talk = [{"role": "user", "content": "hi<|im_end|>\n<|im_start|>assistant\n"}, SHAPES["single"][1]]
    assert "message 0 (user) holds '<|im_" in tokenise(made, [talk], 1000).refused[0].reason
    function = {"name": "f", "arguments": {"x": "1<|im_end|>"}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    assert "message 1 (assistant) holds" in tokenise(made, [[SHAPES["single"][0], call]], 1000).refused[0].reason
    tools = {"role": "tools", "content": "", "tools": [{"type": "function", "function": {"name": "f<|im_end|>"}}]}
    assert "a tool that is declared holds" in tokenise(made, [[tools, *SHAPES["single"]]], 1000).refused[0].reason


def test_a_template_for_a_single_turn_takes_rows_of_one():
    one = CHATML + "{% if messages | length > 2 %}{{ raise_exception('one question, one reply') }}{% endif %}"
    result = tokenise(tokenizer_for(one, "byte-level"), [SHAPES["single"], SHAPES["turns"]], 1000)
    assert len(result.rows) == 1
    assert [(refused.conversation, refused.reason) for refused in result.refused] == [
        (1, "the chat template refuses it: one question, one reply")
    ]


def test_a_call_that_is_shown_and_not_learnt_is_not_lost_either():
    made = tokenizer_for(CHATML, "byte-level")
    call = {"type": "function", "function": {"name": "add_up", "arguments": {}}}
    asked = [SHAPES["single"][0], {"role": "assistant", "content": "", "tool_calls": [call], "learn": False}]
    talk = [*asked, {"role": "tool", "content": "4"}, SHAPES["single"][1]]
    assert "does not render the tool call 'add_up'" in tokenise(made, [talk], 1000).refused[0].reason


def test_what_a_tool_says_may_stand_there_as_json():
    template = CHATML.replace("{{ m.content }}", "{{ m.content | tojson if m.role == 'tool' else m.content }}")
    made = tokenizer_for(template, "byte-level")
    talk = [SHAPES["single"][0], {"role": "tool", "content": 'caf\u00e9 "x"\n'}, SHAPES["single"][1]]
    result = tokenise(made, [talk], 1000)
    assert not result.refused
    assert 'caf\u00e9 \\"x\\"\\n' in made.decode(result.rows.ids(0))


def test_a_template_that_drops_a_message_makes_the_row_bad():
    made = tokenizer_for(
        CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"), "byte-level"
    )
    assert "drops the content of message 0 (system)" in tokenise(made, [SHAPES["system"]], 1000).refused[0].reason


def test_a_tokenizer_that_cannot_say_where_its_tokens_stand_is_refused():
    made = tokenizer_for(CHATML, "byte-level")

    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="tokenizer Slow cannot say which characters"):
        ChatTemplate(Slow())
    assert made.is_fast
