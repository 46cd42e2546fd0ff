"""From what a user calls a sweep (id, name, folder, address) to where it is kept."""

from __future__ import annotations

import re
from pathlib import Path

from sweeps.config.checks.plugin_settings import plugin_faults
from sweeps.config.names import NAME
from sweeps.config.schema import Sweep
from sweeps.config.sweep_file.yaml import loads
from sweeps.errors import InputError, SpecError, nearest
from sweeps.journal.writer import is_sweep, sweeps_in
from sweeps.storage.base import Store, is_url
from sweeps.storage.factory import open_store

DEFAULT = "runs"


def is_id(name: str) -> bool:
    """True for what a sweep's id can be, `NAME-8hex`: one folder's name, never a path or an address."""
    return re.fullmatch(NAME.strip("^$") + "-[0-9a-f]{8}", name) is not None


def find(name: str, storage: str | None = None) -> Store:
    """Returns the home of a sweep given by its folder or address, or by its id or name under a storage root.

    With a storage only what lies there counts: a folder here may have the sweep's name, and the name may be somebody else's
    word (a job's metadata).

    Raises:
        InputError: there is none, or more than one of that name.
    """
    is_place = is_url(name) or (Path(name) / "log").is_dir()
    if is_place and storage is None:
        home = open_store(name if is_url(name) else Path(name).resolve())
        if not is_sweep(home):
            raise InputError(f"{name} is no sweep; give the folder or address of one, such as {name}/NAME-1a2b3c4d")
        return home
    root = open_store(storage or DEFAULT)
    homes = list(sweeps_in(root))
    hits = [h for h in homes if h.name == name] or [h for h in homes if h.name.rpartition("-")[0] == name]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise InputError(f"'{name}' could be {' or '.join(h.name for h in hits)}; give the whole id")
    known = [h.name for h in homes]
    have = f"; there are {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else ""
    where = f"{storage or DEFAULT}" if storage else f"{DEFAULT} (--storage names another place)"
    instead = f"; for {name} itself leave --storage out" if is_place else ""
    raise InputError(f"no sweep '{name}' under {where}{have}{nearest(name, known)}{instead}")


def definition(home: Store, *, to_run: bool = False) -> Sweep:
    """Returns the definition of a sweep that is kept there.

    Args:
        to_run: it is to go on, so that the rules, loops and suites which it names have to be installed here.

    Raises:
        InputError, SpecError: it cannot be read, or not by this version.
    """
    sweep = loads(home.read("spec.yaml").decode(), name=f"{home.name}/spec.yaml", recorded=True)
    if to_run and (faults := list(plugin_faults(sweep))):
        raise SpecError(*faults)
    return sweep
