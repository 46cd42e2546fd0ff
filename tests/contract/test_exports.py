"""What users import is decided here, in writing."""

from __future__ import annotations

import subprocess
import sys

import cluster
import sweeps


def test_the_public_names_are_these_and_each_can_be_imported():
    assert sweeps.__all__ == [
        "DipAware", "DipsweepError", "InputError", "Results", "SpecError", "Sweep", "choice", "grid", "load", "loguniform",
        "randint", "uniform", "zipped",
    ]  # fmt: skip
    assert cluster.__all__ == ["run", "submit"]
    for module in (sweeps, cluster):
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_what_users_import_is_what_they_call_whatever_was_imported_before():
    """In a process of its own: here the tests before have imported most modules."""
    ask = "import inspect, {}; from cluster import run, submit; print(*map(inspect.isfunction, (run, submit)))"
    for before in ("json", "cluster.run_sweep, cluster.jobs.submit"):
        assert subprocess.check_output([sys.executable, "-c", ask.format(before)], text=True).split() == [
            "True",
            "True",
        ]


def test_every_rule_of_the_schema_can_be_made_with_the_settings_that_the_schema_takes():
    from cluster.run_sweep import stop_rule
    from sweeps.plugins import RULES

    settings = {"dip-aware": {"max_lost_winners": 0.2, "patience": 3.0, "protect": "soft"},
                "asha": {"grace": 10, "reduction": 3.0}, "median": {"grace": 10},
                "hyperband": {"grace": 2, "reduction": 2.0}, "patient": {"patience": 5.0}}  # fmt: skip
    for rule in RULES.built_in:
        made = stop_rule(sweeps.Sweep(name="x", stopping={"rule": rule, **settings.get(rule, {})}))
        assert made.name == rule
        assert made.goal.metric == "transfer/score"
