"""Generation for many prompts of one model: sorted by length, one KV cache, finished rows leave at once.

A plain `model.generate` on prompts as they come pays for padding on the left and for every row until the slowest one
ends; replies of a reasoning model differ tenfold in length, so most of that work is thrown away.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from evaluators.decoding import GREEDY, Decoding, Reply, ThinkTags

if TYPE_CHECKING:
    import torch

BATCH_ROWS: Final = 512
"""For models of 0.1M parameters a forward pass costs its Python overhead, so batches are large."""
BATCH_TOKENS: Final = 65_536
"""Bound of rows x (longest prompt + cap): what the KV cache of a batch may grow to."""


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    caps: Sequence[int],
    *,
    stop: frozenset[int],
    decoding: Decoding = GREEDY,
    tags: ThinkTags | None = None,
    batch_rows: int = BATCH_ROWS,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Reply]:
    """Returns one reply per prompt, in the order of the prompts (`decoding.samples` is the caller's to repeat).

    Args:
        model: a Hugging Face causal language model in eval mode.
        prompts: token ids, each at least one.
        caps: new tokens each reply may have, at least one.
        stop: ids that end a reply.
        tags: what opens and closes a thought; needed where there is a `decoding.think_cap`.
    """
    import torch

    replies: list[Reply | None] = [None] * len(prompts)
    with torch.inference_mode():
        for batch in batches(prompts, caps, batch_rows, batch_tokens):
            asked = [prompts[i] for i in batch]
            rows = _Rows(batch, [caps[i] for i in batch], stop, decoding)
            if tags is not None and decoding.think_cap is not None:
                rows.close_thoughts(asked, tags, decoding.think_cap)
            _decode(model, asked, rows)
            for i, ids, entropy in zip(batch, rows.out, rows.entropies(), strict=True):
                ended = ids[-1] in stop
                replies[i] = Reply(ids[:-1] if ended else ids, truncated=not ended, entropy=entropy)
    return [reply for reply in replies if reply is not None]


def batches(
    prompts: Sequence[Sequence[int]], caps: Sequence[int], batch_rows: int, batch_tokens: int
) -> Iterator[list[int]]:
    """Groups prompts of like length, the longest first (if memory does not suffice, it shows at once)."""
    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), -caps[i], i)):
        grown = max(longest, len(prompts[i]) + caps[i])
        if batch and (len(batch) == batch_rows or grown * (len(batch) + 1) > batch_tokens):
            yield batch
            batch, grown = [], len(prompts[i]) + caps[i]
        batch.append(i)
        longest = grown
    if batch:
        yield batch


class _Rows:
    """The replies of one batch as they grow, and which of them still do.

    Args:
        numbers: each row's place among all prompts; seeds its samples.
    """

    def __init__(self, numbers: Sequence[int], caps: Sequence[int], stop: frozenset[int], how: Decoding) -> None:
        self.caps, self.stop, self.how = caps, stop, how
        self._budget: tuple[Sequence[Sequence[int]], ThinkTags, int] | None = None
        self.out: list[list[int]] = [[] for _ in numbers]
        self.live = list(range(len(numbers)))
        if how.temperature:
            draws = (np.random.default_rng([how.seed, i]).random(cap) for i, cap in zip(numbers, caps, strict=True))
            self.uniforms = list(draws)
        self._entropy = [0.0] * len(self.out)

    def choose(self, logits: torch.Tensor) -> list[int]:
        """Returns the next token of each live row; logits are [live rows, vocabulary]."""
        if not self.how.temperature:
            tokens: list[int] = logits.argmax(-1).tolist()
        else:
            drawn = [self.uniforms[i][len(self.out[i])] for i in self.live]
            tokens = sample(logits, drawn, self.how.temperature, self.how.top_p)
            for i, entropy in zip(self.live, entropies(logits), strict=True):
                self._entropy[i] += entropy
        if self._budget is not None:
            prompts, tags, cap = self._budget
            for place, i in enumerate(self.live):
                if len(self.out[i]) == cap and tags.leave_open([*prompts[i], *self.out[i]]):
                    tokens[place] = tags.end
        return tokens

    def close_thoughts(self, prompts: Sequence[Sequence[int]], tags: ThinkTags, cap: int) -> None:
        """From now on ends thoughts that are open after `cap` tokens of a reply; a reply without a thought is left alone."""
        self._budget = prompts, tags, cap

    def entropies(self) -> list[float | None]:
        """Returns the mean entropy of each row's next tokens; None where they were not sampled, or from what is no number."""
        if not self.how.temperature:
            return [None] * len(self.out)
        means = [total / len(ids) for total, ids in zip(self._entropy, self.out, strict=True)]
        return [mean if math.isfinite(mean) else None for mean in means]

    def extend(self, tokens: Sequence[int]) -> list[int]:
        """Appends a token to each live row; returns the places (among the live) of those that go on."""
        keep = []
        for place, (i, token) in enumerate(zip(self.live, tokens, strict=True)):
            self.out[i].append(token)
            if token not in self.stop and len(self.out[i]) < self.caps[i]:
                keep.append(place)
        self.live = [self.live[place] for place in keep]
        return keep


def entropies(logits: torch.Tensor) -> list[float]:
    """Returns the entropy of each row's distribution at temperature 1, in nats, not a number where a logit is none.

    Args:
        logits: [rows, vocabulary].
    """
    import torch

    found: list[float] = torch.special.entr(logits.float().softmax(-1)).sum(-1).tolist()
    return found


def sample(logits: torch.Tensor, drawn: Sequence[float], temperature: float, top_p: float) -> list[int]:
    """Returns one token per row by inverting its distribution at a number drawn from [0, 1)."""
    import torch

    chances, order = torch.softmax(logits.double() / temperature, dim=-1).sort(dim=-1, descending=True)
    below = chances.cumsum(-1) - chances
    chances = chances.where(below < top_p, 0.0)
    reached = chances.cumsum(-1)
    at = torch.tensor(drawn, dtype=torch.float64, device=logits.device)[:, None] * reached[:, -1:]
    place = (reached <= at).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    tokens: list[int] = order.gather(-1, place).squeeze(-1).tolist()
    return tokens


def _decode(model: Any, prompts: Sequence[Sequence[int]], rows: _Rows) -> None:
    """Runs one batch to its end; replies in `rows.out` include the stop token where one came."""
    import torch

    ids, mask = left_padded(prompts, model.device)
    padded = not bool(mask.all())
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    name, cache = cache_name(model), None
    while True:
        result = model(
            input_ids=ids,
            attention_mask=mask if padded else None,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{name: cache},
        )
        cache = getattr(result, name)
        tokens = rows.choose(result.logits[:, -1])
        keep = rows.extend(tokens)
        if not keep:
            return
        positions = positions[:, -1:] + 1
        if len(keep) < len(tokens):
            kept = torch.tensor(keep, device=ids.device)
            cache.batch_select_indices(kept)
            mask, positions = mask[kept], positions[kept]
        ids = torch.tensor([[tokens[place]] for place in keep], device=ids.device)
        mask = torch.cat([mask, mask.new_ones(len(keep), 1)], dim=1)


def cache_name(model: Any) -> str:
    """Returns what a model calls the keys and values that it takes and gives: `cache` from transformers 5.24 on."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def left_padded(prompts: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ids and attention mask, each [rows, longest]; what stands under a mask of 0 is never read."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
