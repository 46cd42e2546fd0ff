"""Cross-entropy for large vocabularies: no [N, vocab] tensor is kept, gradients are made on the way forward.

torch 2.13 has `F.linear_cross_entropy` for this. With 16-bit inputs it also sums the loss in 16 bits: 1,176 came out
where 1,189 was right. Here products are 16-bit, every sum over chunks is fp32, and older versions of torch do too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainers.model.estimates.memory import CHUNK_ROWS


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, compute: torch.dtype, label_weights: Tensor | None = None
) -> Tensor:
    """Returns the summed cross-entropy of `hidden @ weight.T` against targets, fp32 [].

    Args:
        hidden: [N, H]. weight: [V, H]. targets: int64 [N].
        compute: type of the matrix products.
        label_weights: float32 [N], what each target counts; None: all the same, 1.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, compute, label_weights)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compute: torch.dtype, label_weights: Tensor | None
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            rows = CHUNK_ROWS.get(hidden.device.type, 512)
            loss = torch.zeros((), device=hidden.device)
            hidden_grad = torch.zeros_like(hidden)
            frozen = not ctx.needs_input_grad[1]
            weight_grad = torch.zeros((0,) if frozen else weight.shape, device=weight.device)
            weight_c = weight.to(compute)
            for start in range(0, len(targets), rows):
                chunk = slice(start, start + rows)
                hidden_c = hidden[chunk].to(compute)
                counts = None if label_weights is None else label_weights[chunk]
                share, logits_grad = _cross_entropy(hidden_c @ weight_c.T, targets[chunk], counts)
                loss += share
                hidden_grad[chunk] = logits_grad @ weight_c
                if frozen:
                    continue
                if compute == torch.float32:
                    weight_grad.addmm_(logits_grad.T, hidden_c)
                else:
                    weight_grad += logits_grad.T @ hidden_c
        ctx.save_for_backward(hidden_grad, weight_grad.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        (upstream,) = outputs
        to_weight = weight_grad * upstream.to(weight_grad.dtype) if ctx.needs_input_grad[1] else None
        return hidden_grad * upstream.to(hidden_grad.dtype), to_weight, None, None, None


def _cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the fp32 sum of [n, V] logits' losses, and its gradient in the logits' type."""
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    picked = targets[:, None]
    losses = -log_probs.gather(1, picked)
    loss = losses.sum() if counts is None else losses[:, 0] @ counts
    gradient = log_probs.exp_()
    gradient.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=torch.float32))
    if counts is not None:
        gradient *= counts[:, None]
    return loss, gradient.to(logits.dtype)
