"""Who drives a sweep: at most one at a time, over any storage, without trusting two machines' clocks.

A lease is an object `lease/<number>.json`, created if absent, so that of any number of takers one wins. Its holder
counts a heartbeat up in it. Whoever wants the sweep watches the latest lease by its own monotonic clock: if the heartbeat
moves, the sweep is busy; if it stands still for the whole lease time, the watcher creates the next number. An old holder
that comes back finds a higher number and stops. The lease keeps two drivers from working side by side; what keeps a log
whole even if both believe that they hold it is the log itself (`sweeps.journal.writer`).

A heartbeat also says how many rows the log has by then. Nothing in a log names what comes after it, so a reader that finds
fewer knows only from here that its end was lost (`sweeps.journal.reader`).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from sweeps.errors import NotFound, StorageError, StorageFull, SweepBusy
from sweeps.storage.base import Store

LEASE_S: Final = 30.0
"""A driver that shows no sign of life for so long has lost its sweep to whoever asks for it."""
BEATS: Final = 10
"""Heartbeats in a lease time; one or two may be lost without harm."""
DOUBT_S: Final = 2.5 * LEASE_S / BEATS
"""So long a driver of another machine is watched whose last beat looks old."""
SINCE: Final = "%Y-%m-%d %H:%M:%S UTC"
LENGTH: Final = 512
FOLDER: Final = "lease"
USER_VARIABLE: Final = "DIPSWEEP_USER"


@dataclass(frozen=True, slots=True)
class Holder:
    """One driver: where it runs, and what distinguishes it from all others.

    Attributes:
        boot: the kernel's boot id. namespace: its process namespace. started: the process's start, in ticks after boot.
            Together with `pid` they say on the same kernel whether the process still lives.
        since: when it took the sweep by its own clock, in the form `SINCE`; no decision depends on it.
        token: random; makes every holder's records unlike all others.
    """

    host: str
    pid: int
    boot: str = ""
    namespace: str = ""
    started: str = ""
    since: str = ""
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def here(cls) -> Holder:
        """Returns this process."""
        pid = os.getpid()
        now = datetime.now(UTC).strftime(SINCE)
        return cls(socket.gethostname(), pid, boot_id(), _namespace(), _started(pid), now)

    def gone(self) -> bool:
        """True when this kernel knows that the process is dead; False when it lives, or cannot be seen from here."""
        if not self.boot or self.boot != boot_id() or self.namespace != _namespace():
            return False
        return _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"driver pid {self.pid} on {self.host}" + (f", since {self.since}," if self.since else "")


@dataclass(frozen=True, slots=True)
class Record:
    """The content of a lease.

    Attributes:
        beat: counts up while the holder lives. released: the holder has given the sweep back.
        at: Unix time of the beat by the holder's clock; 0 where it is not known. For people, and for a first guess:
            takers go by `beat` alone.
        rows: so many rows of the log were on the disk, or in the bucket, before the beat; 0 where it is not known.
    """

    holder: Holder
    beat: int = 0
    released: bool = False
    at: float = field(default=0.0, compare=False)
    rows: int = field(default=0, compare=False)

    def line(self) -> bytes:
        state = {"beat": self.beat, "released": self.released, "at": round(time.time(), 1), "rows": self.rows}
        data = {**asdict(self.holder), **state}
        return json.dumps(data).encode().ljust(LENGTH)  # of one length, so that one beat can stand in another's place

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Reads a lease leniently: one that cannot be parsed, of a newer version maybe, has an unknown holder, and is watched
        like any other: whatever changes in it is a sign of life."""
        try:
            found = json.loads(data)
            known = {k: str(found[k]) for k in Holder.__dataclass_fields__ if k in found and k not in ("host", "pid")}
            holder = Holder(str(found.get("host", "an unknown host")), int(found.get("pid", 0)), **known)
            at, beat, rows = float(found.get("at", 0.0)), int(found["beat"]), int(found.get("rows", 0))
            datetime.fromtimestamp(at, UTC)
            return cls(holder, beat, bool(found["released"]), at, rows)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError):
            return cls(Holder("an unknown host", 0, token=hashlib.sha256(data).hexdigest()))


class Lease:
    """The right to drive one sweep.

    Args:
        store: the sweep's own. gone: says for certain that a holder is dead, so that nobody has to wait.
        lease_s: the lease time. beating: keep a heartbeat in a thread; without it, call `beat`.
        say, clock, sleep: a line for a person, monotonic seconds of this process, and how to wait.

    Attributes:
        rows: how many rows the log is known to have; the journal counts it up after each write. The next holder begins with
            what the one before it said.
    """

    def __init__(
        self,
        store: Store,
        *,
        gone: Callable[[Holder], bool] = Holder.gone,
        lease_s: float = LEASE_S,
        beating: bool = True,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.gone, self.lease_s, self.say, self.clock, self.sleep = store, gone, lease_s, say, clock, sleep
        self.beating = beating
        self.holder = Holder.here()
        self.number = 0
        self.rows = 0
        self.fenced_by: Holder | None = None
        self._beats = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Takes the sweep: at once where no one holds it, else once its holder has sent no heartbeat for the lease time.

        Raises:
            SweepBusy: its holder lives, or another taker was faster.
        """
        watched = False
        while True:
            number, record = self._latest()
            if record is not None and not record.released and not self.gone(record.holder):
                if watched:  # it changed hands while we watched
                    raise self._busy(record)
                self._watch(number, record)
                watched = True
            self.rows = record.rows if record is not None else 0
            if self.store.create(_key(number + 1), Record(self.holder, rows=self.rows).line()):
                self.number = number + 1
                break
        for old in range(max(1, self.number - 3), self.number - 1):
            self.store.delete(_key(old))
        if self.beating and self.lease_s > 0:
            self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="lease")
            self._thread.start()

    def beat(self) -> None:
        """Writes a heartbeat, and checks whether another driver has taken over."""
        number, record = self._latest(self.store.once)
        if number > self.number:
            self.fenced_by = record.holder if record else Holder("an unknown host", 0)
            return
        self._beats += 1
        line = Record(self.holder, self._beats, rows=self.rows).line()
        try:
            self.store.once.write(_key(self.number), line)
        except StorageFull:
            if not self._beat_in_place(line):
                raise

    def _beat_in_place(self, line: bytes) -> bool:
        """Overwrites the last heartbeat, which takes no space; True when that worked.

        Else a driver that waits for a full disk would look dead from other machines.
        """
        file = self.store.local(_key(self.number))
        if file is None:
            return False
        try:
            with open(file, "r+b", buffering=0) as lease:
                whole = os.fstat(lease.fileno()).st_size == len(line)
                return whole and lease.write(line) == len(line)
        except OSError:
            return False

    def release(self) -> None:
        """Gives the sweep back, so that the next driver need not wait."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(self.lease_s)
        if self.number and self.fenced_by is None:
            with contextlib.suppress(StorageError):  # then the next driver waits a little
                if self._latest(self.store.once)[0] == self.number:
                    last = Record(self.holder, self._beats, released=True, rows=self.rows)
                    self.store.once.write(_key(self.number), last.line())

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _latest(self, store: Store | None = None) -> tuple[int, Record | None]:
        return latest_record(store or self.store)

    def _watch(self, number: int, seen: Record) -> None:
        """Returns when a lease has stood still for its time; only time in which it could be read counts."""
        pause = self.lease_s / (2 * BEATS)
        last = started = self.clock()
        if self.lease_s > 0:
            self.say(f"{seen.holder} has not given this sweep back; looking for {self.lease_s:.0f} s whether it lives")
        while self.clock() - started < self.lease_s:
            self.sleep(pause)
            latest, record = self._latest()
            if latest != number or record is None or replace(record, beat=0) != replace(seen, beat=0):
                if record is not None and latest == number and record.released:
                    return
                raise self._busy(record or seen)
            if record.beat != seen.beat:
                raise self._busy(record)
            now = self.clock()
            if now - last > self.lease_s / 3:  # the storage was out of reach: for the holder as well, maybe
                started = now
            last = now

    def _busy(self, record: Record) -> SweepBusy:
        return SweepBusy(f"{self.store}: {record.holder} is running this sweep; stop it first, or wait until it ends")

    def _keep_beating(self) -> None:
        while not self._over.wait(self.lease_s / BEATS) and self.fenced_by is None:
            with contextlib.suppress(StorageError):  # out of reach for us is out of reach for a taker; it waits anew
                self.beat()


@dataclass(frozen=True, slots=True)
class DriverState:
    """Whether a driver runs for a sweep.

    Attributes:
        kind: `alive`; `lost`: a driver died or was cut off without giving the sweep back; `none`: the last one gave it
            back, or there was none.
        since: when its last driver was last heard of, `2026-01-31 12:00 UTC`; empty where that is not known.
        holder: the last driver.
        suspended: it is alive, and somebody has stopped its process (Ctrl-Z, SIGSTOP); known on its own machine alone.
    """

    kind: Literal["alive", "lost", "none"]
    since: str = ""
    holder: Holder | None = None
    suspended: bool = False

    @property
    def alive(self) -> bool:
        return self.kind == "alive"

    def message(self, sweep: str) -> str:
        """Returns a sentence on a sweep that has not ended and has no driver, or one that is suspended; else empty."""
        if self.suspended and self.holder is not None:
            resume = f"fg in its shell, or kill -CONT {self.holder.pid}, lets it go on"
            return f"its {self.holder} was stopped, by Ctrl-Z maybe; {resume}"
        if self.alive:
            return ""
        return f"no driver{f' since {self.since}' if self.since else ''}; dipsweep resume {sweep} goes on"


def driver_state(store: Store) -> DriverState:
    """Returns whether a sweep's driver is alive, by its lease; takes up to `DOUBT_S` seconds where that is not clear.

    Args:
        store: the sweep's own.
    """
    return driver_states([store])[0]


def driver_states(stores: Sequence[Store], sleep: Callable[[float], None] = time.sleep) -> list[DriverState]:
    """The same for many sweeps: those whose lease leaves a doubt are watched side by side.

    On the kernel that runs the driver its process is asked for. Elsewhere a beat of the last two lease times by the holder's
    own clock means that it lives. An older one may be a clock that is off, so the beat is then watched for a moment.
    """
    seen = [(store, *latest_record(store)) for store in stores]
    states = [_state_of(store, number, record) for store, number, record in seen]
    if doubtful := [i for i, state in enumerate(states) if state is None]:
        sleep(DOUBT_S)
        for i in doubtful:
            store, number, before = seen[i]
            now_number, now = latest_record(store)
            assert before is not None
            moved = now is not None and (now_number != number or now != before) and not now.released
            states[i] = DriverState("alive" if moved else "lost", _last_heard(store, number, before), before.holder)
    return [state for state in states if state is not None]


def _state_of(store: Store, number: int, record: Record | None) -> DriverState | None:
    """Returns what a lease says by itself; None where only time can tell."""
    if record is None:
        return DriverState("none")
    holder, since = record.holder, _last_heard(store, number, record)
    if record.released:
        return DriverState("none", since, holder)
    if holder.gone():
        return DriverState("lost", since, holder)
    if holder.boot and (holder.boot, holder.namespace) == (boot_id(), _namespace()):
        return DriverState("alive", since, holder, suspended=_is_suspended(holder.pid))
    return DriverState("alive", since, holder) if abs(time.time() - record.at) < 2 * LEASE_S else None


def _last_heard(store: Store, number: int, record: Record) -> str:
    at = record.at
    # Without a time: written by a version that did not write it down.
    if not at and (file := store.local(_key(number))) is not None:
        with contextlib.suppress(OSError):
            at = file.stat().st_mtime
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else ""


def latest_record(store: Store) -> tuple[int, Record | None]:
    """Returns the number and the content of a sweep's latest lease; 0 and None where there is none."""
    stems = [Path(e.key).stem for e in store.list(FOLDER) if e.key.endswith(".json")]
    number = max((int(stem) for stem in stems if stem.isdecimal()), default=0)
    if not number:
        return 0, None
    try:
        return number, Record.parse(store.read(_key(number)))
    except NotFound:  # cleared away between the two calls
        return number, None


def known_rows(store: Store) -> int:
    """Returns how many rows a sweep's log had at its driver's last heartbeat, or more; 0 where no lease says."""
    _, record = latest_record(store)
    return record.rows if record is not None else 0


def boot_id() -> str:
    """Returns what names this kernel's run; empty where the system does not say."""
    return _text("/proc/sys/kernel/random/boot_id")


def _key(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Returns when a process was started, in ticks after boot: a pid alone may be another process by now."""
    state = _stat(pid)
    return state[19] if len(state) > 19 and state[0] != "Z" else ""


def _is_suspended(pid: int) -> bool:
    return _stat(pid)[:1] == ["T"]


def _stat(pid: int) -> list[str]:
    """Returns what the kernel tells of a process, from its state on."""
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def driving_user() -> str:
    """Returns who runs this driver: $DIPSWEEP_USER, which a submitted job has from whoever submitted it, else the process's
    own user; empty where the system knows no name."""
    try:
        return os.environ.get(USER_VARIABLE) or getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return ""
