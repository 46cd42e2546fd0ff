"""The suites by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from evaluators.decoding import Decoding
from evaluators.suites.user_files import with_files
from evaluators.tasks import EvalTask, Suite, role_means
from evaluators.test_time import parse_variant
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError, StorageError, place_of, text_of
from sweeps.plugins import Plugin, Registry

SUITES: Final = Registry("suite", "dipsweep.suites", {
    name: f"evaluators.suites.{name}:build" for name in ("mini", "gym", "offline", "paper")
})  # fmt: skip
"""Each is a function `build(items, seed, where) -> Suite`: up to `items` items a task, the same ones for the same seed; `where`
is what follows the colon of `paper:DIR`, else empty."""
NONE: Final = "none"
"""No items but those of `evaluation.files`."""


def load_suite(evaluation: EvalSpec, *, seed: int = 0, decoding: Decoding | None = None) -> Suite:
    """Returns a suite with up to `items` items a task: the same ones for the same evaluation and seed.

    Args:
        evaluation: its suite is one of SUITES, where `paper:DIR` says where the files are, or `none`; with files of own
            items, items per task, settings of test-time compute, and the folder of a model that judges.
        decoding: how replies are drawn; by default as the suite says (greedily, but for `paper`).

    Raises:
        InputError: no suite of that name, `items` is below 1, or what the suite reads is missing.
    """
    if evaluation.items < 1:
        raise InputError(f"evaluation.items: got {evaluation.items}; expected 1 or more")
    suite = _named(evaluation, seed)
    if evaluation.files:
        suite = with_files(suite, evaluation.files, evaluation.items, seed)
        if not evaluation.judge and (left := [task.name for task in suite.tasks if task.scorer and not task.judges]):
            raise InputError(f"evaluation.files: a model has to judge task {left[0]!r}; name one (evaluation.judge)")
    for variant in evaluation.test_time:
        parse_variant(variant)
    if evaluation.judge and not any(task.rubrics for task in suite.tasks):
        raise InputError(f"evaluation.judge: suite {suite.name!r} has nothing for a model to judge")
    asked = replace(suite, variants=evaluation.test_time, judge=evaluation.judge, decoding=decoding or suite.decoding)
    if (task := asked.greedy_samples()) is not None:
        raise InputError(
            f"suite {asked.name!r} draws {asked.samples(task)} replies to an item of {task.name} greedily, which would "
            "all be the same; expected a temperature above 0, or one reply"
        )
    return _measured(asked)


def _named(evaluation: EvalSpec, seed: int) -> Suite:
    kind, _, where = evaluation.suite.partition(":")
    if evaluation.suite == NONE:
        if not evaluation.files:
            raise InputError(f"suite {NONE!r} asks nothing; name your own items under evaluation.files")
        return Suite("", (), {})
    if kind == "lm-eval":
        raise InputError("evaluation.files: lm-eval asks and scores by itself; expected another suite beside files")
    plugin, build = SUITES.find(kind), SUITES.load(kind)
    if plugin is None:
        shipped: Suite = build(evaluation.items, seed, where)
        return shipped
    try:
        return _of_package(plugin, build(evaluation.items, seed, where))
    except (InputError, StorageError):
        raise
    except (Exception, SystemExit) as e:
        place = place_of(e, plugin.entry.module)
        raise InputError(f"{plugin} cannot be built: {type(e).__name__}: {text_of(e)} ({place})") from e


def _of_package(plugin: Plugin, suite: Suite) -> Suite:
    """Returns a suite that a package built, under the name by which sweeps ask for it; its code is part of its version."""
    if not isinstance(suite, Suite):
        raise InputError(f"{plugin} built {type(suite).__name__}; expected an evaluators.tasks.Suite")
    if other := [type(task).__name__ for task in suite.tasks if not isinstance(task, EvalTask)]:
        raise InputError(
            f"{plugin} built a suite with a task that is a {other[0]}; expected an evaluators.tasks.EvalTask"
        )
    code = (plugin.entry.module, *([plugin.entry.dist.name] if plugin.entry.dist is not None else []))
    return replace(
        suite, name=plugin.name, judged_by=(*suite.judged_by, *code), means=suite.means or role_means(suite.tasks)
    )


def _measured(suite: Suite) -> Suite:
    """Leaves out tasks that cannot be judged here, and the means that they are part of.

    Raises:
        InputError: nothing is left.
    """
    tasks = tuple(task for task in suite.tasks if suite.metrics(task))
    if not tasks:
        raise InputError(f"suite {suite.name!r}: all of it is judged by a model; name one (evaluation.judge)")
    known = {metric for task in tasks for metric in suite.metrics(task)}
    means = {metric: kept for metric, parts in suite.means.items() if (kept := tuple(p for p in parts if p in known))}
    return replace(suite, tasks=tasks, means=means)
