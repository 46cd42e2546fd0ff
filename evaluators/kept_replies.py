"""From an evaluation to the replies that are kept of it (`sweeps.replies`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from evaluators.partial import PartialEvaluation
from evaluators.tasks import EvalTask, Suite, text_of
from sweeps.config.trial import KeepReplies
from sweeps.replies import KeptReply, sampled

REFUSAL: Final = "safety/refusal"
OVER_REFUSAL: Final = "safety/over_refusal"


def replies_of(asked: PartialEvaluation, name: Callable[[str], str] = str) -> list[KeptReply]:
    """Returns every reply of an evaluation with what its scorers made of it.

    Args:
        name: how tasks and metrics are called, under a variant of `test_time` (`gcd,cap=64`, `math/gcd,cap=64`).
    """
    found = []
    for task, answered in zip(asked.suite.tasks, asked.read, strict=True):
        samples = asked.suite.samples(task)
        for place, reply in enumerate(answered):
            outcomes = {metric: float(asked.right[metric][place]) for metric in asked.suite.metrics(task)}
            found.append(
                KeptReply(
                    role=task.role,
                    task=name(task.name),
                    item=place // samples,
                    sample=place % samples,
                    prompt=text_of(task.prompts[place // samples]),
                    thought=reply.thought,
                    answer=reply.answer,
                    tokens=reply.tokens,
                    truncated=reply.truncated,
                    outcomes={name(metric): value for metric, value in outcomes.items()},
                    refused=_refused(asked.suite, task, outcomes),
                )
            )
    return found


def _refused(suite: Suite, task: EvalTask, outcomes: Mapping[str, float]) -> bool | None:
    """Whether a reply refuses, by the metric that looks for it: over-refusal of harmless requests, refusal of others."""
    own = f"{task.role}/{task.name}"
    looks = (
        OVER_REFUSAL
        if OVER_REFUSAL in outcomes
        else own
        if task.refusals or own in suite.means.get(REFUSAL, ())
        else ""
    )
    return outcomes[looks] >= 0.5 if looks in outcomes else None


def kept_of(replies: list[KeptReply], mode: KeepReplies) -> list[KeptReply]:
    """Returns what of the replies is kept."""
    return sampled(replies) if mode == "sample" else replies
