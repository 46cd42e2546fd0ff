"""Is a chat template rendered exactly? One cell for each template, kind of tokenizer and shape of conversation.

    python -m tests.support.models.template_cells FOLDER     a table of all *.jinja files there, such as those of public models

What is asked of a cell does not come from `trainers.data.chat.tokenization`: prompts and whole conversations are rendered by
transformers, tokenised as one text each, and compared with the rows: each begins with the tokens of its prompt, learns all of the
reply and nothing but it, ends with an added token, and has the tokens of the whole text wherever those begin with the prompt's.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from trainers.data.chat.tokenization import tokenise
from trainers.data.types import TOOLS_ROLE, Conversation

KINDS = ("byte-level", "sentencepiece", "metaspace-first", "unigram")
SPECIAL = re.compile(
    r"<\|[^|<>\s']+\|>|<｜[^｜<>\s']+｜>|\[/?[A-Z_]+\]|</?(?:s|bos|eos|start_of_turn|end_of_turn|turn)>|\[gMASK\]"
)
LETTERS = (
    "The quick brown fox jumps over the lazy dog. 2+2=4; what is the capital of France? Paris! user assistant think"
)
ASK, ANSWER, MORE, LAST = "What is 2+2?", "It is 4.", "And 3 + 3?", "\nSix, I say.\n  x = 6"
THOUGHT, OTHER = "two and two\n\nare four", "three and three"
TOOL = {"type": "function", "function": {"name": "add_up", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": {"type": "number", "description": "one"}}, "required": ["a"]}}}  # fmt: skip


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def reply(text: str, thought: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"reasoning_content": thought} if thought else {})}


SHAPES: dict[str, Conversation] = {
    "single": [user(ASK), reply(ANSWER)],
    "system": [{"role": "system", "content": "Be brief."}, user(ASK), reply(ANSWER)],
    "turns": [user(ASK), reply(ANSWER), user(MORE), reply(LAST)],
    "thinking": [user(ASK), reply(ANSWER, THOUGHT)],
    "thinking-turns": [user(ASK), reply(ANSWER, THOUGHT), user(MORE), reply(LAST, OTHER)],
    "tools": [{"role": TOOLS_ROLE, "content": "", "tools": [TOOL]}, user(ASK),
              {"role": "assistant", "content": "", "tool_calls": [
                  {"id": "a1b2c3d4e", "type": "function", "function": {"name": "add_up", "arguments": {"a": 2}}}]},
              {"role": "tool", "tool_call_id": "a1b2c3d4e", "name": "add_up", "content": "4"}, reply(ANSWER)],
}  # fmt: skip


@cache
def trained(kind: str) -> str:
    """Returns a small tokenizer of a kind, trained here, as JSON."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    text = [LETTERS, LETTERS.lower(), "\n\n", " \n", "\n\n\n", "assistant\n", ":\n\n", "  x"] * 20
    if kind == "byte-level":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(
            text, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
        )
        return str(made.to_str())
    signs = [chr(i) for i in range(33, 127)] + ["\n", "▁", "é", "｜"]
    if kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
        made.train_from_iterator(
            text, trainers.UnigramTrainer(vocab_size=300, initial_alphabet=signs, unk_token="<unk>", special_tokens=["<unk>"],
                                          show_progress=False))  # fmt: skip
        return str(made.to_str())
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    if kind == "sentencepiece":  # as Llama 2 and the first Mistral
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=500, initial_alphabet=signs, special_tokens=["<unk>"], show_progress=False,
                                  max_token_length=8))  # fmt: skip
    return str(made.to_str())


@lru_cache(maxsize=4)
def tokenizer_for(template: str, kind: str, eos: str = "") -> Any:
    """Returns a tokenizer with the special tokens that a template writes out."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    found = list(dict.fromkeys(SPECIAL.findall(template)))
    ends = ("<|return|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "</s>", "<eos>")
    eos = eos or next((token for token in ends if token in found), "</s>")
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(trained(kind)), bos_token="<s>", eos_token=eos)
    made.add_special_tokens({"additional_special_tokens": found})
    made.chat_template = template
    return made


class Cell(NamedTuple):
    """`verdict`: exact, refused or wrong, and why."""

    template: str
    kind: str
    shape: str
    verdict: str
    reason: str = ""


def judge(name: str, template: str, kind: str, shape: str, eos: str = "") -> Cell:
    """Compares the rows of one cell with what transformers renders and tokenises."""
    made = tokenizer_for(template, kind, eos)
    conversation = SHAPES[shape]
    result = tokenise(made, [conversation], 100_000)
    if result.refused:
        return Cell(name, kind, shape, "refused", result.refused[0].reason)
    fault = _fault(made, conversation, result)
    return Cell(name, kind, shape, "wrong" if fault else "exact", fault)


def _fault(made: Any, conversation: Conversation, result: Any) -> str:
    tools = conversation[0].get("tools")
    messages = _spelled(made, conversation[1:] if tools else conversation)
    targets = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    rows = [(result.rows.ids(i).tolist(), result.rows.learn(i).tolist()) for i in range(len(result.rows))]
    spans = [(ids, *span) for ids, learn in rows for span in _spans(learn)]
    if len(spans) != len(targets):
        return f"{len(spans)} learnt spans for {len(targets)} replies"
    for i, (ids, start, end) in zip(targets, spans, strict=True):
        prompt = _rendered(made, messages[:i], tools, True)
        if ids[:start] != _encoded(made, prompt):
            return f"reply {i}: the row does not begin with the tokens of its prompt"
        original = conversation[i + bool(tools)]
        text, thought = made.decode(ids[:end]), original.get("reasoning_content", "")
        said = text[len(made.decode(ids[:start])) :]
        for part in (original["content"], thought):
            if "".join(part.split()) not in "".join(said.split()):
                return f"reply {i}: {part!r} is not learnt in {said!r}"
        if ids[end - 1] not in made.added_tokens_decoder:
            return f"reply {i}: ends with {made.decode(ids[end - 1 : end])!r}"
        if _inner(made, ids[start : end - 1], messages[i]):
            return f"reply {i}: learns a token between messages: {said!r}"
        whole = _rendered(made, messages[: i + 1], tools, False)
        by_template = whole.startswith(prompt) and thought in whole[len(prompt) :]
        if by_template and not _same(made, ids[start:end], prompt, whole, text):
            return f"reply {i}: other tokens than those of the whole text"
    return ""


def _spelled(made: Any, messages: Conversation) -> Conversation:
    """Puts thoughts between tags where the template pays no heed to `reasoning_content`."""
    probe = _rendered(made, [user("Q"), reply("A", "THOUGHT")], None, False)
    if "THOUGHT" in probe:
        return messages
    return [user(m["content"]) if m["role"] == "user" else
            {"role": m["role"], "content": f"<think>\n{m['reasoning_content']}\n</think>\n\n{m['content']}"}
            if "reasoning_content" in m else m for m in messages]  # fmt: skip


def _inner(made: Any, ids: list[int], message: dict[str, Any]) -> bool:
    """True when a reply without a call holds the tokenizer's eos or a header before its end."""
    headers = {t for t in ids if t in made.added_tokens_decoder}
    channels = r"<\|(channel|message|start|end)\|>"  # gpt-oss: a thought is a message of its own
    allowed = re.compile(rf"{channels}|<\|(START|END)_(RESPONSE|TEXT|THINKING)\|>|<\|inner_\w+\|>|<\|.*think.*\|>")
    named = [made.added_tokens_decoder[t].content for t in headers]
    return not message.get("tool_calls") and any(not allowed.fullmatch(token) for token in named)


def _same(made: Any, learnt: list[int], prompt: str, whole: str, text: str) -> bool:
    """True when the tokens are those of the whole text, or the prompt's tokens do not part from it there."""
    ids, before = _encoded(made, whole), _encoded(made, prompt)
    if ids[: len(before)] != before:  # the tokenizer joins prompt and reply; then the text alone is compared
        return "".join(text.split()) in "".join(made.decode(ids).split()) + made.eos_token
    inner = learnt[:-1] if learnt[-1] == made.eos_token_id else learnt
    return ids[len(before) : len(before) + len(inner)] == inner


def _rendered(made: Any, messages: Conversation, tools: Any, prompt: bool) -> str:
    from trainers.data.chat.template import TEMPLATE_DATE

    forms = ("%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%d %B %Y")
    table = ", ".join(f"'{form}': '{TEMPLATE_DATE.strftime(form)}'" for form in forms)
    macro = "{%- macro fixed_date(form) -%}{{- {" + table + "}[form] -}}{%- endmacro +%}"
    source = made.chat_template.replace("strftime_now(", "fixed_date(")
    source = macro + source if "fixed_date(" in source else source
    error: Exception | None = None
    for spelled in _call_spellings(messages):
        try:
            text: str = made.apply_chat_template(
                spelled, tools=tools, chat_template=source, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as e:  # the next way to spell calls
            error = e
        else:
            names = [call["function"]["name"] for m in messages for call in m.get("tool_calls", ())]
            if all(name in text for name in names):
                return text
    raise error or ValueError("no spelling of the calls is rendered")


def _call_spellings(messages: Conversation) -> Iterator[Conversation]:
    """The ways in which public templates expect calls: as they are, arguments as text."""
    yield messages
    if not any("tool_calls" in m for m in messages):
        return
    yield [_with_text_arguments(m) for m in messages]


def _with_text_arguments(m: dict[str, Any]) -> dict[str, Any]:
    import json

    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in m.get("tool_calls", ())
    ]
    return {**m, "tool_calls": calls} if calls else m


def _encoded(made: Any, text: str) -> list[int]:
    ids: list[int] = made(text, add_special_tokens=False)["input_ids"]
    return ids


def _spans(learn: list[bool]) -> Iterator[tuple[int, int]]:
    start = None
    for i, flag in enumerate([*learn, False]):
        if flag and start is None:
            start = i
        elif not flag and start is not None:
            yield start, i
            start = None


def main(folder: str) -> None:
    """Prints the verdicts of all templates of a folder, and every wrong cell."""
    from sweeps.errors import InputError

    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    files = sorted(Path(folder).glob("*.jinja"))
    for file in files:
        for kind in KINDS:
            for shape in SHAPES:
                try:
                    cell = judge(file.stem, file.read_text(encoding="utf-8"), kind, shape)
                except InputError as e:
                    cell = Cell(file.stem, kind, shape, "refused", str(e))
                counts[cell.verdict] += 1
                if cell.verdict == "refused":
                    reasons[cell.reason[:60]] += 1
                if cell.verdict == "wrong":
                    print(f"{cell.template:55} {kind:16} {shape:15} {cell.reason[:150]}")
    print(f"{len(files)} templates x {len(KINDS)} tokenizers x {len(SHAPES)} shapes: {dict(counts)}")
    for reason, count in reasons.most_common(12):
        print(f"  {count:4} refused: {reason}")


if __name__ == "__main__":
    main(sys.argv[1])
