"""Chat templates by name, for models whose own does not fit training: `models.NAME.chat_template: thinking`.

thinking    the model's own template, its switch for thoughts turned on (DeepSeek V3.1, EXAONE 4, Qwen3.5, Nemotron, GLM)
chatml      ChatML with thoughts and tools: for base models without a template
gemma       turns of Gemma 1 and 2, where the model's own refuses system messages
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sweeps.config.names import TEMPLATES
from sweeps.errors import InputError

if TYPE_CHECKING:
    from trainers.data.chat.template import ChatTemplate

SHIPPED: Final = Path(__file__).parents[2] / "assets" / "templates"
THINKING: Final = "{%- set enable_thinking = true -%}{%- set thinking = true -%}"
"""The names under which templates take their switch."""


def named_template(name: str, own: str) -> str:
    """Returns the template of a name.

    Args:
        name: one of TEMPLATES. own: the model's own template, "" where it has none.

    Raises:
        InputError: `thinking` is asked of a model without a template.
    """
    assert name in TEMPLATES, name
    if name != "thinking":
        return (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")
    if not own:
        raise InputError("chat_template: thinking turns thoughts on in a model's own template, and this model has none")
    return own if own.startswith(THINKING) else THINKING + own


def advice(template: ChatTemplate, reason: str) -> str:
    """Returns which template would take a row that was refused, as far as a name is known for it; else how to give one."""
    source = str(template.tokenizer.chat_template)
    if "</think>" in reason and not source.startswith(THINKING) and "thinking" in source:
        return "models.NAME.chat_template: thinking turns thoughts on in it"
    if "system" in reason.lower() and "<start_of_turn>" in source:
        return "models.NAME.chat_template: gemma takes system messages"
    return "models.NAME.chat_template: FILE takes another template"
