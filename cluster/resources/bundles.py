"""What attempts and evaluators reserve, as bundles of a placement group; and the attempts that are on the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cluster.resources.backfill import Nodes, fit, less
from sweeps.config.blocks import EvaluationBlock
from sweeps.config.trial import ModelSource, TrialSpec
from sweeps.controller.launch import Launch

NODE_ID: Final = "ray.io/node-id"
"""The label by which Ray tells every node from the others."""


class StopRequest(Enum):
    """What an attempt was asked to do before it has run to its budget."""

    NONE = "none"
    GRACEFUL = "graceful"  # save, then return
    DISCARD = "discard"  # return between two steps without saving; its processes may run another attempt
    IMMEDIATE = "immediate"  # end now, whatever it does


@dataclass(slots=True)
class Attempt:
    """An attempt that is on the cluster.

    Attributes:
        launch: what was started. group: the processes that run it. placed: number of its bundles by node, as expected.
        since: when it was started, in seconds by a clock that never goes back.
        step: last step reported. nodes: where its processes say they run. trains: its training processes are up.
        stop_request: what it was asked to do, if anything; stop_at: when it is made to, by the same clock.
        preempted: it was asked because one of its nodes goes away.
        reported_exit: its last message has come, so Tune's word that it is gone is no news.
        reusable: its processes were clean after it.
    """

    launch: Launch
    group: str
    placed: Mapping[str, int]
    since: float
    step: int = 0
    nodes: set[str] = field(default_factory=set)
    trains: bool = False
    stop_request: StopRequest = StopRequest.NONE
    stop_at: float = 0.0
    preempted: bool = False
    reported_exit: bool = False
    reusable: bool = True

    @property
    def kind(self) -> str:
        """What its pace depends on."""
        return pace_key(self.launch.spec, self.launch.workers)

    @property
    def done(self) -> int:
        """Steps made since it started."""
        return max(0, self.step - (self.launch.resume.step if self.launch.resume else 0))


def pace_key(spec: TrialSpec, workers: int) -> str:
    """Returns what the pace of a trial on so many workers depends on."""
    return f"{spec.config['model']} x{workers}"


def bundle(model: ModelSource) -> dict[str, float]:
    """Returns what one worker of a model reserves."""
    resources = {"CPU": model.cpus_per_worker}
    if model.gpus_per_worker:
        resources["GPU"] = model.gpus_per_worker
    return resources


def selector_avoiding(nodes: Iterable[str]) -> dict[str, str]:
    """Returns the label selector of what is to be placed on none of these nodes, of which there is at least one."""
    return {NODE_ID: f"!in({','.join(sorted(nodes))})"}


def most_workers(room: Nodes, model: ModelSource) -> int:
    """Returns on how many workers a trial runs at most on these nodes when they are empty; never fewer than it needs."""
    sizes = range(model.workers, model.fewest, -1)
    return next((n for n in sizes if fit(room, bundle(model), n) is not None), model.fewest)


def times(need: Mapping[str, float], count: int) -> dict[str, float]:
    """Returns what `count` such bundles are in all."""
    return {name: amount * count for name, amount in need.items()}


def held(attempts: Iterable[Attempt]) -> dict[str, float]:
    """Returns what attempts hold together."""
    return total(times(bundle(a.launch.spec.model), a.launch.workers) for a in attempts)


def total(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Returns the sum by resource."""
    out: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            out[name] = out.get(name, 0.0) + amount
    return out


def evaluator_bundle(evaluation: EvaluationBlock) -> dict[str, float]:
    """Returns what one evaluator reserves."""
    return {"GPU": evaluation.gpus_per_worker, "CPU": evaluation.cpus_per_worker}


def beside_evaluators(total: Nodes, evaluation: EvaluationBlock) -> Nodes:
    """Returns what is left of these nodes for trials, as well as that can be told; all where they hold no evaluators."""
    evaluators = evaluator_bundle(evaluation)
    return less(total, evaluators, fit(total, evaluators, evaluation.workers) or {})


def size(has: Mapping[str, float]) -> str:
    """Returns `4 CPU, 8 GPU`."""
    return ", ".join(f"{has[n]:g} {n}" for n in ("CPU", "GPU") if n in has) or "neither CPU nor GPU"
