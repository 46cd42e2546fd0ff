"""Refuses to start when another distribution has laid its files over ours.

PyPI has packages named `sweeps` (pulled in by `wandb[sweeps]`), `cluster` and `evaluators`. Installed after dipsweep they
overwrite our files without a word from pip. Better one clear sentence here than an AttributeError somewhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import distributions

OURS = ("sweeps", "trainers", "evaluators", "cluster")


def check_names(owners: Mapping[str, Sequence[str]] | None = None) -> None:
    """Raises ImportError naming the distributions that also claim one of our four package names."""
    owners = _owners() if owners is None else owners
    intruders = {n: sorted({d for d in owners.get(n, ()) if d.lower() != "dipsweep"}) for n in OURS}
    told = [f"'{name}' also belongs to {', '.join(others)}" for name, others in intruders.items() if others]
    if told:
        packages = " ".join(sorted({d for others in intruders.values() for d in others}))
        raise ImportError(
            f"dipsweep cannot share an environment with packages of the same name: {'; '.join(told)}. "
            f"Run: pip uninstall {packages} && pip install --force-reinstall --no-deps dipsweep"
        )


def _owners() -> dict[str, list[str]]:
    """Returns the distributions that have files in our packages, by package.

    Every process of a sweep asks, so this only looks for names in the texts that installers leave: a twentieth of a second
    where `packages_distributions`, which reads all of them by line, takes a quarter.
    """
    found: dict[str, list[str]] = {}
    for distribution in distributions():
        listed = "\n" + (distribution.read_text("RECORD") or distribution.read_text("top_level.txt") or "")
        for name in OURS:
            if f"\n{name}/" in listed or f"\n{name}\n" in listed:
                found.setdefault(name, []).append(distribution.metadata["Name"])
    return found
