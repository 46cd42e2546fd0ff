"""What installed packages add to dipsweep, and what of it a sweep uses: for `validate`, `plan` and `doctor`."""

from __future__ import annotations

from typing import Final

from evaluators.suites.registry import SUITES
from sweeps.config.checks.plugin_settings import places
from sweeps.config.schema import Sweep
from sweeps.errors import InputError
from sweeps.plugins import RULES, SEARCHERS, TRAINERS, Plugin

REGISTRIES: Final = (RULES, SUITES, TRAINERS, SEARCHERS)


def plugins_used(sweep: Sweep) -> list[str]:
    """Returns a line for each plugin that a sweep uses, and for each of its names that a package claims in vain."""
    named = [(at.registry, at.name) for at in places(sweep)]
    named.append((SUITES, sweep.evaluation.suite.partition(":")[0]))
    lines = []
    for registry, name in named:
        used = [plugin for plugin in registry.plugins() if plugin.name == name and name not in registry.built_in]
        lines += [f"uses the {plugin}" for plugin in used]
        lines += [told] if (told := registry.conflicts().get(name)) else []
    return lines


def installed_plugins() -> list[tuple[Plugin, str]]:
    """Returns all plugins of this machine, each with what is wrong with it, which is empty where it can be used."""
    return [
        (plugin, _fault(registry.conflicts().get(plugin.name, ""), plugin))
        for registry in REGISTRIES
        for plugin in registry.plugins()
    ]


def _fault(conflict: str, plugin: Plugin) -> str:
    if conflict:
        return conflict
    try:
        plugin.load()
    except InputError as e:
        return str(e)
    return ""
