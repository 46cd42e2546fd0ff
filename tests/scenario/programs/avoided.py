"""Placement groups on a Ray of two nodes, one of which is left alone, then both: python -m tests.scenario.programs.avoided"""

from __future__ import annotations

import json

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.placement_group import placement_group_table, remove_placement_group  # noqa: E402

from cluster.connect.session import local_ray  # noqa: E402
from cluster.tune.adapter import placement_group  # noqa: E402
from sweeps import Sweep  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.controller.launch import Launch  # noqa: E402


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
    cluster.shutdown()


if __name__ == "__main__":
    main()
