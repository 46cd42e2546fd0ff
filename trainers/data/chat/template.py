"""A model's chat template, asked the same way wherever text is made from messages: in training, evaluation and preview.

Three things that templates leave open are fixed here:

    the date          templates that print today's date print TEMPLATE_DATE, so that prompts do not change overnight
    the end           which token ends a reply is read off the template, not taken from the tokenizer's eos
    the prompt        what the model sees before it replies: the same text, and the same tokens, for a row and for a question
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sweeps.errors import InputError
from trainers.data.chat.tool_calls import CallForm, fitting_form, formed
from trainers.data.types import TOOLS_ROLE, Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE: Final = datetime.date(2024, 7, 26)
"""What `strftime_now` answers in every template: the date that Llama 3's template prints when it knows none."""
_DIRECTIVES: Final = ("-d", "-m", "-I", "-H", "-j", "e", *"aAbBdjmyYUwHIMSpxXcZ")
_FORMS_OF_THOUGHT: Final = re.compile(r"</?think(ing)?>")


class EndOfTurn(NamedTuple):
    """How a reply ends.

    Attributes:
        suffix: what the template writes behind the text of a conversation's last reply.
        own: how many characters of it belong to the reply: up to and including its end token; 0 if it has none.
        token: id of the end token: the one that the template writes, else the tokenizer's eos, which is then appended.
    """

    suffix: str
    own: int
    token: int

    @property
    def appended(self) -> bool:
        """True when the template writes no end token and the tokenizer's eos is put behind each reply."""
        return self.own == 0


class Frame(NamedTuple):
    """`header`: what asks for a reply, behind the question. `lead`: what the template writes between that and the content."""

    header: str
    lead: str


class ChatTemplate:
    """Renders conversations of one tokenizer.

    Args:
        tokenizer: a fast one (it knows which characters a token stands for) with a chat template and an eos token.

    Raises:
        InputError: the tokenizer is none of these.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                f"tokenizer {type(tokenizer).__name__} cannot say which characters a token stands for, so that no reply "
                "can be told from its prompt; expected a fast tokenizer (tokenizer.json)"
            )
        if not tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template; add a chat_template.jinja to the model's folder")
        if tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no eos_token, so no reply would ever end")
        self.tokenizer = tokenizer
        self._tails: dict[str, list[int]] = {}

    def render(self, conversation: Conversation, *, prompt: bool = False) -> str:
        """Returns a conversation as text; with `prompt`, followed by what asks the model for its reply.

        Raises:
            InputError: the template refuses the conversation, for example its order of roles.
        """
        _, messages = split_tools(conversation)
        fitting = list(map(self.fitting, messages))
        if any("tool_calls" in message for message in messages):
            fitting = formed(fitting, self.call_form)
        fitting = [*conversation[: len(conversation) - len(messages)], *fitting]
        return self._applied(fitting, prompt) + (self._header if prompt else "")

    def fitting(self, message: Message) -> Message:
        """Puts a reply's thought where the template takes one: beside the content, or between <think> tags within it."""
        if message["role"] != "assistant":
            return message
        thought = message.get("reasoning_content")
        if thought and not self.takes_reasoning:
            rest = {key: value for key, value in message.items() if key != "reasoning_content"}
            return rest | {"content": f"<think>\n{thought.strip()}\n</think>\n\n{message['content']}"}
        if not thought and "</think>" in message["content"] and self.takes_reasoning and not self.takes_think_tags:
            thought, answer = split_thought(message)
            return message | {"reasoning_content": thought, "content": answer} if thought else message
        return message

    @cached_property
    def _header(self) -> str:
        """The assistant's header, where the template pays no heed to `add_generation_prompt`; else nothing.

        What stands before a reply without naming who speaks (a space, Command R's <|START_RESPONSE|>) is the model's to write.
        """
        question = _probe("QUESTION")
        asked, plain = self._applied(question, True), self._applied(question, False)
        answered = self._applied(_probe("QUESTION", "ANSWER"), False)
        if asked != plain or not answered.startswith(plain):
            return ""
        header = answered[len(plain) :].partition("ANSWER")[0]
        return header if re.search("assistant|model|bot", header, re.IGNORECASE) else ""

    @cached_property
    def call_form(self) -> CallForm:
        """How tool calls are handed to this template."""

        def render(conversation: Conversation) -> str | None:
            try:
                return self._applied(conversation, False)
            except InputError:
                return None

        return fitting_form(render)

    def _applied(self, conversation: Conversation, prompt: bool) -> str:
        tools, messages = split_tools(conversation)
        shown = [{key: value for key, value in message.items() if key != "learn"} for message in messages]
        from jinja2.exceptions import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                shown,
                tools=tools or None,
                chat_template=self._source(bool(tools)),
                tokenize=False,
                add_generation_prompt=prompt,
            )
        except TemplateError as e:
            raise InputError(f"the chat template refuses it: {e.message or type(e).__name__}") from e
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as e:  # Python's, out of an expression
            raise InputError(f"the chat template fails on it: {type(e).__name__}: {e}") from e
        return text

    @property
    def source(self) -> str:
        """The template by which a tokenizer alone asks for a reply as `render` does: on the same date, with the same header."""
        source = self._source(False)
        if not self._header:
            return source
        return f"{source.removesuffix(chr(10))}{{% if add_generation_prompt %}}{{{{ {json.dumps(self._header)} }}}}{{% endif %}}"

    def _source(self, with_tools: bool) -> str:
        source = self.tokenizer.get_chat_template(tools=[{}] if with_tools else None)
        return f"{_fixed_date()}{source}" if "strftime_now" in source else source

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Returns the tokens that the model sees before it replies to a conversation, [N]."""
        return self.encode(self.render(conversation, prompt=True))

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of rendered text; the template has written all special tokens itself."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns tokens as text, every space as it is: tokenizers may drop those before a full stop."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def tail_ids(self, prompt: str) -> list[int]:
        """Returns the last tokens of a prompt: those from its last added token on, or all if it has none.

        Added tokens part a text before anything else looks at it, so these tokens do not depend on what stands before.
        """
        starts = [found.start() for found in self.added_tokens.finditer(prompt)]
        tail = prompt[starts[-1] :] if starts else prompt
        if tail not in self._tails:
            if len(self._tails) > 10_000:
                self._tails.clear()
            self._tails[tail] = self.encode(tail)
        return self._tails[tail]

    @cached_property
    def added_tokens(self) -> re.Pattern[str]:
        """Finds the texts of the tokenizer's added tokens, special or not."""
        texts = {token.content for token in self.tokenizer.added_tokens_decoder.values()}
        texts |= set(self.tokenizer.all_special_tokens)
        return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")

    @cached_property
    def control_tokens(self) -> frozenset[str]:
        """The tokens by which the template parts messages: text of a message must not hold one.

        Tags around a thought are none of them, since data holds them with good reason.
        """
        try:
            text = self.render(_probe("QUESTION", "ANSWER", "MORE", "LAST"))
        except InputError:  # a template for a single turn
            text = self.render(_probe("QUESTION", "ANSWER"))
        used = set(self.added_tokens.findall(text))
        used |= {self.tokenizer.eos_token, self.tokenizer.bos_token} - {None}
        return frozenset(token for token in used if not _FORMS_OF_THOUGHT.fullmatch(token))

    @cached_property
    def end(self) -> EndOfTurn:
        """How a reply ends, as the template shows on a conversation of two and of three messages.

        A token ends a turn when the template writes it behind the last reply, and behind a reply that is followed by a
        question as well; or when it is the tokenizer's eos. A header of the next turn is neither.

        Raises:
            InputError: the template cannot render one question and one reply.
        """
        last = _behind(self.render(_probe("QUESTION", "ANSWER")), "ANSWER")
        try:
            inner = _behind(self.render(_probe("QUESTION", "ANSWER", "MORE")), "ANSWER")
        except InputError:  # a template for a single turn
            inner = last
        eos = self.tokenizer.eos_token
        ends = list(self.added_tokens.finditer(last))
        pairs = zip(ends, self.added_tokens.findall(inner), strict=False)
        always = [end for end, other in takewhile(lambda pair: pair[0][0] == pair[1], pairs)]
        closing = [end for end in always if end[0] == eos] or always[:1] or [end for end in ends[:1] if end[0] == eos]
        if closing:  # Command R closes its answer with one token and its turn with eos: where both follow, eos ends it
            return EndOfTurn(last, closing[0].end(), int(self.tokenizer.convert_tokens_to_ids(closing[0][0])))
        return EndOfTurn(last, 0, int(self.tokenizer.eos_token_id))

    @cached_property
    def frame(self) -> Frame | None:
        """What stands around a reply to a single question; None where such a reply does not begin with its prompt."""
        prompt = self.render(_probe("QUESTION"), prompt=True)
        whole = self.render(_probe("QUESTION", "ANSWER"))
        if not whole.startswith(prompt):
            return None
        lead, found, _ = whole[len(prompt) :].partition("ANSWER")
        return Frame(prompt.rpartition("QUESTION")[2], lead) if found else None

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens at which generation ends: what training teaches to end with, and the tokenizer's eos."""
        return frozenset({self.end.token, int(self.tokenizer.eos_token_id)})

    @cached_property
    def takes_reasoning(self) -> bool:
        """True when the template renders a thought that stands beside the content, under `reasoning_content`."""
        return self._shows({"role": "assistant", "reasoning_content": "THOUGHT", "content": "ANSWER"})

    @cached_property
    def takes_think_tags(self) -> bool:
        """True when the template keeps a thought that stands in the content, between <think> tags."""
        return self._shows({"role": "assistant", "content": "<think>\nTHOUGHT\n</think>\n\nANSWER"})

    @cached_property
    def parts_thoughts(self) -> bool:
        """False where the template ends thoughts that it takes without </think>, at which evaluation parts them from answers."""
        if not self.takes_reasoning:
            return True
        thinks = {"role": "assistant", "reasoning_content": "THOUGHT", "content": "ANSWER"}
        text = self._applied([{"role": "user", "content": "QUESTION"}, thinks], False)
        return "</think>" in text.rpartition("THOUGHT")[2].partition("ANSWER")[0]

    def _shows(self, reply: Message) -> bool:
        try:
            text = self._applied([{"role": "user", "content": "QUESTION"}, reply], False)
        except InputError:
            return False
        return "THOUGHT" in text and "ANSWER" in text


def opens_thought(prompt: str) -> bool:
    """True for a prompt that begins the thought for the model, as those of DeepSeek-R1 do."""
    return prompt.rstrip().endswith("<think>")


def split_thought(message: Message) -> tuple[str, str]:
    """Returns the thought of a reply, wherever it stands, and its answer; a thought never closed is the answer."""
    content: str = message["content"]
    if thought := message.get("reasoning_content"):
        return thought.strip(), content
    before, closed, answer = content.partition("</think>")
    return (before.lstrip().removeprefix("<think>").strip(), answer.strip()) if closed else ("", content)


def split_tools(conversation: Conversation) -> tuple[Sequence[Mapping[str, Any]], Conversation]:
    """Returns the functions that a conversation's first message declares (role TOOLS_ROLE), and the messages behind it."""
    if conversation and conversation[0]["role"] == TOOLS_ROLE:
        return conversation[0]["tools"], conversation[1:]
    return (), conversation


def _probe(*texts: str) -> Conversation:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def _behind(text: str, content: str) -> str:
    _, found, behind = text.rpartition(content)
    if not found:
        raise InputError("the chat template does not render the content of a reply")
    return behind


@lru_cache(maxsize=1)
def _fixed_date() -> str:
    """A macro that stands in for transformers' function of the same name, which asks the clock."""
    moment = datetime.datetime.combine(TEMPLATE_DATE, datetime.time())
    replaced = "".join(f"|replace('%{d}', '{moment.strftime(f'%{d}')}')" for d in _DIRECTIVES)
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{replaced} -}}}}{{%- endmacro +%}}"
