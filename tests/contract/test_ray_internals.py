"""What Ray does not publish and we use all the same is there, in the shape that `cluster.ray_internals` counts on."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from cluster.connect.environment import prepare

prepare()

CLUSTER = Path(__file__).parents[2] / "cluster"
PRIVATE = ("_private", "_internal", "_raylet", "internal_kv")


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("ray.")]


def test_no_other_module_imports_what_ray_does_not_publish():
    others = [p for p in CLUSTER.rglob("*.py") if p.parent.name != "ray_internals"]
    assert len(others) > 30
    private = {
        str(path.relative_to(CLUSTER)): name
        for path in others
        for name in _imports(path)
        if any(part.startswith("_") or part in PRIVATE for part in name.split("."))
    }
    assert private == {}


def test_tune_makes_a_trial_with_our_id_and_config_and_hands_on_no_aws_key():
    from ray import tune
    from ray.tune.execution import class_cache
    from ray.tune.experiment import Experiment

    from cluster.ray_internals.tune import TrialMaker, keep_aws_keys_off_trials

    def function(config):
        tune.report({})

    maker = TrialMaker(Experiment("internals", function))
    trial = maker.make("t-1.2", {"launch": 7})
    assert (trial.trial_id, trial.config) == ("t-1.2", {"launch": 7})
    keep_aws_keys_off_trials()
    assert class_cache.ENV_VARS_TO_PROPAGATE
    assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]


def test_tunes_controller_takes_in_one_event_at_a_time():
    from ray.air.execution._internal import RayActorManager
    from ray.tune.execution.tune_controller import TuneController

    assert "_actor_manager" in inspect.getsource(TuneController.__init__)
    assert list(inspect.signature(RayActorManager.next).parameters) == ["self", "timeout"]


def test_trains_worker_group_and_scaling_policy_have_the_methods_that_we_override():
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group import WorkerGroup
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
    from ray.train.v2.api import data_parallel_trainer

    from cluster.ray_internals import train

    made = inspect.signature(WorkerGroup._create_placement_group).parameters
    assert list(made) == ["self", "scaling_config", "worker_group_context"]
    assert "placement_group_bundle_indices" in inspect.signature(WorkerGroup._create_workers).parameters
    assert hasattr(FixedScalingPolicy, "after_controller_start")
    assert hasattr(FixedScalingPolicy, "_maybe_send_resource_request")
    source = inspect.getsource(data_parallel_trainer)
    assert "TrainController" in source  # module globals, read when fit() runs
    assert "create_scaling_policy(" in source
    assert "_create_default_callbacks" in source
    assert issubclass(train.GroupTorchTrainer, data_parallel_trainer.DataParallelTrainer)
    shards = inspect.signature(RayTrainWorker.init_train_context).parameters["dataset_shard_provider"]
    assert shards.default is None  # nobody asks for a dataset, so no actor comes up for them


def test_the_autoscalers_coordinator_adds_up_requests():
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as module

    source = inspect.getsource(module)
    for name in ("get_or_create_autoscaling_coordinator", "request_resources", "cancel_request", "expire_after_s"):
        assert name in source


def test_a_jobs_record_has_a_message_and_metadata_and_knows_its_end():
    from ray.dashboard.modules.job.common import JobInfo, JobInfoStorageClient
    from ray.job_submission import JobStatus

    info = JobInfo(status=JobStatus.RUNNING, entrypoint="x", message="m", metadata={"a": "b"})
    assert JobInfo.from_json(info.to_json()) == info
    assert not info.status.is_terminal()
    assert JobInfoStorageClient.JOB_DATA_KEY.format(job_id="j").endswith("j")


def test_messages_of_workers_can_be_kept_off_the_terminal(monkeypatch: pytest.MonkeyPatch):
    import ray._private.worker as worker

    from cluster.ray_internals.logs import filter_printed

    seen: list[object] = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, *rest: seen.append(data["pid"]))
    filter_printed(lambda data: data["pid"] == "raylet")
    filter_printed(lambda data: True)  # a second call changes nothing
    for pid in ("raylet", 7):
        worker.print_to_stdstream({"pid": pid, "lines": []}, False)
    assert seen == [7]


def test_nodes_are_described_by_id(monkeypatch: pytest.MonkeyPatch):
    from ray._private import state

    from cluster.ray_internals import nodes

    assert callable(state.available_resources_per_node)
    assert callable(state.total_resources_per_node)
    monkeypatch.setattr(state.state, "get_draining_nodes", lambda: {"n1": 5}, raising=True)
    assert nodes.draining_nodes() == {"n1"}


def test_the_probe_for_a_token_finds_rays_client():
    from ray._raylet import GcsClient, InnerGcsClient

    assert hasattr(GcsClient, "__getattr__")  # hands every call on to the inner one
    assert hasattr(InnerGcsClient, "internal_kv_keys")
