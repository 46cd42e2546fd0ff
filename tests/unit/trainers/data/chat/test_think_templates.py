"""Chat templates of reasoning models: thoughts of the reply that is learnt survive, those of history are as the model sees them.

The template here is our own, written to do what Qwen3's does with messages (Qwen3 itself is Apache-2.0): it takes a
thought out of the reply and puts it back in a form of its own, gives a reply without one an empty thought, and drops the
thoughts of turns before the last question.
"""

import pytest

from sweeps.errors import InputError
from tests.support.models.tiny_sft import tokenizer
from trainers.data.chat.template import ChatTemplate
from trainers.data.chat.tokenization import render_rows

QWEN3_LIKE = """
{%- set asked = namespace(last=-1) -%}
{%- for m in messages if m.role == 'user' -%}{%- set asked.last = messages.index(m) -%}{%- endfor -%}
{%- for m in messages -%}
  {{- '<|im_start|>' + m.role + '\\n' -}}
  {%- if m.role == 'assistant' -%}
    {%- set said = m.content.split('</think>')[-1].lstrip('\\n') -%}
    {%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') if '</think>' in m.content else '' -%}
    {%- if loop.index0 > asked.last -%}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}
    {{- said -}}
  {%- else -%}
    {{- m.content -}}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
  {%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""
# What DeepSeek-R1's distillations and QwQ do: the generation prompt opens the thought itself.
OPENED = QWEN3_LIKE.replace("{{- '<|im_start|>assistant\\n' -}}", "{{- '<|im_start|>assistant\\n<think>\\n' -}}")
ASK = {"role": "user", "content": "1+2="}
THINKS = {"role": "assistant", "content": "<think>\n1 and 2\n</think>\n\n3"}
PLAIN = {"role": "assistant", "content": "3"}


def chat(template):
    made = tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = template
    return made


def rows(template, *conversation):
    return render_rows(ChatTemplate(chat(template)), list(conversation))


def learnt(row):
    """What a row with one reply teaches."""
    (reply,) = row.replies
    assert row.text == reply.text
    return reply.text.removeprefix(reply.prompt)


@pytest.mark.parametrize("content", ["<think>\n1 and 2\n</think>\n\n3", "<think>1 and 2</think>3"])
@pytest.mark.parametrize(
    ("template", "prompt"), [(QWEN3_LIKE, "<|im_start|>assistant\n"), (OPENED, "<|im_start|>assistant\n<think>\n")]
)
def test_the_thought_is_learnt_with_the_answer_and_the_end_of_turn(content, template, prompt):
    (row,) = rows(template, ASK, {"role": "assistant", "content": content})
    opening = "" if prompt.endswith("<think>\n") else "<think>\n"
    assert row.replies[0].prompt == f"<|im_start|>user\n1+2=<|im_end|>\n{prompt}"
    assert learnt(row) == f"{opening}1 and 2\n</think>\n\n3<|im_end|>"


@pytest.mark.parametrize("key", ["reasoning_content"])
@pytest.mark.parametrize("template", [QWEN3_LIKE, OPENED])
def test_a_thought_beside_the_content_is_learnt_too(key, template):
    (row,) = rows(template, ASK, {"role": "assistant", key: "1 and 2", "content": "3"})
    assert learnt(row).endswith("1 and 2\n</think>\n\n3<|im_end|>")


def test_a_row_without_a_thought_teaches_to_answer_at_once():
    (row,) = rows(QWEN3_LIKE, ASK, PLAIN)
    assert learnt(row) == "<think>\n\n</think>\n\n3<|im_end|>"


def test_what_leads_to_a_reply_is_what_the_model_is_given_when_it_is_asked():
    for template in (QWEN3_LIKE, OPENED):
        (row,) = rows(template, ASK, THINKS)
        assert row.replies[0].prompt == ChatTemplate(chat(template)).render([ASK], prompt=True)


def test_in_a_long_conversation_each_reply_is_learnt_after_the_history_that_it_will_see():
    again = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n8"}
    found = rows(QWEN3_LIKE, ASK, THINKS, {"role": "user", "content": "4+4="}, again)
    assert [learnt(row) for row in found] == [
        "<think>\n1 and 2\n</think>\n\n3<|im_end|>",
        "<think>\nhm\n</think>\n\n8<|im_end|>",
    ]
    assert "1 and 2" not in found[1].text
    assert "<|im_start|>assistant\n3<|im_end|>" in found[1].text


def test_a_thought_that_is_never_closed_is_kept_as_it_stands():
    (row,) = rows(QWEN3_LIKE, ASK, {"role": "assistant", "content": "<think>\nand on and on"})
    assert learnt(row).endswith("<think>\nand on and on<|im_end|>")


def test_a_reply_whose_thought_the_template_takes_out_is_written_behind_its_generation_prompt():
    lossy = OPENED.replace("loop.index0 > asked.last", "false")
    (row,) = rows(lossy, ASK, THINKS)
    assert row.replies[0].composed
    assert learnt(row) == "1 and 2\n</think>\n\n3<|im_end|>"
    (row,) = rows(lossy, ASK, PLAIN)
    assert learnt(row) == "</think>\n\n3<|im_end|>"


@pytest.mark.parametrize(("template", "opening"), [(QWEN3_LIKE, "<think>\n"), (OPENED, "")])
@pytest.mark.parametrize("thought", ["3", "1+2=3"])
def test_a_thought_that_says_what_the_answer_says_is_not_taken_for_the_answer(template, opening, thought):
    lossy = template.replace("loop.index0 > asked.last", "false")
    (row,) = rows(lossy, ASK, {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n1+2=3"})
    assert learnt(row) == f"{opening}{thought}\n</think>\n\n1+2=3<|im_end|>"


def test_a_thought_that_the_template_writes_with_other_spaces_may_stand_in_the_answer_as_it_was():
    narrow = QWEN3_LIKE.replace("+ thought +", "+ thought | replace(' ', '') +")
    (row,) = rows(narrow, ASK, {"role": "assistant", "content": "<think>1 + 2 = 3</think>1 + 2 = 3"})
    assert learnt(row) == "<think>\n1+2=3\n</think>\n\n1 + 2 = 3<|im_end|>"


def test_a_generation_prompt_that_closes_the_thought_is_refused_for_a_reply_with_one():
    closed = QWEN3_LIKE.replace("loop.index0 > asked.last", "false")
    closed = closed.replace("{{- '<|im_start|>assistant\\n' -}}", "{{- '<|im_start|>assistant\\n</think>' -}}")
    with pytest.raises(InputError, match="does not begin with its generation prompt"):
        rows(closed, ASK, THINKS)
