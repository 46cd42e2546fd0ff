"""Packed attention is the attention of each row alone."""

import importlib
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from sweeps.errors import InputError
from trainers.data.batching.layout import Layout
from trainers.model.attention import Choice, attend, attend_in_buckets, choose_kernel, varlen_kernel

LAYOUTS = {
    "one row": [37],
    "equal rows": [12, 12, 12],
    "short rows of any length": [40, 33, 9, 2, 1],
    "long rows of like length": [200, 190, 185],
    "long and short": [300, 150, 140, 20, 5],
    "out of order": [5, 300, 1, 150],
}


def vectors(total, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(total, heads, 16, generator=draw) for heads in (4, 2, 2))
    return [x.to(dtype).requires_grad_() for x in (q, k, v)]


def row_by_row(q, k, v, lengths, scale):
    """The definition: each row alone, with a mask, in plain operations."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    out = []
    for q_r, k_r, v_r in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q_r, k_r) * scale
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v_r))
    return torch.cat(out)


@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_buckets_give_the_values_and_gradients_of_each_row_alone(lengths):
    ours, reference = vectors(sum(lengths)), vectors(sum(lengths))
    got = attend_in_buckets(*ours, Layout.of(lengths), 0.3, None)
    want = row_by_row(*reference, lengths, 0.3)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_sixteen_bits_come_back_as_sixteen_bits_close_to_the_truth():
    lengths = [40, 33, 9]
    got = attend_in_buckets(*vectors(82, torch.bfloat16), Layout.of(lengths), 0.25, None)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), row_by_row(*vectors(82), lengths, 0.25), rtol=0.02, atol=0.02)


def test_rows_of_like_length_share_a_call_and_long_unlike_ones_do_not():
    assert len(Layout.of([40, 33, 9, 2]).buckets) == 1
    assert len(Layout.of([1000, 950, 300]).buckets) == 2
    assert Layout.of([12, 12, 12]).buckets[0].gather is None


def through(q, k, v, lengths, mask=None, **options):
    choice = Choice("test", "test", attend_in_buckets)
    batched = (x.transpose(0, 1)[None] for x in (q, k, v))
    return attend(torch.nn.Identity(), *batched, mask, layout=Layout.of(lengths), choice=choice, **options)[0]


def test_the_registered_function_speaks_the_shapes_of_transformers():
    q, k, v = vectors(9)
    out = through(q, k, v, [5, 4], scaling=0.5)
    assert out.shape == (1, 9, 4, 16)
    torch.testing.assert_close(out[0], row_by_row(q, k, v, [5, 4], 0.5), rtol=1e-5, atol=1e-5)


def test_a_mask_is_an_error_and_not_a_slow_path():
    with pytest.raises(InputError, match="no attention_mask"):
        through(*vectors(9), [5, 4], mask=torch.ones(1, 9))


@pytest.mark.parametrize("option", [{"dropout": 0.1}, {"softcap": 30.0}])
def test_what_no_kernel_does_exactly_is_refused(option):
    with pytest.raises(InputError, match="no dropout and no soft cap"):
        through(*vectors(9), [5, 4], **option)


def test_rows_beyond_the_models_window_are_refused_where_the_kernel_knows_no_window():
    through(*vectors(9), [5, 4], sliding_window=5)
    with pytest.raises(InputError, match="max_length"):
        through(*vectors(9), [5, 4], sliding_window=4)


# Stand-ins for torch's varlen_attn, in the spellings of its versions; each computes the definition.
def varlen_of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert is_causal
    assert max_q == max_k == int(cu_seq_q.diff().max())
    return row_by_row(query, key, value, cu_seq_q.diff().tolist(), query.shape[-1] ** -0.5)


def varlen_of_torch_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    assert window_size == (-1, 0)
    assert query.shape == key.shape
    return row_by_row(query, key, value, cu_seq_q.diff().tolist(), scale)


def varlen_of_torch_2_13(query, key, value, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):  # fmt: skip # noqa: E501
    assert window_size == (-1, 0)
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return row_by_row(query, key, value, cu_q.diff().tolist(), scale)


@pytest.mark.parametrize("function", [varlen_of_torch_2_10, varlen_of_torch_2_11, varlen_of_torch_2_13])
def test_every_spelling_of_varlen_attn_is_called_rightly(function):
    q, k, v = vectors(9)
    got = varlen_kernel(function)(q, k, v, Layout.of([5, 4]), 0.3, None)
    torch.testing.assert_close(got, row_by_row(q, k, v, [5, 4], 0.3), rtol=1e-5, atol=1e-5)


def test_the_installed_varlen_attn_has_a_spelling_we_know():
    from inspect import signature

    from torch.nn.attention.varlen import varlen_attn

    assert {"window_size", "is_causal"} & set(signature(varlen_attn).parameters)


def flash_2(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):  # fmt: skip # noqa: E501
    assert causal
    assert window_size in ((-1, -1), (99, 0))
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert cu_seqlens_q.dtype == torch.int32
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
    return row_by_row(q, k, v, cu_seqlens_q.diff().tolist(), softmax_scale)


def flash_3(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None, seqused_k=None, softmax_scale=None, causal=False, qv=None, window_size=(-1, -1)):  # fmt: skip # noqa: E501
    return flash_2(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, 0.0, softmax_scale, causal, window_size), None  # fmt: skip # noqa: E501


def flash_4(q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, softmax_scale=None, causal=False, window_size=(None, None)):  # fmt: skip # noqa: E501
    assert window_size in ((None, None), (99, 0))
    return flash_2(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, 0.0, softmax_scale, causal), None


FAKES = {"flash_attn": flash_2, "flash_attn_interface": flash_3, "flash_attn.cute": flash_4}
"""Stand-ins with the arguments of flash-attn 2, 3 and 4; each computes the definition."""


def install(monkeypatch, *modules, generation=9):
    """Makes modules importable, and those left out not, on a device of a compute capability."""
    for name, function in FAKES.items():
        module = types.ModuleType(name)
        if name in modules:
            module.flash_attn_varlen_func, module.__file__ = function, f"{name}/__init__.py"
        present = name in modules or any(other.startswith(f"{name}.") for other in modules)
        monkeypatch.setitem(sys.modules, name, module if present else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (generation, 0))


def chosen():
    return choose_kernel(torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize(
    ("modules", "generation", "name"),
    [
        (["flash_attn"], 8, "flash-attn-2"),
        (["flash_attn_interface", "flash_attn", "flash_attn.cute"], 8, "flash-attn-2"),
        (["flash_attn_interface", "flash_attn", "flash_attn.cute"], 9, "flash-attn-3"),
        (["flash_attn", "flash_attn.cute"], 9, "flash-attn-4"),
        (["flash_attn_interface", "flash_attn", "flash_attn.cute"], 10, "flash-attn-4"),
        (["flash_attn.cute"], 10, "flash-attn-4"),
        (["flash_attn_interface"], 10, "torch-varlen"),
        (["flash_attn.cute"], 8, "torch-varlen"),
        ([], 9, "torch-varlen"),
    ],
)
def test_the_fastest_installed_package_that_knows_the_device_is_chosen(monkeypatch, modules, generation, name):
    install(monkeypatch, *modules, generation=generation)
    assert chosen().name == name
    assert "torch" in chosen().reason or modules[0].partition(".")[0] in chosen().reason


@pytest.mark.parametrize("module", FAKES)
@pytest.mark.parametrize("window", [None, 100])
def test_every_package_is_called_rightly(monkeypatch, module, window):
    install(monkeypatch, module)
    q, k, v = vectors(9)
    got = chosen().kernel(q, k, v, Layout.of([5, 4]), 0.3, window)
    torch.testing.assert_close(got, row_by_row(q, k, v, [5, 4], 0.3), rtol=1e-5, atol=1e-5)


BROKEN = [
    ImportError("undefined symbol"),
    OSError("libcudart.so.12: cannot open shared object file"),
    AttributeError(
        "module 'cutlass' has no attribute 'CUDA_VERSION'"
    ),  # flash-attn 2.8.3's early `cute` with cutlass 4.8
    ModuleNotFoundError("No module named 'cutlass'", name="cutlass"),
    RuntimeError("Triton is not there"),
]


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("module", "generation"), [("flash_attn", 8), ("flash_attn.cute", 10), ("flash_attn_interface", 9)]
)
def test_a_package_that_cannot_be_imported_is_passed_over_with_its_reason(
    monkeypatch, caplog, module, generation, error
):
    install(monkeypatch, module, generation=generation)
    real = importlib.import_module

    def broken(name, *rest):
        if name == module:
            raise error
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert chosen().name == "torch-varlen"
    assert f"{module} cannot be used: " in chosen().reason
    assert str(error) in chosen().reason
    assert f"{module} is installed but cannot be used" in caplog.text


def test_an_early_flash_attn_4_without_longest_rows_is_passed_over_for_the_package_that_has_it(monkeypatch):
    install(monkeypatch, "flash_attn", "flash_attn.cute", generation=10)

    def early(
        q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, softmax_scale=None, causal=False, window_size=(None, None)
    ):
        raise AssertionError("called without what it needs")

    sys.modules["flash_attn.cute"].flash_attn_varlen_func = early
    assert chosen().name == "flash-attn-2"
    assert (
        "flash_attn.cute cannot be used: its flash_attn_varlen_func takes no max_seqlen_k, max_seqlen_q"
        in chosen().reason
    )


def test_a_package_without_the_function_is_passed_over(monkeypatch):
    install(monkeypatch, "flash_attn", generation=8)
    del sys.modules["flash_attn"].flash_attn_varlen_func
    assert chosen().name == "torch-varlen"
    assert "flash_attn cannot be used: AttributeError" in chosen().reason


def test_the_folder_that_flash_attn_4_alone_leaves_is_no_broken_flash_attn_2(monkeypatch, caplog):
    install(monkeypatch, "flash_attn.cute", generation=9)
    del sys.modules["flash_attn.cute"].flash_attn_varlen_func
    assert chosen().name == "torch-varlen"
    assert "flash_attn.cute cannot be used" in chosen().reason
    assert "flash_attn cannot be used" not in chosen().reason + caplog.text


def test_what_is_not_installed_is_no_fault(monkeypatch, caplog):
    install(monkeypatch)
    assert "cannot be used" not in chosen().reason + caplog.text


def test_cuda_without_any_kernel_is_an_error_and_not_a_slow_path(monkeypatch):
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    with pytest.raises(InputError, match=r"use torch 2\.11 or newer, or pip install"):
        chosen()


def test_the_choice_comes_with_its_reason():
    choice = choose_kernel(torch.device("cpu"), torch.bfloat16)
    assert choice.kernel is attend_in_buckets
    assert choice.reason == "cpu: causal SDPA over rows of like length, no mask"
    assert "16-bit only" in choose_kernel(torch.device("cuda"), torch.float32).reason


def test_padding_is_never_read():
    """The batched block repeats tokens as padding; if a query saw them, a row of one token would not be its value."""
    q, k, v = vectors(6)
    got = attend_in_buckets(q, k, v, Layout.of([5, 1]), 1.0, None)
    torch.testing.assert_close(got[5], v[5].repeat_interleave(2, 0))
    assert F.mse_loss(got[0], v[0].repeat_interleave(2, 0)) < 1e-12
