"""Says before a sweep starts whether its own data holds questions of its own evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from evaluators.suites.registry import load_suite
from evaluators.tasks import text_of
from sweeps.config.schema import Sweep
from sweeps.errors import InputError
from trainers.data.contamination import Overlap, conversation_texts, overlap
from trainers.data.download_cache import is_remote
from trainers.data.user_files import read


def contamination(sweep: Sweep) -> Iterator[str]:
    """Yields one sentence for each tier of the user's own that shares questions with the sweep's suite.

    Built-in tiers are left out: what they ask is held apart from the evaluation where they are made. Data elsewhere is
    not fetched for this; the sentence then says that nobody looked.
    """
    own = {str(n): s for n in sweep.axis_values("data", sweep.default_tier)
           if (s := sweep.tier_source(str(n))).path != "builtin"}  # fmt: skip
    prompts = evaluation_prompts(sweep) if own else ()
    for name, source in own.items():
        if is_remote(source.path):
            yield f"tier {name}: not compared with the evaluation's prompts, since {source.path} is not on this machine"
        elif prompts:
            try:
                data = read(source)
            except InputError:  # preflight says it better
                continue
            found = overlap(conversation_texts([*data.primary, *data.replay]), prompts)
            if found.seen:
                numbers = [*data.primary_numbers, *data.replay_numbers]
                suite = sweep.evaluation.suite
                asked = "evaluation.files" if suite == "none" else f"suite {suite}"
                yield sentence(name, asked, found, numbers[found.examples[0][0]])


def evaluation_prompts(sweep: Sweep) -> tuple[str, ...]:
    """Returns what the suite asks; nothing for lm-eval's tasks, whose prompts it alone knows how to build."""
    if sweep.evaluation.suite.startswith("lm-eval:"):
        return ()
    suite = load_suite(sweep.evaluation.spec)
    return tuple(text_of(prompt) for task in suite.tasks for prompt in task.prompts)


def sentence(tier: str, asked: str, found: Overlap, number: int) -> str:
    """Returns the warning: how much, and where to look first; `number` is that row's in its file, from 1."""
    _, prompt = found.examples[0]
    return (
        f"warning: tier {tier} holds {found.seen} of the {found.prompts} prompts of {asked} "
        f"(in {found.touched} of {found.rows} rows, such as row {number} and prompt {prompt + 1}): its scores may be memory"
    )
