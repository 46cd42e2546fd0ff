"""What an evaluation measures here, and so whether its suite can be loaded here at all."""

from __future__ import annotations

from dataclasses import replace

from sweeps.config.trial import EvalSpec


def measured(evaluation: EvalSpec) -> frozenset[str]:
    """Returns all metrics of an evaluation's suite, the entropy of replies among them, of which vLLM tells nothing.

    Raises:
        InputError: the suite cannot be loaded here: it is unknown, or a file or a package that it needs is missing.
    """
    if evaluation.suite.startswith("lm-eval:"):
        from evaluators.suites.lm_eval import find_tasks, measured_names, parse_name

        wanted = parse_name(evaluation.suite)
        find_tasks(evaluation.suite, wanted)
        return measured_names(wanted)
    from evaluators.suites.registry import load_suite
    from evaluators.test_time import all_measured

    return all_measured(load_suite(replace(evaluation, items=1)))
