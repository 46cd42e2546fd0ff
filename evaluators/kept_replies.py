"""From an evaluation to the replies that are kept of it (`sweeps.replies`)."""

from __future__ import annotations

from evaluators.partial import PartialEvaluation
from evaluators.tasks import text_of
from sweeps.config.trial import KeepReplies
from sweeps.replies import KeptReply, sampled


def replies_of(asked: PartialEvaluation) -> list[KeptReply]:
    """Returns every reply of an evaluation with what its scorers made of it."""
    found = []
    for task, answered in zip(asked.suite.tasks, asked.read, strict=True):
        samples = asked.suite.samples(task)
        for place, reply in enumerate(answered):
            found.append(
                KeptReply(
                    role=task.role,
                    task=task.name,
                    item=place // samples,
                    sample=place % samples,
                    prompt=text_of(task.prompts[place // samples]),
                    thought=reply.thought,
                    answer=reply.answer,
                    tokens=reply.tokens,
                    truncated=reply.truncated,
                    outcomes={metric: float(asked.right[metric][place]) for metric in asked.suite.metrics(task)},
                )
            )
    return found


def kept_of(replies: list[KeptReply], mode: KeepReplies) -> list[KeptReply]:
    """Returns what of the replies is kept."""
    return sampled(replies) if mode == "sample" else replies
