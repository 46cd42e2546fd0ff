"""What a run trains on: conversations, and the two pools they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Conversation = list[dict[str, str]]
"""Messages in order, each `{"role": "system" | "user" | "assistant", "content": str}`; loss on assistant turns only."""


@dataclass(frozen=True, slots=True)
class TierData:
    """The conversations of one data tier.

    Attributes:
        primary: what the tier teaches.
        replay: general conversations; the share `replay` of the examples is drawn from here.
        bad: rows that could not be used and were left out.
    """

    primary: Sequence[Conversation]
    replay: Sequence[Conversation] = field(default_factory=tuple)
    bad: int = 0
