"""What a run trains on: conversations, and the two pools they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sweeps.config.trial import TierSource

TOOLS_ROLE: Final = "tools"
Message = dict[str, Any]
"""`role` and `content` (text), and where the data has them:

    reasoning_content   the thought before a reply, text
    tool_calls          functions that a reply calls; tool_call_id, name: whose answer a message of role `tool` is
    learn               False for a reply that is shown but not learnt
    tools               in a first message of role TOOLS_ROLE alone: the functions that the template is told of
"""
Conversation = list[Message]
"""Messages in order, of the roles system, developer, user, assistant and tool; loss on assistant turns only."""


@dataclass(frozen=True, slots=True)
class TierData:
    """The conversations of one data tier.

    Attributes:
        primary: what the tier teaches.
        replay: general conversations; the share `replay` of the examples is drawn from here.
        bad: rows that could not be used and were left out.
        source: the file that they are of, with what it may lose; None for data made here.
        primary_numbers, replay_numbers: of each conversation the number of its row in that file, from 1.
        notes: how the rows were understood, and which of their keys were not used.
    """

    primary: Sequence[Conversation]
    replay: Sequence[Conversation] = field(default_factory=tuple)
    bad: int = 0
    source: TierSource | None = None
    primary_numbers: Sequence[int] = ()
    replay_numbers: Sequence[int] = ()
    notes: tuple[str, ...] = ()
