"""Replies in, scores out: judged one by one, averaged per task, then per role, each with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.decoding import END_THINK
from evaluators.readiness import readiness
from evaluators.scores import Answered, Scores
from evaluators.stats import Estimate, avg_at_k, mean_error, pass_at_k, sample_error, score_error, share_error
from evaluators.tasks import Judge, Suite
from sweeps.errors import DipsweepError, InputError, place_of, text_of
from sweeps.statistics import pack


def read_reply(text: str, *, tokens: int, truncated: bool, opened: bool, entropy: float | None = None) -> Answered:
    """Splits a reply at its last `</think>`.

    Args:
        opened: the prompt itself opened a thought, so that a reply that never closes it has no answer.
    """
    thought, closed, answer = text.rpartition(END_THINK)
    unfinished = not closed and (opened or "<think>" in text)
    return Answered(
        thought=(text if unfinished else thought).replace("<think>", "").strip(),
        answer=None if unfinished else answer.strip(),
        tokens=tokens,
        truncated=truncated,
        entropy=entropy,
    )


def judged(suite: Suite, replies: Sequence[Sequence[Answered]]) -> dict[str, list[float]]:
    """Judges the replies: one list per task in the suite's order, `suite.samples(task)` replies an item in a row.

    An answer that never came is wrong, and refuses nothing.

    Raises:
        InputError: a judge raised an error, or what it returned is no number in [0, 1]; it may be anybody's.
    """
    return {
        metric: [
            _outcome(suite, metric, judge, place // suite.samples(task), reply.answer)
            if reply.answer is not None
            else False
            for place, reply in enumerate(answered)
        ]
        for task, answered in zip(suite.tasks, replies, strict=True)
        for metric, judge in task.judges.items()
    }


def _outcome(suite: Suite, metric: str, judge: Judge, item: int, answer: str) -> float:
    where = f"suite {suite.name!r}, {metric}, item {item}"
    outcome: Any
    try:
        outcome = judge(item, answer)
    except (DipsweepError, MemoryError, OSError):  # said already, or of the machine
        raise
    except Exception as e:
        place = place_of(e, getattr(judge, "__module__", ""))
        raise InputError(f"{where}: its judge raised {type(e).__name__}: {text_of(e)} ({place})") from e
    if isinstance(outcome, bool):
        return outcome
    try:
        value = float(outcome)
    except (TypeError, ValueError):
        value = -1.0
    if isinstance(outcome, str) or not 0 <= value <= 1:
        raise InputError(f"{where}: its judge returned {outcome!r}; expected True, False, or a number from 0 to 1")
    return value


def score(
    suite: Suite, replies: Sequence[Sequence[Answered]], right: Mapping[str, Sequence[float]] | None = None
) -> Scores:
    """Averages what was judged per task and per role, each with its standard error.

    With k samples an item a metric is avg@k, and `metric@2`, `metric@4` … `metric@k` the chance that one of so many is right.

    Args:
        replies, right: see `judged`, which is asked where `right` is not given.
    """
    right = judged(suite, replies) if right is None else right
    estimates, n = estimated(suite, replies, right)
    metrics = {name: estimate.value for name, estimate in estimates.items()}
    se = {name: estimate.se for name, estimate in estimates.items()}
    outcomes = {metric: pack(bits) for metric, bits in right.items()}
    return Scores(metrics, se, n, suite.version, suite.items_digest, outcomes, parts=dict(suite.means))


def estimated(
    suite: Suite, replies: Sequence[Sequence[Answered]], right: Mapping[str, Sequence[float]]
) -> tuple[dict[str, Estimate], dict[str, int]]:
    """Returns the estimate of every metric that a suite measures, and the items behind it."""
    estimates: dict[str, Estimate] = {}
    n: dict[str, int] = {}
    for task in suite.tasks:
        samples = suite.samples(task)
        for metric in suite.metrics(task):
            for name, estimate in _estimates(metric, right[metric], samples, metric in task.graded).items():
                estimates[name], n[name] = estimate, len(right[metric]) // samples
    for metric, parts in suite.means.items():
        tails = [{name.removeprefix(part) for name in estimates if name.partition("@")[0] == part} for part in parts]
        for tail in sorted(set.intersection(*tails)):
            each = [estimates[part + tail] for part in parts]
            mean = sum(part.value for part in each) / len(each)
            estimates[metric + tail] = Estimate(mean, mean_error([part.se for part in each]))
            n[metric + tail] = sum(n[part + tail] for part in parts)
    ready, items = readiness(suite, replies, right)
    estimates |= ready
    n |= dict.fromkeys(ready, items)
    for metric, values in _lengths(suite, replies).items():
        estimates[metric], n[metric] = _length_estimate(values), len(values)
    return estimates, n


def measured(suite: Suite) -> frozenset[str]:
    """Returns the names of all that a suite measures, but for its variants, as if nobody had answered."""
    silent = [[Answered("", None, 0, False, entropy=0.0)] * (len(t.prompts) * suite.samples(t)) for t in suite.tasks]
    wrong = {
        metric: [False] * len(replies)
        for task, replies in zip(suite.tasks, silent, strict=True)
        for metric in suite.metrics(task)
    }
    return frozenset(estimated(suite, silent, wrong)[0])


def _estimates(metric: str, outcomes: Sequence[float], samples: int, graded: bool) -> dict[str, Estimate]:
    if samples == 1:
        return {metric: Estimate(sum(outcomes) / len(outcomes), score_error(outcomes))}
    right = [sum(outcomes[i : i + samples]) for i in range(0, len(outcomes), samples)]
    average = {metric: avg_at_k(right, samples)}
    if graded:  # pass@k is about right and wrong
        return average
    counts = [round(count) for count in right]
    curve = [*(2**i for i in range(1, (samples - 1).bit_length())), samples]
    return average | {f"{metric}@{k}": pass_at_k(counts, samples, k) for k in curve}


def _length_estimate(values: Sequence[int]) -> Estimate:
    share = isinstance(values[0], bool)
    error = share_error(sum(values), len(values)) if share else sample_error(values)
    return Estimate(sum(values) / len(values), error)


def _lengths(suite: Suite, replies: Sequence[Sequence[Answered]]) -> dict[str, list[int]]:
    """Reply lengths in tokens, per role and overall; as bools: cut off by the cap, with a thought."""
    every = [reply for answered in replies for reply in answered]
    values: dict[str, list[int]] = {
        "length/mean": [reply.tokens for reply in every],
        "length/truncated": [reply.truncated for reply in every],
        "length/reasoned": [bool(reply.thought) for reply in every],
    }
    for task, answered in zip(suite.tasks, replies, strict=True):
        values.setdefault(f"length/{task.role}", []).extend(reply.tokens for reply in answered)
    return values
