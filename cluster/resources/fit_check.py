"""Before anything starts: can this cluster, or its autoscaler, ever hold the sweep's trials and evaluators?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.ray_internals.nodes import total_resources_per_node
from cluster.resources.autoscaler import Growth
from cluster.resources.backfill import Nodes, fit
from cluster.resources.bundles import beside_evaluators, bundle, evaluator_bundle, size
from sweeps.config.schema import Sweep
from sweeps.errors import Fault, SpecError


def check_fits(sweep: Sweep, growth: Callable[[], Growth | None] = lambda: None) -> None:
    """Raises SpecError for a model whose trials the cluster can never hold; Ray alone would wait for ever.

    Args:
        sweep: whose models, and whose evaluators. growth: what an autoscaler may add; asked only if today's nodes do not do.
    """
    total = total_resources_per_node()
    try:
        _check_fits(sweep, total, _nodes(total))
    except SpecError:
        if (more := growth()) is None:
            raise
        groups = "; ".join(f"{count} x ({size(has)})" for has, count in more.groups.values())
        _check_fits(sweep, more.nodes(), f"{_nodes(total)}, and the autoscaler may add {groups}")


def _check_fits(sweep: Sweep, total: Nodes, there_are: str) -> None:
    evaluation = sweep.evaluation
    evaluators = evaluator_bundle(evaluation)
    if fit(total, evaluators, evaluation.workers) is None:
        raise _refusal(
            "evaluation",
            f"{evaluation.workers} evaluators with {_text(evaluators)} each do not fit this cluster "
            f"({there_are}); lower evaluation.workers or evaluation.gpus_per_worker",
        )
    room = beside_evaluators(total, evaluation)
    for name in sweep.axis_values("model", sweep.default_model):
        model = sweep.model_source(name)
        if 1 < model.gpus_per_worker != int(model.gpus_per_worker):
            raise _refusal(
                f"models.{name}.gpus_per_worker",
                f"got {model.gpus_per_worker}; expected a share below 1 or a whole number",
            )
        if fit(room, bundle(model), model.fewest) is None:
            beside = (
                f" beside {evaluation.workers} evaluators with {_text(evaluators)} each"
                if any(evaluators.values())
                else ""
            )
            raise _refusal(
                f"models.{name}",
                f"{model.fewest} worker(s) with {_text(bundle(model))} each do not fit this cluster"
                f"{beside} (a worker lies on one node; there are {there_are}); lower that, or use a larger cluster",
            )


def _refusal(where: str, why: str) -> SpecError:
    return SpecError(Fault(where, why))


def _text(need: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in need.items() if amount) or "nothing"


def _nodes(total: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the sizes of all nodes: `2 x (4 CPU, 8 GPU)`."""
    sizes = [size(has) for has in total.values()]
    return "; ".join(f"{sizes.count(size)} x ({size})" for size in sorted(set(sizes)))
