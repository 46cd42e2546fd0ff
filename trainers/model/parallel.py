"""One worker or many: sharding with FSDP2, whole tensors out of shards, sums over workers.

With one worker that is not sharded every function here is the identity, so the loop has one path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(objective: nn.Module, layers: Sequence[nn.Module], world: int, device: torch.device, bf16: bool) -> None:
    """Shards parameters, gradients and optimizer state over all workers, one unit per decoder layer.

    Gradients are summed over workers, never averaged: the loop has divided by the global number of labels already.
    On CUDA the policy casts to bf16 and reduces in fp32; on the CPU autocast does the casting, as with one worker.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (world,))
    on_cuda = bf16 and device.type == "cuda"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if on_cuda else MixedPrecisionPolicy()
    for module in (*layers, objective):
        fully_shard(module, mesh=mesh, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no other; its AVG has silently been a sum before


def whole(tensor: Tensor) -> Tensor:
    """Returns the full tensor behind a shard (every worker must ask at once), or the tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Returns a whole tensor laid out as a parameter is: sharded, or just on its device."""
    on_device = tensor.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(on_device, parameter.device_mesh, parameter.placements)
    return on_device


def summed(values: Tensor, world: int) -> Tensor:
    """Returns values summed over all workers, in place."""
    if world > 1:
        torch.distributed.all_reduce(values)
    return values
