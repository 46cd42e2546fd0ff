"""Placement groups and evaluators on a Ray of two nodes, one of which is left alone, then both.

python -m tests.scenario.programs.avoided
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.placement_group import placement_group as reserve  # noqa: E402
from ray.util.placement_group import placement_group_table, remove_placement_group  # noqa: E402

from cluster.connect.session import local_ray  # noqa: E402
from cluster.evals.pool import Broken, Pool  # noqa: E402
from cluster.ray_internals.nodes import available_resources_per_node  # noqa: E402
from cluster.resources.bundles import NODE_ID  # noqa: E402
from cluster.tune.adapter import placement_group  # noqa: E402
from sweeps import Sweep  # noqa: E402
from sweeps.config.eval_job import EvalJob  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import EvalSpec  # noqa: E402
from sweeps.controller.launch import Launch  # noqa: E402
from sweeps.errors import NodeTrouble  # noqa: E402
from sweeps.executors.storage_backoff import NodeBackoff  # noqa: E402
from tests.support.fakes import FakeScores  # noqa: E402


def evaluate(place: Path, job: EvalJob) -> FakeScores:
    """Fails on the node on which it is called first; elsewhere its scores name the node."""
    node = ray.get_runtime_context().get_node_id()
    if not place.exists():
        place.write_text(node)
    if place.read_text() == node:
        raise NodeTrouble("not mounted")
    return FakeScores({"transfer/score": 0.5}, suite=node)


def scored_on(pool: Pool, seconds: float) -> tuple[str, list[str]]:
    """Returns on which node a job was scored at last, "" for none in this time, and on which it failed before."""
    failed, until = list[str](), time.monotonic() + seconds
    while time.monotonic() < until:
        for _, result in pool.finished():
            if not isinstance(result, Broken):
                return result.suite, failed
            failed.append(result.failure.node)
        if pool.free and not pool.busy:
            pool.submit(EvalJob("t-1", 1, 4, "/c/4", "tiny-s", EvalSpec()))
        time.sleep(0.05)
    return "", failed


def evaluators(ids: dict[str, str], place: Path) -> dict[str, Any]:
    """Has an evaluator fail on a node, then one brought up where all nodes are left alone, or the only other one is full."""
    nodes = NodeBackoff(lambda line: None)

    def room() -> dict[str, dict[str, float]]:
        return {node: has for node, has in available_resources_per_node().items() if node not in nodes.avoided()}

    with_room = Pool(partial(evaluate, place), 1, cpus=1, nodes=nodes, room=room)
    with_room.open()
    on, failed = scored_on(with_room, 60)
    found: dict[str, Any] = {"failed": [ids[node] for node in failed], "scored": ids.get(on, "")}
    bad = failed[0]
    place.write_text("no node")
    ray.get(reserve([{"CPU": 1}], bundle_label_selector=[{NODE_ID: on}]).ready())  # all that is left there
    full = Pool(partial(evaluate, place), 1, cpus=1, nodes=nodes, room=room)
    full.open()
    found["beside a full one"] = ids.get(scored_on(full, 20)[0], "")
    for node in ids:
        nodes.failed(node, "not mounted")
    alone = Pool(partial(evaluate, place), 1, cpus=1, nodes=nodes, room=room)
    alone.open()
    found["all left alone"] = ids.get(scored_on(alone, 20)[0], "")
    return {**found, "bad": ids[bad]}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    first, second = (cluster.add_node(num_cpus=2).node_id for _ in range(2))
    with local_ray(address=cluster.address):
        for workers, reuse in ((1, True), (1, False), (2, False)):
            (spec,) = Plan(Sweep(name="a", models={"tiny-s": {"workers": workers}})).known_trials()
            launch = Launch(spec, 1, None, workers)
            for avoid in ([first], [second], [first, second]):
                group = placement_group(launch, reuse, avoid).to_placement_group()
                ready = bool(ray.wait([group.ready()], timeout=20 if len(avoid) == 1 else 2)[0])
                where = placement_group_table(group)["bundles_to_node_id"].values() if ready else []
                remove_placement_group(group)
                names = {first: "first", second: "second"}
                print(json.dumps({"workers": workers, "avoid": len(avoid), "off": names[avoid[0]],
                                  "on": sorted({names[node] for node in where})}))  # fmt: skip
        with TemporaryDirectory() as folder:
            print(json.dumps(evaluators({first: "first", second: "second"}, Path(folder) / "bad")))
    cluster.shutdown()


if __name__ == "__main__":
    main()
