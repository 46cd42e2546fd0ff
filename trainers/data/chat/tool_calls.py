"""Tool calls as a chat template wants them: arguments as an object or as text, ids of any kind or of nine signs.

Templates agree on no one form (DeepSeek joins the arguments to text, Mistral checks the length of ids), so the forms are tried
on a probe, and the first one under which nothing of a call is lost is used for all rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

from trainers.data.types import TOOLS_ROLE, Conversation, Message


class CallForm(NamedTuple):
    """How calls are handed to a template: arguments as JSON text, ids of nine letters and digits."""

    text: bool = False
    short_ids: bool = False


FORMS: Final = tuple(CallForm(*flags) for flags in product((False, True), repeat=2))
_CALLED, _KEY, _VALUE, _RESULT, _SAID = "PROBED", "PARAMETER", "ARGUMENT", "RESULT", "ANSWER"
_FUNCTION: Final = {
    "name": _CALLED,
    "description": "",
    "parameters": {"type": "object", "properties": {_KEY: {"type": "string", "description": ""}}},
}
_CALL: Final = {"id": "call_0", "type": "function", "function": {"name": _CALLED, "arguments": {_KEY: _VALUE}}}
_PROBE: Final[Conversation] = [
    {"role": TOOLS_ROLE, "content": "", "tools": [{"type": "function", "function": _FUNCTION}]},
    {"role": "user", "content": "QUESTION"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call_0", "name": _CALLED, "content": _RESULT},
    {"role": "assistant", "content": _SAID},
]


def fitting_form(render: Callable[[Conversation], str | None]) -> CallForm:
    """Returns the first form in which a template renders all of a call and its result; the plain one where none does.

    Args:
        render: applies the template; None where it refuses.
    """
    for form in FORMS:
        text = render([_PROBE[0], *formed(_PROBE[1:], form)])
        if text and all(part in text.rpartition("QUESTION")[2] for part in (_CALLED, _KEY, _VALUE, _RESULT, _SAID)):
            return form
    return CallForm()


def formed(messages: Sequence[Message], form: CallForm) -> Conversation:
    """Returns messages with their calls in a form."""
    if form == CallForm() or not any("tool_calls" in message for message in messages):
        return list(messages)
    out: Conversation = []
    waiting: list[str] = []  # ids of calls whose results have not come
    for message in messages:
        if calls := message.get("tool_calls"):
            made = [_call(call, form, f"{len(out)}.{place}") for place, call in enumerate(calls)]
            waiting = [call["id"] for call in made if "id" in call]
            out.append({**message, "tool_calls": made})
        elif message["role"] == "tool" and form.short_ids:
            given = message.get("tool_call_id")
            id_ = _short(given) if given in (None, "") or _short(given) in waiting else given
            if not given and waiting:
                id_ = waiting.pop(0)
            out.append({**message, "tool_call_id": id_})
        else:
            out.append(message)
    return out


def _call(call: Mapping[str, Any], form: CallForm, place: str) -> dict[str, Any]:
    function = dict(call["function"])
    if form.text:
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    made = {**call, "function": function}
    return {**made, "id": _short(call.get("id") or place)} if form.short_ids else made


def _short(given: str | None) -> str:
    """Returns nine letters and digits for an id; the same ones for the same id."""
    text = given or ""
    return text if len(text) == 9 and text.isalnum() else hashlib.sha256(text.encode()).hexdigest()[:9]


def missing_argument(call: Mapping[str, Any], text: str) -> str:
    """Returns the first name or text of a call's arguments that a rendering does not hold; "" where all are there."""
    bare = "".join(text.split())
    for leaf in _leaves(call["function"].get("arguments") or {}):
        forms = (leaf, json.dumps(leaf)[1:-1], json.dumps(leaf, ensure_ascii=False)[1:-1], repr(leaf)[1:-1])
        if not any("".join(form.split()) in bare for form in forms):
            return leaf
    return ""


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value
