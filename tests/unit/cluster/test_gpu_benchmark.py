"""The GPU benchmark runs from its first line to its table, here on the CPU with a toy model."""

import json

import pytest
import torch
import torch.distributed as dist

from benchmarks.trainer import gpu


def test_the_rehearsal_measures_every_path_and_writes_the_table(tmp_path):
    try:
        gpu.main(["--rehearse", "--pack-tokens", "2048", "--out", str(tmp_path / "gpu.json")])
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    answer = json.loads((tmp_path / "gpu.json").read_text())
    assert answer["device"] == "cpu, a rehearsal"
    assert answer["kernels"]["relative_error"] < 0.02
    assert [run["path"] for run in answer["runs"]] == ["ours", "ours sharded", "dense mask"]
    for run in answer["runs"]:
        assert run["tokens_per_s"] > run["label_tokens_per_s"] > 0
        assert "error" not in run


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_without_a_device_and_without_rehearsing_it_says_so():
    with pytest.raises(SystemExit, match="sees no CUDA device"):
        gpu.main([])
