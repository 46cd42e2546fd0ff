"""A trial is trained, and a base model scored, from what its sweep began with: compared each time, on the machine that does it.

A driver compares when a sweep begins and when it goes on (`cluster.preflight.inputs`). In between, somebody may put other rows or
weights at the same path, and a machine may have others of its own there.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from sweeps.config.trial import Hooks, ModelSource, TierSource, TrialSpec, waiting_of
from sweeps.errors import InputError, InputsChanged
from sweeps.storage.base import COMMAND_S, FOREVER, Store, Where, join, storage_trouble
from sweeps.storage.factory import open_store

FILE: Final = "inputs.json"
"""Its place in a sweep's folder."""


def inputs_at_first(home: Store) -> dict[str, str]:
    """Returns name and digest of all that a sweep began with; empty before it has begun.

    Raises:
        InputError: what was written down is damaged.
    """
    if not home.exists(FILE):
        return {}
    try:
        found = json.loads(home.read(FILE))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{join(home.root, FILE)} is damaged: it said which data and weights the sweep began with; restore it from a copy, "
            "or remove it if they are still the same"
        )
    return found


def changed_inputs(first: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns a sentence on each input that is another now; what is not on this machine (its digest is "") is no other."""
    return [
        f"{name} is not what this sweep began with (got {now[name]}; expected {first[name]})"
        for name in sorted(now)
        if name in first and now[name] not in ("", first[name])
    ]


class VerifyInputsBefore:
    """A training function that trains only from what the sweep began with.

    Args:
        train: the function. home: the sweep's folder or address.
    """

    def __init__(self, train: Callable[..., Any], home: Where) -> None:
        self.train, self.home = train, str(home)

    @property
    def reuse(self) -> bool:
        """Whether the process may run another attempt afterwards: what the function itself says."""
        return bool(getattr(self.train, "reuse", False))

    def __call__(self, trial: TrialSpec, hooks: Hooks, **kwargs: Any) -> Any:
        """Trains.

        Raises:
            InputsChanged: the trial's data or model is another now, gone, or may not be read; nothing is wrong with the trial.
        """
        try:
            first = inputs_at_first(open_store(self.home, patience_s=FOREVER, say=waiting_of(hooks)))
            now = dict(_digests(trial))
        except (InputError, OSError) as e:
            raise storage_trouble(e) or InputsChanged(f"on {socket.gethostname()}: {e}") from e
        gone = [f"{name} is not there" for name in first if now.get(name) == ""]
        if told := changed_inputs(first, now) + gone:
            raise _not_as_at_first(told)
        return self.train(trial, hooks, **kwargs)


def verify_model(home: Where, name: str, source: ModelSource) -> None:
    """Makes sure that a model that lies here is the one that the sweep began with; where it does not, nothing is said.

    Raises:
        InputsChanged: it is another, or its chat template is.
    """
    from trainers.model.files.digests import model_digests

    first = inputs_at_first(open_store(home, patience_s=FOREVER))
    if told := changed_inputs(first, dict(model_digests(name, source, FOREVER))):
        raise _not_as_at_first(told)


def verify_tier(home: Store, name: str, source: TierSource) -> str:
    """Makes sure that a tier is the one that the sweep began with; returns a sentence where nothing was written down of it.

    Raises:
        InputError: it is another now.
    """
    from trainers.model.files.digests import tier_digests

    first, now = inputs_at_first(home), dict(tier_digests(name, source, COMMAND_S))
    if told := changed_inputs(first, now):
        raise InputError(f"{home.name}: {'; '.join(told)}: restore it, or export without --for")
    unknown = [each for each in now if each not in first]
    return "".join(f"{each}: no digest is on record, so SFT may have learnt from other rows" for each in unknown)


def _not_as_at_first(told: Iterable[str]) -> InputsChanged:
    return InputsChanged(f"on {socket.gethostname()}: {'; '.join(told)}: restore it")


def _digests(trial: TrialSpec) -> Iterator[tuple[str, str]]:
    from trainers.model.files.digests import model_digests, tier_digests

    yield from model_digests(str(trial.config["model"]), trial.model, FOREVER)
    yield from tier_digests(str(trial.config["data"]), trial.tier, FOREVER)
