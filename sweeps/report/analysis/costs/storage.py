"""Who used what of a storage's compute: every sweep's device seconds, by sweep and by the user whose driver spent them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sweeps.errors import DipsweepError
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import LeaseRow, Row
from sweeps.journal.state import SweepState
from sweeps.journal.writer import sweeps_in
from sweeps.report.analysis.findings.trials import Spent
from sweeps.report.analysis.wording import percent
from sweeps.storage.base import Where
from sweeps.storage.factory import open_store

NOT_RECORDED: Final = "not recorded"
"""Who drove a sweep before drivers wrote down their users."""


@dataclass(frozen=True, slots=True)
class StorageCosts:
    """Device seconds of all sweeps of a storage, evaluations and work done twice included.

    Attributes:
        where: the storage root. sweeps: by id, then by the user whose driver spent them.
        unreadable: sweeps that are not in it, with why.
    """

    where: str
    sweeps: Mapping[str, Mapping[str, Spent]]
    unreadable: Mapping[str, str]

    @property
    def users(self) -> dict[str, Spent]:
        """Seconds by user."""
        found: dict[str, Spent] = {}
        for by_user in self.sweeps.values():
            for user, spent in by_user.items():
                found[user] = found.get(user, Spent()) + spent
        return found

    @property
    def total(self) -> Spent:
        """Seconds of all sweeps."""
        return sum(self.users.values(), Spent())

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON."""
        sweeps = {id: {user: asdict(s) for user, s in by_user.items()} for id, by_user in self.sweeps.items()}
        users = {user: asdict(spent) for user, spent in self.users.items()}
        return {"total": asdict(self.total), "users": users, "sweeps": sweeps, "unreadable": dict(self.unreadable)}

    def __str__(self) -> str:
        """Tables of users and of sweeps, the largest first, with their shares of GPU hours, and of CPU hours."""
        if not self.sweeps and not self.unreadable:
            return f"no sweeps under {self.where}"
        by_sweep = {f"{id} ({', '.join(by)})": sum(by.values(), Spent()) for id, by in self.sweeps.items()}
        lines = [*_table("user", self.users, self.total), "", *_table("sweep", by_sweep, self.total)]
        lines += [f"not counted: {id}: {why}" for id, why in self.unreadable.items()]
        return "\n".join(lines)


def costs_of_storage(where: Where) -> StorageCosts:
    """Returns what all sweeps under a storage root have cost, finished or not.

    Raises:
        StorageError: the root cannot be read.
    """
    found: dict[str, Mapping[str, Spent]] = {}
    unreadable = {}
    for home in sweeps_in(open_store(where).root):
        try:
            found[home.name] = spent_by_user(read_rows(home))
        except DipsweepError as e:
            unreadable[home.name] = str(e)
    return StorageCosts(str(where), found, unreadable)


def spent_by_user(rows: Iterable[Row]) -> dict[str, Spent]:
    """Returns the device seconds of one sweep by the user whose driver wrote them down; each second once."""
    state, user, before, found = SweepState(), NOT_RECORDED, Spent(), dict[str, Spent]()
    for row in rows:
        if isinstance(row, LeaseRow):
            before = _credit(found, user, state, before)
            user = row.user or NOT_RECORDED
        state.apply(row)
    _credit(found, user, state, before)
    return found or {user: Spent()}


def _credit(found: dict[str, Spent], user: str, state: SweepState, before: Spent) -> Spent:
    """Credits a user with what was spent since `before`; returns what has been spent by now."""
    total = state.costs.total()
    now = Spent(total.get("cpu_s", 0.0), total.get("gpu_s", 0.0))
    if now != before:
        found[user] = found.get(user, Spent()) + now + before.scaled(-1.0)
    return now


def _table(head: str, found: Mapping[str, Spent], total: Spent) -> list[str]:
    order = sorted(found.items(), key=lambda item: (-item[1].gpu_s, -item[1].cpu_s, item[0]))
    rows = [[head, "GPU hours", "share", "CPU hours", "share"]]
    rows += [_row(name, spent, total) for name, spent in [*order, ("in all", total)]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]


def _row(name: str, spent: Spent, total: Spent) -> list[str]:
    cells = [name]
    for own, whole in ((spent.gpu_s, total.gpu_s), (spent.cpu_s, total.cpu_s)):
        cells += [f"{own / 3600:,.3f}", percent(own / whole)] if whole else ["–", "–"]
    return cells


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = row
    return "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))])
