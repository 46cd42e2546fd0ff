"""bfloat16 on CPUs without instructions for it: the products are those of float32, rounded, and nothing else changes."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sweeps.config.blocks import TrialSettings
from tests.support.models.tiny_sft import network
from trainers.data.batching.packing import collate
from trainers.data.chat.rows import Rows
from trainers.model import cpu_bfloat16
from trainers.model.attention import PACKED, register
from trainers.model.cpu_bfloat16 import ProductsInFloat32
from trainers.step import Learner
from trainers.throughput import ThroughputMeter


def rounded(*tensors):
    return [t.detach().float().bfloat16() for t in tensors]


def test_products_of_bfloat16_are_those_of_float32_rounded():
    torch.manual_seed(0)
    a, b, c = (torch.randn(64, 64).bfloat16() for _ in range(3))
    with ProductsInFloat32():
        found = [a @ b, torch.addmm(c, a, b), torch.bmm(a[None], b[None]), torch.baddbmm(c[None], a[None], b[None])]
    wide = a.float() @ b.float()
    expected = rounded(wide, c.float() + wide, wide[None], c.float()[None] + wide[None])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=2**-7, atol=2**-6)


class Seen(TorchDispatchMode):
    """Keeps the types in which grouped products are computed."""

    def __init__(self):
        super().__init__()
        self.types = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._grouped_mm.default:
            self.types.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_the_experts_of_a_mixture_are_multiplied_in_float32_too():
    """In bf16 where their weights are frozen beside adapters: forward, and backward to what goes into them."""
    torch.manual_seed(0)
    x, experts = torch.randn(64, 32).bfloat16(), torch.randn(4, 32, 16).bfloat16()
    ends = torch.tensor([16, 16, 40, 64], dtype=torch.int32)
    into = x.clone().requires_grad_()
    with Seen() as seen, ProductsInFloat32():
        found = F.grouped_mm(into, experts, offs=ends)
        found.float().square().sum().backward()
    assert seen.types == [torch.float32] * 2
    assert torch.equal(found, F.grouped_mm(x.float(), experts.float(), offs=ends).bfloat16())
    assert into.grad.dtype == torch.bfloat16


def test_forward_and_backward_under_autocast_are_what_autocast_computes():
    """An attention layer: the same types, gradients within the rounding of bfloat16 of those that torch computes itself."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 24, 64), torch.randn(192, 64) / 8

    def gradients(mode):
        one, other = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with mode:
            with torch.autocast("cpu", torch.bfloat16):
                q, k, v = F.linear(one, other).view(2, 24, 3, 4, 16).permute(2, 0, 3, 1, 4)
                out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            assert out.dtype == torch.bfloat16
            out.float().square().sum().backward()
        return out.detach().float(), one.grad, other.grad

    for mine, torchs in zip(gradients(ProductsInFloat32()), gradients(torch.enable_grad()), strict=True):
        assert mine.dtype == torchs.dtype
        torch.testing.assert_close(mine, torchs, rtol=0.03, atol=0.03 * float(torchs.abs().max()))


def test_products_of_other_types_are_left_alone():
    a = torch.randn(8, 8)
    with ProductsInFloat32():
        assert torch.equal(a @ a, a @ a)
        assert (a.double() @ a.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("precision", "has", "used"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_training_widens_products_only_in_bf16_on_a_cpu_without_the_instructions(precision, has, used, monkeypatch):
    monkeypatch.setattr(cpu_bfloat16, "has_instructions", lambda: has)
    entered = []
    monkeypatch.setattr(cpu_bfloat16, "ProductsInFloat32", lambda: entered.append(ProductsInFloat32()) or entered[-1])
    config = TrialSettings.from_config({"model": "m", "data": "d", "steps": 1, "precision": precision})
    table = Rows.of([([1, 2, 3, 4, 5], [True] * 5)])
    register()
    device = torch.device("cpu")
    learner = Learner(config, network(PACKED), device, world=1)
    loss, _ = learner.update(1, [collate(table, [0])], sum(table.labels()), ThroughputMeter(device, 1))
    assert 3 < float(loss) < 6  # the logarithm of the vocabulary of 64 is 4.2
    assert bool(entered) == used
