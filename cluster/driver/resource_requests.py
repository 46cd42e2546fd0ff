"""What a sweep asks of the cluster beside Ray's placement: its turn among other sweeps, and nodes of the autoscaler."""

from __future__ import annotations

from collections.abc import Collection

from cluster.resources.autoscaler import Growth, Lot, place
from cluster.resources.backfill import Choice, Group
from cluster.resources.bundles import (
    Attempt,
    beside_evaluators,
    bundle,
    evaluator_bundle,
    held,
    most_workers,
    size,
    times,
)
from cluster.resources.fair_share import FairShareClient, NodeRequests
from cluster.resources.placement import PlacementScheduler
from sweeps.config.trial import TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.executors.local import Progress


class ResourceRequests:
    """Speaks for one sweep.

    Args:
        controller: knows the queue. placement: knows what fits. say: takes one line for a person.
        client: the way to the fair-share actor; None where no other sweep can be on the cluster.
    """

    def __init__(
        self, controller: SweepController, placement: PlacementScheduler, say: Progress, client: FairShareClient | None
    ) -> None:
        self.controller, self.placement, self.say, self.client = controller, placement, say, client
        self._said_waits_for_nodes = False
        self._said_blocked: set[Group] = set()

    def may_start(self, choice: Choice, live: Collection[Attempt]) -> bool:
        """Asks whether it is this sweep's turn to start the chosen trial."""
        if self.client is None:
            return True
        spec = self.controller.spec(choice.trial)
        assert spec is not None  # it was chosen from the queue
        return self.client.may_start(held(live), times(bundle(spec.model), choice.workers))

    def renew(self, live: Collection[Attempt], evaluators: int, *, ending: bool) -> None:
        """Once a second sends the sweep's usage to the fair-share actor.

        Args:
            evaluators: how many are up. ending: the sweep will start nothing more.
        """
        if self.client is None:
            return
        sweep = self.controller.plan.sweep
        self.client.weight, self.placement.external_usage = sweep.limits.weight, self.client.external_usage
        self.client.renew(
            held(live),
            lambda: {} if ending else self._next_pending(),
            times(evaluator_bundle(sweep.evaluation), evaluators),
            lambda growth: self._node_requests(growth, live, ending),
        )

    def attempt_ended(self) -> None:
        """Something was given back: the next `renew` says so at once, before others see what is free."""
        if self.client is not None:
            self.client.renew_soon()

    def unregister(self) -> None:
        """The sweep is over."""
        if self.client is not None:
            self.client.unregister()

    def say_blocked(self) -> None:
        """Says once of each size that external usage leaves it no room: it would look like a sweep that hangs."""
        for group in self.placement.backfill.blocked_by_external:
            if group not in self._said_blocked and self.placement.blocked(group):
                self._said_blocked.add(group)
                self.say(
                    f"trials of {group.min_workers} x ({size(group.bundle)}) wait until others on this cluster give "
                    "machines back; what fits goes first"
                )

    def _next_pending(self) -> dict[str, float]:
        head = self.placement.first(self.controller.next_trials)
        return times(head.bundle, head.min_workers) if head else {}

    def _node_requests(self, growth: Growth, live: Collection[Attempt], ending: bool) -> NodeRequests:
        """Returns what should exist for this sweep given an autoscaler; says once that nodes are waited for."""
        evaluation = self.controller.plan.sweep.evaluation
        holds: list[Lot] = [(evaluator_bundle(evaluation), evaluation.workers)]
        holds += [(bundle(a.launch.spec.model), a.launch.workers) for a in live]
        queue: list[TrialSpec] = [] if ending else self.controller.next_trials(self.placement.look_ahead)
        room = beside_evaluators(growth.nodes(), evaluation)
        most = {name: most_workers(room, model) for name, model in {s.config["model"]: s.model for s in queue}.items()}
        waits: list[Lot] = [(bundle(spec.model), most[spec.config["model"]]) for spec in queue]
        if waits and not self._said_waits_for_nodes:
            asked, there = len(growth.hold(holds + waits)), len(place(self.placement.nodes, holds + waits))
            if asked > there:
                self._said_waits_for_nodes = True
                self.say(
                    f"waits for machines: the autoscaler was asked for room for {asked} workers and evaluators, "
                    f"{there} of them have it"
                )
        return holds, waits
