"""What a sweep file can name at one place: what ships with dipsweep, and what installed packages add by an entry point.

A package that has, in its `pyproject.toml`,

    [project.entry-points."dipsweep.rules"]
    my-rule = "my_package:MyRule"

adds the stop rule `my-rule`. Nothing of a package is imported before a sweep names it, so one that cannot be imported
breaks no sweep but its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NamedTuple

from sweeps.errors import InputError, nearest, text_of


class Plugin(NamedTuple):
    """Something that an installed package registers under a name, not imported yet."""

    kind: str
    name: str
    entry: EntryPoint

    @property
    def package(self) -> str:
        """The distribution and its version: `my-package 0.1`."""
        return f"{self.entry.dist.name} {self.entry.dist.version}" if self.entry.dist is not None else "?"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.package} ({self.entry.value})"

    def load(self) -> Any:
        """Imports it.

        Raises:
            InputError: that fails, for whatever reason.
        """
        try:
            return self.entry.load()
        except (Exception, SystemExit) as e:
            raise InputError(f"{self} cannot be imported: {type(e).__name__}: {text_of(e)}") from e


class Registry:
    """The names that one key of a sweep file may have.

    Args:
        kind: what they name, for messages. group: the entry-point group in which packages register more of them.
        built_in: those that ship, each with where it is defined: `module:attribute`.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self.kind, self.group, self.built_in = kind, group, built_in

    def plugins(self) -> list[Plugin]:
        """Returns what installed packages register, in order of name; a name may be there twice."""
        found = (Plugin(self.kind, entry.name, entry) for entry in entry_points(group=self.group))
        return sorted(found, key=lambda plugin: (plugin.name, plugin.package))

    def names(self) -> list[str]:
        """Returns every name, those that ship first."""
        return list(dict.fromkeys((*self.built_in, *(plugin.name for plugin in self.plugins()))))

    def find(self, name: str) -> Plugin | None:
        """Returns the entry point of a name; None for one that ships.

        Raises:
            InputError: nothing here has that name, or two packages claim it.
        """
        if name in self.built_in:
            return None
        hits = [plugin for plugin in self.plugins() if plugin.name == name]
        if not hits:
            known = self.names()
            raise InputError(
                f"{self.kind} {name!r} is unknown; known: {', '.join(known)}{nearest(name, known)} (one that a package adds has "
                f"to be installed here, with an entry point in {self.group})"
            )
        if len(hits) > 1:
            claimed = " and ".join(plugin.package for plugin in hits)
            raise InputError(
                f"{self.kind} {name!r} is registered by {claimed}; expected one of them: uninstall the others"
            )
        return hits[0]

    def load(self, name: str) -> Any:
        """Returns the object of a name.

        Raises:
            InputError: as `find`, or the package behind it cannot be imported.
        """
        plugin = self.find(name)
        return plugin.load() if plugin is not None else EntryPoint(name, self.built_in[name], self.group).load()

    def conflicts(self) -> dict[str, str]:
        """Returns, by name, what packages register in vain or in each other's way, a sentence each."""
        out, found = dict[str, str](), self.plugins()
        for name in dict.fromkeys(plugin.name for plugin in found):
            packages = [plugin.package for plugin in found if plugin.name == name]
            claimed = " and ".join(packages)
            if name in self.built_in:
                out[name] = (
                    f"{self.kind} {name!r} ships with dipsweep and is used; that of {claimed} never is: rename it there"
                )
            elif len(packages) > 1:
                out[name] = (
                    f"{self.kind} {name!r} is registered by {claimed}; no sweep can use it until one is uninstalled"
                )
        return out


RULES: Final = Registry("stop rule", "dipsweep.rules", {
    "none": "sweeps.stopping.base:NeverStop",
    "dip-aware": "sweeps.stopping.dip_aware:DipAware",
    "asha": "sweeps.stopping.baselines:Asha",
    "median": "sweeps.stopping.baselines:Median",
    "hyperband": "sweeps.stopping.baselines:Hyperband",
    "patient": "sweeps.stopping.baselines:Patient",
})  # fmt: skip
SEARCHERS: Final = Registry("search algorithm", "dipsweep.searchers", {
    "grid": "sweeps.controller.searcher:GridSearch",
    **dict.fromkeys(("random", "qmc", "optuna-tpe", "optuna-gp", "optuna-nsga2"), "sweeps.controller.searcher:OptunaSearch"),
})  # fmt: skip
SFT: Final = "sft"
"""The training loop that ships."""
TRAINERS: Final = Registry("trainer", "dipsweep.trainers", {SFT: "trainers.loop:train"})
