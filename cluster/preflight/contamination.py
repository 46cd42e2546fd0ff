"""Does a sweep's own data hold questions of its own evaluation?"""

from __future__ import annotations

from evaluators.suites.registry import load_suite
from evaluators.tasks import EvalTask, text_of
from sweeps.config.schema import Sweep
from trainers.data.inspection.contamination import Overlap, conversation_texts, overlap
from trainers.data.types import TierData


def evaluation_tasks(sweep: Sweep) -> tuple[EvalTask, ...]:
    """Returns the suite's tasks; none of lm-eval's, which only lm-eval can render."""
    return () if sweep.evaluation.suite.startswith("lm-eval:") else load_suite(sweep.evaluation.spec).tasks


def evaluation_prompts(sweep: Sweep) -> tuple[str, ...]:
    """Returns the suite's prompts."""
    return tuple(text_of(prompt) for task in evaluation_tasks(sweep) for prompt in task.prompts)


def tier_overlap(data: TierData, prompts: tuple[str, ...]) -> Overlap | None:
    """Returns what a tier of the user's own holds of the evaluation's prompts; None where there is nothing to compare.

    Built-in tiers are left out: what they ask is held apart from the evaluation where they are made.
    """
    if not prompts or data.source is None or data.source.path == "builtin":
        return None
    return overlap(conversation_texts([*data.primary, *data.replay]), prompts)


def warning(sweep: Sweep, tier: str, data: TierData, found: Overlap) -> str:
    """Returns the warning: how much, and where to look first."""
    place, prompt = found.examples[0]
    number = [*data.primary_numbers, *data.replay_numbers][place]
    suite = sweep.evaluation.suite
    asked = "evaluation.files" if suite == "none" else f"suite {suite}"
    return (
        f"warning: tier {tier} holds {found.seen} of the {found.prompts} prompts of {asked} "
        f"(in {found.touched} of {found.rows} rows, such as row {number} and prompt {prompt + 1}): its scores may be memory"
    )
