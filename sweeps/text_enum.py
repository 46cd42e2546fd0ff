"""Vocabularies of rows and verdicts."""

from __future__ import annotations

from enum import StrEnum


class TextEnum(StrEnum):
    """Words that are written as they are everywhere: in JSON, in messages, and in a list of a message, which takes `repr`."""

    __repr__ = str.__repr__
