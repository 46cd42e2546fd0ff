"""Greedy generation for many prompts of one model: sorted by length, one KV cache, finished rows leave at once.

A plain `model.generate` on prompts as they come pays for padding on the left and for every row until the slowest one
ends; replies of a reasoning model differ tenfold in length, so most of that work is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

BATCH_ROWS: Final = 512
"""For models of 0.1M parameters a forward pass costs its Python overhead, so batches are large."""
BATCH_TOKENS: Final = 65_536
"""Bound of rows x (longest prompt + cap): what the KV cache of a batch may grow to."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Token ids of a reply, the end-of-turn token left out; `truncated` when the cap came before it."""

    ids: list[int]
    truncated: bool


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    caps: Sequence[int],
    *,
    stop: frozenset[int],
    batch_rows: int = BATCH_ROWS,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Reply]:
    """Returns one greedy reply per prompt, in the order of the prompts.

    Args:
        model: a Hugging Face causal language model in eval mode.
        prompts: token ids, each at least one.
        caps: new tokens each reply may have, at least one.
        stop: ids that end a reply.
    """
    import torch

    replies: list[Reply | None] = [None] * len(prompts)
    with torch.inference_mode():
        for batch in _batches(prompts, caps, batch_rows, batch_tokens):
            ids = _run(model, [prompts[i] for i in batch], [caps[i] for i in batch], stop)
            for i, reply in zip(batch, ids, strict=True):
                ended = reply[-1] in stop
                replies[i] = Reply(reply[:-1] if ended else reply, truncated=not ended)
    return [reply for reply in replies if reply is not None]


def _batches(
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


def _run(model: Any, prompts: Sequence[Sequence[int]], caps: Sequence[int], stop: frozenset[int]) -> list[list[int]]:
    """Decodes one batch; returned ids include the stop token where one came."""
    import torch

    ids, mask = left_padded(prompts, model.device)
    padded = not bool(mask.all())
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    live = list(range(len(prompts)))
    out: list[list[int]] = [[] for _ in prompts]
    cache = None
    while True:
        result = model(
            input_ids=ids,
            attention_mask=mask if padded else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = result.past_key_values
        chosen = result.logits[:, -1].argmax(-1)
        keep = []
        for place, (i, token) in enumerate(zip(live, chosen.tolist(), strict=True)):
            out[i].append(token)
            if token not in stop and len(out[i]) < caps[i]:
                keep.append(place)
        if not keep:
            return out
        positions = positions[:, -1:] + 1
        if len(keep) < len(live):
            chosen_rows = torch.tensor(keep, device=ids.device)
            cache.batch_select_indices(chosen_rows)
            chosen, mask, positions = chosen[chosen_rows], mask[chosen_rows], positions[chosen_rows]
            live = [live[place] for place in keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)


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
