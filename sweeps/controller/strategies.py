"""The stop rule and the search of a sweep may be anybody's code: how they are asked, and what becomes of what they stumble over.

Neither can be mended while its driver runs, and neither can be done without: nobody knows what a rule would have stopped, or what
a search would have tried. So after the first error neither is asked any more, whatever runs saves, and the sweep ends as after
Ctrl-C, with the error in its journal. Resumed with a mended one it goes on; both are rebuilt from the journal, and the rule is
asked about the reports that came in the meantime (`Verdicts.restore`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from sweeps.errors import InputError, StrategyError, code_name, place_of, text_of
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.stopping.base import StopRule

T = TypeVar("T")
RULE: Final = "stop rule"
SEARCH: Final = "search"
UNJUDGED_SINCE: Final = "unjudged_since"
"""Argument of the row that ends such a sweep: the last row before the error."""


class Strategies:
    """Asks a sweep's stop rule and its search, until one of them stumbles.

    Args:
        seq: tells the number of the latest row.

    Attributes:
        broken: what it was; None while all is well. since: the latest row then.
    """

    def __init__(self, seq: Callable[[], int]) -> None:
        self.broken: StrategyError | None = None
        self._seq, self.since = seq, -1

    def ask(self, kind: str, strategy: object, question: Callable[[], T], otherwise: T) -> T:
        """Returns the answer to a question; `otherwise` where there is none, now or from an earlier one on.

        Args:
            kind: RULE or SEARCH. question: asks, and raises an error where the answer is none.
        """
        if self.broken is not None:
            return otherwise
        try:
            return question()
        except (Exception, SystemExit) as e:
            self.broken, self.since = stumbled(kind, strategy, e), self._seq()
            return otherwise

    def observe(self, rule: StopRule, history: History, row: Row) -> bool:
        """Has a rule take a row in, and makes sure that its history has it; returns whether that says anything new."""
        before = history.seq
        fresh = self.ask(RULE, rule, lambda: _observed(rule, history, row), None)
        if fresh is not None:
            return fresh
        return history.fold(row) if history.seq == before else True


def history_of(rule: StopRule) -> History:
    """Returns the history that a stop rule folds rows into.

    Raises:
        InputError: it has none.
    """
    history = getattr(rule, "history", None)
    if not isinstance(history, History):
        raise InputError(
            f"stop rule {code_name(type(rule))}: got history {history!r}; expected its __init__ to call super().__init__(goal)"
        )
    return history


def _observed(rule: StopRule, history: History, row: Row) -> bool:
    fresh = rule.observe(row)
    if rule.history is not history:
        raise InputError("observe put something else in place of self.history; expected another name for that")
    if history.seq < row.seq:
        raise InputError("observe did not hand its row on; expected it to call super().observe(row)")
    if not isinstance(fresh, bool):
        raise InputError(f"observe returned {fresh!r}; expected True or False, as super().observe(row) returned")
    return fresh


def stumbled(kind: str, strategy: object, error: BaseException) -> StrategyError:
    """Returns the error that says which strategy stumbled over what, and where."""
    told = f"{type(error).__name__}: {text_of(error)} ({place_of(error, type(strategy).__module__)})"
    return StrategyError(
        f"{kind} {_name(strategy)!r} ({code_name(type(strategy))}): {told}; once it is mended, resume the sweep"
    )


def _name(strategy: object) -> str:
    """Returns the name that a strategy gives itself, which may raise as well, or else its class's."""
    with suppress(Exception, SystemExit):
        return str(getattr(strategy, "name", "") or type(strategy).__name__)
    return type(strategy).__name__
