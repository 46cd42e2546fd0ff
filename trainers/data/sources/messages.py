"""From a row of a user's file to a conversation: every key is used, known to be harmless, reported, or makes the row bad.

messages, conversations      lists of {"role", "content"} or ShareGPT's {"from", "value"}
prompt + response            two texts (also completion; instruction, input and output; question and answer;
                             problem and solution), or TRL's two lists of messages, of which the second is learnt
system, tools, reasoning     beside either of them
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from trainers.data.sources.row_files import STRICT, DoubledKey
from trainers.data.types import TOOLS_ROLE, Conversation, Message

COLUMNS: Final = ("messages", "prompt", "response", "replay", "system", "tools", "reasoning")
"""What `columns` of a tier can rename."""
_LISTS: Final = ("messages", "conversations", "conversation")
_PAIRS: Final[tuple[tuple[str, str], ...]] = (
    ("prompt", "response"), ("prompt", "completion"), ("instruction", "output"), ("instruction", "response"),
    ("question", "answer"), ("question", "response"), ("problem", "solution"), ("query", "response"),
)  # fmt: skip
_SYSTEM: Final = ("system", "system_prompt")
REASONING: Final = (
    "reasoning_content", "reasoning", "thinking", "thought", "thoughts", "chain_of_thought", "cot",
)  # fmt: skip
"""Where data keeps the thought of a reply, in a message or beside `response`."""
_SWITCHES: Final = ("on", "off", "true", "false", "yes", "no", "none")
"""What stands under these names where they say whether there is a thought, and not which."""
_THOUGHT_TAGS: Final[Mapping[str, str]] = {
    **{f"<{name}>": f"</{name}>" for name in ("thinking", "reasoning", "thought", "scratchpad", "reflection")},
    "<|begin_of_thought|>": "<|end_of_thought|>", "[THINK]": "[/THINK]", "◁think▷": "◁/think▷",
}  # fmt: skip
_MASKS: Final = ("weight", "train", "loss_mask", "learn", "trainable", "loss")
_OF_A_CALL: Final = frozenset({"name", "arguments", "id", "type", "index"})
_MEDIA: Final = ("image", "images", "video", "videos", "audio", "audios")
_ROLES: Final = {
    "system": "system", "developer": "developer", "user": "user", "assistant": "assistant", "tool": "tool",
    "human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant",
    "function": "tool", "observation": "tool", "ipython": "tool", "tool_response": "tool",
    "function_call": "function_call",
}  # fmt: skip
_NAMES: Final = frozenset({
    "id", "idx", "index", "uuid", "uid", "row_id", "prompt_id", "conversation_id", "conv_id", "message_id", "hash",
    "source", "sources", "dataset", "dataset_name", "origin", "split", "subset", "url", "license", "language", "lang",
    "timestamp", "date", "created", "created_at", "model", "model_name", "meta", "metadata", "category", "domain",
    "num_tokens", "token_count", "num_turns", "length",
})  # fmt: skip
"""Keys that say where a row comes from, and nothing about what it teaches."""


class Parsed(NamedTuple):
    """A row as a conversation.

    Attributes:
        replay: it belongs to the replay pool. form: how it was understood, such as `messages of role and content`.
        unused: keys that carried something and were not used, `key` of the row or `message.key`.
    """

    conversation: Conversation
    replay: bool
    form: str
    unused: tuple[str, ...]


def parse_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> Parsed:
    """Reads one row.

    Args:
        columns: what the columns of COLUMNS are called in this file, where they have other names.

    Raises:
        ValueError: the row is bad; says what it holds and what was expected.
    """
    left = {str(key): value for key, value in row.items() if not _is_empty(value)}
    unused: Counter[str] = Counter()
    replay = _flag("replay", left.pop(columns.get("replay", "replay"), False))
    media = [key for key in _MEDIA if key in left]
    if media:
        raise ValueError(f"column {media[0]!r} holds what only a model for pictures, films or sound can read")
    system = _taken(left, [columns["system"]] if "system" in columns else _SYSTEM)
    tools = _tools(left.pop(columns.get("tools", "tools"), None))
    masked = [key for key in _MASKS if key in left and not _flag(key, left.pop(key))]
    messages, form = _messages(left, columns, unused)
    _add_system(messages, system)
    if masked:
        raise ValueError(f"its {masked[0]!r} says that it is not to be learnt")
    if not any(m["role"] == "assistant" and m.get("learn", True) and _says(m) for m in messages):
        raise ValueError("no assistant message with content: nothing to learn from this row")
    unused.update(key for key in left if key not in _NAMES)
    declared: Conversation = [{"role": TOOLS_ROLE, "content": "", "tools": tools}] if tools else []
    return Parsed([*declared, *messages], replay, form, tuple(unused))


def other_thought_tags(conversation: Conversation) -> set[str]:
    """Returns what other data puts around a thought, `<thinking> … </thinking>`, in the replies of a conversation; here it is
    plain text."""
    replies = [m["content"] for m in conversation if m["role"] == "assistant"]
    return {f"{begin} … {end}" for begin, end in _THOUGHT_TAGS.items() if any(begin in t and end in t for t in replies)}


def ends_in_thought(conversation: Conversation) -> bool:
    """True when a reply that is learnt is a thought without an answer, as where its author was cut off."""
    replies = (m for m in conversation if m["role"] == "assistant" and m.get("learn", True) and not m.get("tool_calls"))
    return any(not _answer(m["content"]) and (m.get("reasoning_content") or m["content"].strip()) for m in replies)


def _answer(content: str) -> str:
    _, closed, behind = content.rpartition("</think>")
    if not closed and content.lstrip().startswith("<think>"):
        return ""
    return behind.strip()


def _says(message: Message) -> bool:
    return bool(message["content"] or message.get("reasoning_content") or message.get("tool_calls"))


def _is_empty(value: Any) -> bool:
    """True for what Parquet writes where a row has no such key, and for empty lists and texts."""
    return value is None or value == [] or value == {}


def _taken(left: dict[str, Any], names: Sequence[str]) -> str:
    """Takes the one text under any of some names; empty texts count as none."""
    found = [(name, left.pop(name)) for name in names if name in left]
    for name, value in found:
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be text, not {short(value)}")
    texts = {value for _, value in found if value.strip()}
    if len(texts) > 1:
        raise ValueError(f"{' and '.join(repr(name) for name, _ in found)} hold different texts; keep one of them")
    return next(iter(texts), "")


def _flag(name: str, value: Any) -> bool:
    """Reads true or false as data writes them; anything else is no flag."""
    if isinstance(value, str):
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
        if (text := value.strip().lower()) in known:
            return known[text]
    elif value is None:
        return False
    elif (
        isinstance(value, bool | int | float)
        and not (isinstance(value, float) and math.isnan(value))
        and value in (0, 1)
    ):
        return bool(value)
    raise ValueError(f"{name!r} must be true or false, or 0 or 1, not {short(value)}")


def _messages(left: dict[str, Any], columns: Mapping[str, str], unused: Counter[str]) -> tuple[Conversation, str]:
    """Takes the messages of a row out of its columns, and says how they were understood."""
    lists = (columns["messages"],) if "messages" in columns else _LISTS
    reasoning = [columns["reasoning"]] if "reasoning" in columns else REASONING
    for name in lists:
        if name in left:
            messages, form = _listed(left.pop(name), name, unused)
            return _with_thought(messages, left, reasoning), f"{name} of {form}"
    pairs = _PAIRS
    if "prompt" in columns or "response" in columns:
        pairs = ((columns.get("prompt", "prompt"), columns.get("response", "response")),)
    for asked, answered in pairs:
        if asked in left and answered in left:
            form = f"{asked} and {answered}"
            prompt, response = _from_json(left.pop(asked)), _from_json(left.pop(answered))
            if isinstance(prompt, list) or isinstance(response, list):
                messages = _with_thought(_continued(prompt, response, unused), left, reasoning)
                return messages, f"{form}, lists of messages"
            if asked == "instruction" and (extra := _text(left.pop("input", ""), "input")).strip():
                prompt, form = f"{prompt}\n\n{extra}", "instruction, input and output"
            reply = {"role": "assistant", "content": response, "reasoning_content": _thought(left, reasoning)}
            return [_message(0, {"role": "user", "content": prompt}, unused), _message(1, reply, unused)], form
    expected = f"neither {lists[0]!r} nor {pairs[0][0]!r} and {pairs[0][1]!r}"
    raise ValueError(f"{expected} among its columns ({', '.join(left) or 'none'}); name yours under `columns`")


def _with_thought(messages: Conversation, left: dict[str, Any], names: Sequence[str]) -> Conversation:
    """Gives the only reply that is learnt the thought of the row, where it has none of its own."""
    replies = [m for m in messages if m["role"] == "assistant" and m.get("learn", True)]
    if len(replies) == 1 and not replies[0].get("reasoning_content"):
        replies[0] |= _beside(_thought(left, names), replies[0]["content"])
    return messages


def _thought(left: dict[str, Any], names: Sequence[str] = REASONING) -> str:
    """Takes the thought under any of some names; a switch that says whether there is one stays, to be told of."""
    return _taken(left, [name for name in names if not _is_switch(left.get(name))])


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _SWITCHES)


def _continued(prompt: Any, response: Any, unused: Counter[str]) -> Conversation:
    """TRL's pair of lists: messages of the first are context, and never learnt."""
    first = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    second = response if isinstance(response, list) else [{"role": "assistant", "content": response}]
    messages, _ = _listed([*first, *second], "prompt and completion", unused)
    shown = [{**m, "learn": False} if m["role"] == "assistant" else m for m in messages[: len(first)]]
    return [*shown, *messages[len(first) :]]


def _from_json(value: Any) -> Any:
    """Returns the messages that a text holds as JSON; any other value as it is, a reply that is a JSON list too."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            found = STRICT.decode(value)
        except (ValueError, RecursionError):
            return value
        if isinstance(found, list) and all(
            isinstance(each, Mapping) and {"role", "from"} & each.keys() for each in found
        ):
            return found
    return value


def _listed(value: Any, name: str, unused: Counter[str]) -> tuple[Conversation, str]:
    messages = _from_json(value)
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{name} must be a list with at least one message, not {short(value)}")
    sharegpt = isinstance(messages[0], Mapping) and "from" in messages[0]
    return [_message(i, message, unused) for i, message in enumerate(messages)], (
        "from and value" if sharegpt else "role and content"
    )


def _message(place: int, value: Any, unused: Counter[str]) -> Message:
    """Reads one message of any of the known spellings."""
    if not isinstance(value, Mapping):
        raise ValueError(f"message {place} must be an object with role and content, not {short(value)}")
    left = {str(key): inner for key, inner in value.items() if not _is_empty(inner)}
    try:
        given = left.pop("role") if "role" in left else left.pop("from", None)
        role = _ROLES.get(given.strip().lower()) if isinstance(given, str) else None
        if role is None:
            raise ValueError(f"role {given!r} is unknown; known: {', '.join(dict.fromkeys(_ROLES))}")
        message = _spoken(role, left, unused)
        if left.pop("prefix", False):
            raise ValueError("'prefix' marks a reply that is begun and not ended; only whole replies can be learnt")
    except ValueError as fault:
        raise ValueError(f"message {place}: {fault}") from None
    unused.update(f"message.{key}" for key in left if key not in _NAMES)
    return message


def _spoken(role: str, left: dict[str, Any], unused: Counter[str]) -> Message:
    content, thought = _content(left, unused)
    if role in ("user", "function_call") and not content.strip():
        raise ValueError(f"{role} message without text")
    calls: Any = None
    if role == "function_call":
        role, content, calls = "assistant", "", [content]
    message: Message = {"role": role, "content": content}
    if role != "assistant":
        unused.update(["message.content.thinking"] * bool(thought))
        if role == "tool":
            message |= {key: _sound(left.pop(key)) for key in ("tool_call_id", "name") if key in left}
        for key in [k for k in _MASKS if k in left]:
            if _flag(key, left.pop(key)) and key != "weight":
                raise ValueError(
                    f"{key!r} asks for a {role} message to be learnt; only replies of the assistant can be"
                )
        return message
    message |= _beside(thought or _thought(left), content)
    calls = calls or left.pop("tool_calls", None)
    calls = calls or [call for call in [left.pop("function_call", None)] if call]
    if calls and (made := _calls(calls)):
        message["tool_calls"] = made
    flags = [_flag(key, left.pop(key)) for key in _MASKS if key in left]
    if not all(flags):
        message["learn"] = False
    return message


def _beside(thought: str, content: str) -> Message:
    """Keeps a thought under a key of its own, unless the content begins with the same thought and its end tag."""
    before, closed, _ = content.partition("</think>")
    if not thought or not closed:
        return {"reasoning_content": _text(thought)} if thought else {}
    if "".join(before.replace("<think>", "").split()) != "".join(thought.split()):
        raise ValueError("a thought stands in its content, and another one beside it; keep one of them")
    return {}


def _content(left: dict[str, Any], unused: Counter[str]) -> tuple[str, str]:
    """Takes the text of a message, and the thought among its parts where it is written in parts."""
    value = next((left.pop(key) for key in ("content", "value", "text") if key in left), None)
    if value is None:
        value = left.pop("refusal", "") if "refusal" in left else ""
        if not value and not any(key in left for key in ("tool_calls", "function_call", *REASONING)):
            raise ValueError("content must be text, not None")
    if not isinstance(value, list):
        return _text(value), ""
    text = thought = ""
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        name = kind if kind in ("text", "thinking", "reasoning") and kind in part else "text"
        if kind not in ("text", "thinking", "reasoning") or not isinstance(part.get(name), str):
            raise ValueError(
                f"a part of its content is {short(part)}; only parts of type text and thinking can be read"
            )
        rest = {str(key): inner for key, inner in part.items() if key not in ("type", name) and not _is_empty(inner)}
        if masked := [key for key in _MASKS if key in rest and not _flag(key, rest.pop(key))]:
            raise ValueError(f"{masked[0]!r} masks a part of its content; only whole messages can be masked")
        unused.update(f"message.content.{key}" for key in rest if key not in _NAMES)
        if kind == "text":
            text += part[name]
        elif text.strip():
            raise ValueError("a thought stands behind text of the same message; expected it before")
        else:
            thought += part[name]
    return _text(text), thought


def _text(value: Any, name: str = "content") -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {short(value)}")
    if "\0" in value or not _is_unicode(value):
        raise ValueError(f"{name} holds a NUL character or half a surrogate pair")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tools(value: Any) -> list[Any]:
    """Reads the functions that a row declares: a list, or the same as JSON text."""
    if isinstance(value, str):
        value = _parsed("'tools'", value) if value.strip() else None
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise ValueError(f"'tools' must be a list of functions, not {short(value)}")
    return [_sound(tool) for tool in value]


def _parsed(what: str, text: str) -> Any:
    try:
        return STRICT.decode(text)
    except DoubledKey as e:
        raise ValueError(f"{what}: {e}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{what} is text that is no JSON: {short(text)}") from None


def _calls(value: Any) -> list[Any]:
    """Reads the calls of a reply as templates expect them: {"type", "function": {"name", "arguments": object}}."""
    calls = []
    value = _parsed("tool_calls", value) if isinstance(value, str) else value
    for each in value if isinstance(value, list) else [value]:
        call = _parsed("a tool call", each) if isinstance(each, str) else each
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise ValueError(f"a tool call must be an object with a name and arguments, not {short(each)}")
        arguments = inner.get("arguments")
        others = [key for key, value in inner.items() if key not in _OF_A_CALL and _holds_more(value)]
        if arguments in (None, "") and others:
            raise ValueError(
                f"tool call {inner['name']!r} has no 'arguments' but {others[0]!r}; rename it to 'arguments'"
            )
        if isinstance(arguments, str) and arguments.strip():
            arguments = _parsed(f"arguments of tool call {inner['name']!r}", arguments)
        if arguments in (None, ""):
            arguments = {}
        if not isinstance(arguments, Mapping):
            raise ValueError(f"arguments of tool call {inner['name']!r} must be an object, not {short(arguments)}")
        named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append(_sound({**named, "type": "function", "function": {"name": inner["name"], "arguments": arguments}}))
    return calls


def _holds_more(value: Any) -> bool:
    """True for an object or a list with something in it, also where it is JSON text."""
    if isinstance(value, str):
        return value.lstrip().startswith(("{", "["))
    return isinstance(value, Mapping | list) and not _is_empty(value)


def _sound(value: Any) -> Any:
    """Returns a JSON value whose texts a tokenizer takes (see `_text`), its keys as text."""
    if isinstance(value, Mapping):
        return {_text(str(key), "a key"): _sound(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sound(inner) for inner in value]
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"a tool or a call holds {short(value)}, which is nothing that JSON has")
    return _text(value, "a tool or a call") if isinstance(value, str) else value


def _add_system(messages: Conversation, system: str) -> None:
    """Puts a row's own system prompt first."""
    if not system:
        return
    if messages[0]["role"] in ("system", "developer"):
        if messages[0]["content"].strip() != system.strip():
            raise ValueError("a system prompt stands in a column, and another one among the messages; keep one of them")
        return
    messages.insert(0, {"role": "system", "content": _text(system)})


def short(value: Any, length: int = 60) -> str:
    """Returns how a value begins, for a message."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
