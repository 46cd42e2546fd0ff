"""On a CUDA device: the flash path is the SDPA path within bf16's error, and a run trains and resumes."""

import pytest
import torch

from sweeps.config.blocks import TrialSettings
from sweeps.config.trial import ModelSource, TrialSpec
from tests.support.models.tiny_sft import Notes, network, tier, trial, write_base
from trainers.data.batching.layout import Layout
from trainers.data.batching.packing import collate
from trainers.data.chat.rows import Rows
from trainers.loop import train
from trainers.model.attention import PACKED, attend_in_buckets, choose_kernel, register
from trainers.step import Learner
from trainers.throughput import ThroughputMeter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # flash-attn 4 and torch's debug mode warn of things of their own
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LENGTHS = [700, 650, 300, 64, 5]


@pytest.mark.parametrize("kv_heads", [16, 8])
def test_the_chosen_kernel_agrees_with_sdpa_in_values_and_gradients(kv_heads):
    device = torch.device("cuda")
    choice, layout = choose_kernel(device, torch.bfloat16), Layout.of(LENGTHS).to(device)
    draw = torch.Generator(device).manual_seed(0)
    inputs = [torch.randn(sum(LENGTHS), h, 128, device=device, generator=draw) for h in (16, kv_heads, kv_heads)]

    def through(kernel, dtype):
        q, k, v = (x.detach().to(dtype, copy=True).requires_grad_() for x in inputs)
        out = kernel(q, k, v, layout, 128**-0.5, None)
        out.float().square().sum().backward()
        return [out, q.grad, k.grad, v.grad]

    truth = through(attend_in_buckets, torch.float32)
    flash, sdpa = (through(kernel, torch.bfloat16) for kernel in (choice.kernel, attend_in_buckets))
    for right, a, b in zip(truth, flash, sdpa, strict=True):
        off_flash, off_sdpa = ((x.float() - right).norm() / right.norm() for x in (a, b))
        assert off_flash < 2 * off_sdpa + 1e-3


def on_gpu(spec: TrialSpec) -> TrialSpec:
    from dataclasses import replace

    return replace(spec, model=ModelSource(spec.model.path, gpus_per_worker=1))


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 1e-2}, {"learning_rate": 1e-2, "lora_rank": 8}], ids=["all weights", "adapters"]
)
def test_a_run_trains_saves_and_resumes_on_the_device(tmp_path, settings):
    base = tmp_path / "base"
    network(hidden_size=64, head_dim=64).save_pretrained(write_base(base))
    whole, resumed = Notes(), Notes()
    spec = on_gpu(trial(base, (5, 60), precision="bf16", **settings))
    train(spec, whole, folder=tmp_path / "whole", data=tier())
    train(spec, resumed, folder=tmp_path / "resumed", resume=whole.checkpoints[0], data=tier())
    losses = [m["train/loss"] for m in whole.reports.values()]
    assert losses[-1] < 0.9 * losses[0]
    assert resumed.reports[60]["train/loss"] == pytest.approx(whole.reports[60]["train/loss"], rel=0.02)
    assert whole.costs[-1]["gpu_s"] > 0


def test_an_update_never_waits_for_the_device():
    """CUDA itself says so; on the CPU `tests/unit/trainers/test_loop.py` counts what would."""
    register()
    device = torch.device("cuda")
    config = TrialSettings.from_config({"model": "m", "data": "d", "steps": 9, "batch_tokens": 4096})
    learner = Learner(config, network(PACKED, hidden_size=64, head_dim=64), device, world=1)
    table = Rows.of([(list(range(1, 60)), [True] * 59), (list(range(3, 30)), [True] * 27)])
    pack, meter = collate(table, [0, 1]), ThroughputMeter(device, world=1)
    learner.update(1, [pack], 84, meter)  # makes the optimizer's state, loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.update(2, [pack, pack], 168, meter)
    finally:
        torch.cuda.set_sync_debug_mode("default")
