"""What Ray would pass on in clear."""

from __future__ import annotations


def test_tune_does_not_hand_the_drivers_aws_keys_to_its_trials(monkeypatch):
    from ray.tune.execution.class_cache import _ActorClassCache

    import cluster.tune.adapter  # noqa: F401 - takes them off Tune's list

    class Trainable:
        pass

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    made = _ActorClassCache().get(Trainable)
    env = made._default_options["runtime_env"]["env_vars"]
    assert "canary" not in env.values()
    assert env["RAY_CHDIR_TO_TRIAL_DIR"] == "0"  # the rest still travels
