"""Is a checkpoint a good start for reinforcement learning? What it can reach, how diverse it is, and where there is a gradient.

The best checkpoint after SFT is often not the best one to start RL from: policy gradients of a group of replies (GRPO) are zero
where all are right or all wrong, and what no reply ever reaches is never reinforced. So beside pass@k, of several samples an
item of the role `math` this measures:

    ready/mixed       share of items with right and wrong replies among the samples
    ready/distinct    distinct replies among the samples of an item, as a share
    ready/self_bleu   BLEU-4 of each reply against the others of its item (Zhu et al. 2018, arXiv 1802.01886); low is diverse
    ready/entropy     of the next token on own replies, nats at temperature 1 (where the engine knows it: transformers)
    ready/score       geometric mean of pass@k, mixed and distinct: a convention; docs/ready-for-rl.md has a trial of it
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from evaluators.scores import Answered
from evaluators.stats import Estimate, sample_error, score_error, share_error
from evaluators.tasks import EvalTask, Suite

ROLE = "math"
ENTROPY = "ready/entropy"
Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def readiness(
    suite: Suite, replies: Sequence[Sequence[Answered]], right: Mapping[str, Sequence[float]]
) -> tuple[dict[str, Estimate], int]:
    """Returns the estimates by metric, and the items behind them; nothing where no item of the role is sampled.

    Args:
        replies: one list per task in the suite's order, the samples of an item in a row. right: outcomes by metric.
    """
    groups: list[list[Answered]] = []
    shares: list[float] = []
    for task, answered in zip(suite.tasks, replies, strict=True):
        samples, metric = suite.samples(task), _own(task)
        if task.role == ROLE and samples > 1 and metric in right:
            for i in range(0, len(answered), samples):
                groups.append(list(answered[i : i + samples]))
                shares.append(sum(right[metric][i : i + samples]) / samples)
    if not groups:
        return {}, 0
    mixed = [float(0 < share < 1) for share in shares]
    passed = [float(share > 0) for share in shares]
    distinct = [len({_text(reply) for reply in group}) / len(group) for group in groups]
    found = {
        "ready/mixed": Estimate(_mean(mixed), share_error(round(sum(mixed)), len(mixed))),
        "ready/distinct": Estimate(_mean(distinct), score_error(distinct)),
        "ready/score": combined(passed, mixed, distinct),
    }
    bleu = [self_bleu([_text(reply).split() for reply in group]) for group in groups]
    found["ready/self_bleu"] = Estimate(_mean(bleu), score_error(bleu))
    entropy = [[r.entropy for r in group if r.entropy is not None] for group in groups]
    if all(len(known) == len(group) for known, group in zip(entropy, groups, strict=True)):
        means = [_mean(known) for known in entropy]
        found[ENTROPY] = Estimate(_mean(means), sample_error(means))
    return found, len(groups)


def _own(task: EvalTask) -> str:
    metric = f"{task.role}/{task.name}"
    return "" if metric in task.graded else metric


def _text(reply: Answered) -> str:
    return " ".join(f"{reply.thought} {reply.answer or ''}".split())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def combined(*factors: Sequence[float]) -> Estimate:
    """Geometric mean of the means of several values an item; its error by the jackknife over items.

    As for every share here, an item of zeros and one of ones are added for the spread (`evaluators.stats.score_error`).
    """
    values = np.array(factors, dtype=np.float64)
    padded = np.column_stack([values, np.zeros(len(values)), np.ones(len(values))])
    n = padded.shape[1]
    without = (padded.sum(axis=1, keepdims=True) - padded) / (n - 1)
    each: Numbers = without.prod(axis=0) ** (1 / len(values))
    error = math.sqrt((n - 1) / n * float(((each - each.mean()) ** 2).sum()))
    return Estimate(float(values.mean(axis=1).prod() ** (1 / len(values))), error)


def self_bleu(texts: Sequence[Sequence[str]], order: int = 4) -> float:
    """Returns the mean BLEU of each text against all others, in [0, 1].

    Counts above one word are smoothed by one (Lin and Och 2004); the brevity penalty takes the other text of the closest length.
    """
    counts = [[_ngrams(text, n) for n in range(1, order + 1)] for text in texts]
    return sum(_bleu(i, texts, counts) for i in range(len(texts))) / len(texts)


def _bleu(own: int, texts: Sequence[Sequence[str]], counts: Sequence[Sequence[Counter[tuple[str, ...]]]]) -> float:
    text, others = texts[own], [i for i in range(len(texts)) if i != own]
    if not text:
        return float(any(not texts[i] for i in others))
    logs = 0.0
    for n, mine in enumerate(counts[own]):
        met = sum(min(count, max(counts[i][n][gram] for i in others)) for gram, count in mine.items())
        total, smooth = mine.total(), float(n > 0)
        if met + smooth == 0.0:
            return 0.0
        logs += math.log((met + smooth) / (total + smooth))
    closest = min((len(texts[i]) for i in others), key=lambda length: (abs(length - len(text)), length))
    return min(1.0, math.exp(1.0 - closest / len(text))) * math.exp(logs / len(counts[own]))


def _ngrams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
