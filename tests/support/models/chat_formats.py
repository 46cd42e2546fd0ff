"""Chat templates in the published formats of public model families, each built from how its turns look: our own text."""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """What stands around each message.

    Attributes:
        user, reply: around the text of a turn, `{}` in its place. asks: behind the last question, to ask for a reply.
        system: around a system message, `{}` in its place; "" folds it into the first question, None leaves it to `user`.
        start: before everything. tokens: special tokens that no turn shows by itself.
    """

    user: str
    reply: str
    asks: str
    system: str | None = None
    start: str = ""
    tokens: str = ""


def template(form: Format) -> str:
    """Returns the Jinja template of a format."""

    def around(text: str, said: str = "m.content") -> str:
        before, _, behind = text.partition("{}")
        return "{{- " + f"{before!r} + {said} + {behind!r}" + " -}}"

    folded = form.system == ""
    system = around(form.user) if form.system is None else around(form.system) if form.system else ""
    question = around(form.user, "first.text + m.content") if folded else around(form.user)
    head = "{%- set first = namespace(text='') -%}" if folded else ""
    keep = "{%- set first.text = m.content + '\\n\\n' -%}" if folded else system
    forget = "{%- set first.text = '' -%}" if folded else ""
    return (
        f"{head}{{{{- {form.start!r} -}}}}"
        "{%- for m in messages -%}{%- if m.role == 'system' -%}" + keep + "{%- elif m.role == 'user' -%}" + question + forget
        + "{%- elif m.role == 'assistant' -%}" + around(form.reply)
        + "{%- else -%}{{- raise_exception('no role ' + m.role) -}}{%- endif -%}{%- endfor -%}"
        + "{%- if add_generation_prompt -%}{{- " + repr(form.asks) + " -}}{%- endif -%}" + f"{{# {form.tokens} #}}"
    )  # fmt: skip


def _header(name: str, left: str, right: str, end: str) -> str:
    return f"{left}{name}{right}{{}}{end}"


LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>")
FORMATS = {
    "alpaca": Format("### Instruction:\n{}\n\n", "### Response:\n{}</s>\n\n", "### Response:\n", "{}\n\n", tokens="</s>"),
    "vicuna": Format("USER: {} ", "ASSISTANT: {}</s>", "ASSISTANT:", "{} ", tokens="</s>"),
    "zephyr": Format("<|user|>\n{}</s>\n", "<|assistant|>\n{}</s>\n", "<|assistant|>\n", "<|system|>\n{}</s>\n"),
    "openchat": Format("GPT4 Correct User: {}<|end_of_turn|>", "GPT4 Correct Assistant: {}<|end_of_turn|>",
                       "GPT4 Correct Assistant:", "{}<|end_of_turn|>", "<s>"),
    "falcon": Format("User: {}\n\n", "Falcon: {}\n\n", "Falcon:", "System: {}\n\n"),
    "solar": Format("### User:\n{}\n\n", "### Assistant:\n{}</s>\n\n", "### Assistant:\n", "### System:\n{}\n\n", tokens="</s>"),
    "llama-2 with system": Format("<s>[INST] {} [/INST]", " {} </s>", "", "<<SYS>>\n{}\n<</SYS>>\n\n"),
    "llama-3": Format(_header("user", *LLAMA3), _header("assistant", *LLAMA3),
                      "<|start_header_id|>assistant<|end_header_id|>\n\n", _header("system", *LLAMA3), "<|begin_of_text|>"),
    "llama-4": Format("<|header_start|>user<|header_end|>\n\n{}<|eot|>", "<|header_start|>assistant<|header_end|>\n\n{}<|eot|>",
                      "<|header_start|>assistant<|header_end|>\n\n", "<|header_start|>system<|header_end|>\n\n{}<|eot|>",
                      "<|begin_of_text|>"),
    "gemma-3": Format("<start_of_turn>user\n{}<end_of_turn>\n", "<start_of_turn>model\n{}<end_of_turn>\n",
                      "<start_of_turn>model\n", "", "<bos>"),
    "mistral v3": Format("[INST] {}[/INST]", " {}</s>", "", "", "<s>"),
    "mistral tekken": Format("[INST]{}[/INST]", "{}</s>", "", "[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]", "<s>"),
    "phi-4": Format("<|im_start|>user<|im_sep|>{}<|im_end|>", "<|im_start|>assistant<|im_sep|>{}<|im_end|>",
                    "<|im_start|>assistant<|im_sep|>", "<|im_start|>system<|im_sep|>{}<|im_end|>"),
    "olmo-2": Format("<|user|>\n{}\n", "<|assistant|>\n{}<|endoftext|>\n", "<|assistant|>\n", "<|system|>\n{}\n",
                     "<|endoftext|>"),
    "granite-3": Format("<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n",
                        "<|start_of_role|>assistant<|end_of_role|>{}<|end_of_text|>\n",
                        "<|start_of_role|>assistant<|end_of_role|>", "<|start_of_role|>system<|end_of_role|>{}<|end_of_text|>\n"),
    "command-r": Format("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
                        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
                        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
                        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{}<|END_OF_TURN_TOKEN|>", "<s>"),
    "exaone-3": Format("[|user|]{}\n", "[|assistant|]{}[|endofturn|]\n", "[|assistant|]", "[|system|]{}[|endofturn|]\n"),
    "deepseek-v2": Format("User: {}\n\n", "Assistant: {}<｜end▁of▁sentence｜>", "Assistant:", "{}\n\n",
                          "<｜begin▁of▁sentence｜>"),
    "deepseek-v3": Format("<｜User｜>{}", "<｜Assistant｜>{}<｜end▁of▁sentence｜>", "<｜Assistant｜>", "{}",
                          "<｜begin▁of▁sentence｜>"),
    "deepseek-coder": Format("### Instruction:\n{}\n", "### Response:\n{}\n<|EOT|>\n", "### Response:\n", "{}", "<s>"),
    "kimi-k2": Format("<|im_user|>user<|im_middle|>{}<|im_end|>", "<|im_assistant|>assistant<|im_middle|>{}<|im_end|>",
                      "<|im_assistant|>assistant<|im_middle|>", "<|im_system|>system<|im_middle|>{}<|im_end|>"),
    "hunyuan": Format("<|user|>{}<|eos|>", "<|assistant|>{}<|eos|>", "<|assistant|>", "<|system|>{}<|eos|>", "<|bos|>"),
    "seed-oss": Format("<|bos|>user\n{}<|eos|>", "<|bos|>assistant\n{}<|eos|>", "<|bos|>assistant\n", "<|bos|>system\n{}<|eos|>"),
    "nemotron-4": Format("<extra_id_1>User\n{}\n", "<extra_id_1>Assistant\n{}\n", "<extra_id_1>Assistant\n",
                         "<extra_id_0>System\n{}\n"),
    "jamba": Format("<|bom|><|user|> {}<|eom|>", "<|bom|><|assistant|> {}<|eom|>", "<|bom|><|assistant|>",
                    "<|bom|><|system|> {}<|eom|>", "<|startoftext|>"),
    "minimax": Format("<|beginning_of_sentence|>user name=user\n{}<|end_of_sentence|>\n",
                      "<|beginning_of_sentence|>ai name=assistant\n{}<|end_of_sentence|>\n",
                      "<|beginning_of_sentence|>ai name=assistant\n", "<|beginning_of_sentence|>system\n{}<|end_of_sentence|>\n"),
    "chatglm-3": Format("<|user|>\n {}", "<|assistant|>\n {}", "<|assistant|>", "<|system|>\n {}", "[gMASK]"),
    "apertus": Format("<|user_start|>{}<|user_end|>", "<|assistant_start|>{}<|assistant_end|>", "<|assistant_start|>",
                      "<|system_start|>{}<|system_end|>", "<s>"),
    "baichuan-2": Format("<|reserved_106|>{}", "<|reserved_107|>{}</s>", "<|reserved_107|>", "{}", tokens="</s>"),
    "phi-3-small": Format("<|user|>\n{}<|end|>\n", "<|assistant|>\n{}<|end|>\n", "<|assistant|>\n",
                          "<|system|>\n{}<|end|>\n", "<|endoftext|>"),
    "teuken": Format("User: {}\n", "Assistant: {}</s>\n", "Assistant:", "System: {}\n", tokens="</s>"),
}  # fmt: skip
