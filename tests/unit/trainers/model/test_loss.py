"""A pack's loss and gradients are those of its rows, each alone."""

import pytest
import torch
import torch.nn.functional as F

from tests.support.models.tiny_sft import network
from trainers.data.batching.packing import collate
from trainers.data.chat.rows import Rows
from trainers.model import linear_cross_entropy as head
from trainers.model import loss as loss_module
from trainers.model.attention import PACKED, choose_kernel, register
from trainers.model.loss import Objective
from trainers.step import recompute_activations

LENGTHS = [23, 60, 9, 2, 150, 31]


def rows(vocab=64, changed=None):
    draw = torch.Generator().manual_seed(3)
    table = []
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(0, vocab, (length,), generator=draw)
        if number == changed:
            ids = (ids + 1) % vocab
        table.append((ids.tolist(), [i >= length * 0.3 for i in range(length)]))
    return Rows.of(table)


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def one_row_at_a_time(table, **shape):
    """The reference: transformers' own eager attention, one row a forward pass, logits for every token."""
    model, total = network("eager", **shape), 0.0
    for i in range(len(table)):
        ids = torch.tensor(table.ids(i).tolist())
        labels = torch.where(torch.tensor(table.learn(i)), ids, -100)[1:]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        loss = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        loss.backward()
        total += float(loss.detach())
    return total, gradient(model)


def packed(table, bf16=False, **shape):
    register()
    model = network(PACKED, **shape)
    objective = Objective(model, choose_kernel(torch.device("cpu"), torch.float32))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = objective(collate(table, range(len(table))))
    loss.backward()
    return float(loss.detach()), gradient(model)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_packed_gradients_are_those_of_one_row_at_a_time():
    want_loss, want = one_row_at_a_time(rows())
    got_loss, got = packed(rows())
    assert got_loss == pytest.approx(want_loss, rel=1e-6)
    assert relative(got, want) < 1e-5


def test_the_chunked_head_gives_the_same_gradients(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNKED_FROM", 1)
    monkeypatch.setitem(head.CHUNK_ROWS, "cpu", 50)
    calls = []
    whole = loss_module.linear_cross_entropy
    monkeypatch.setattr(loss_module, "linear_cross_entropy", lambda *a: calls.append(1) or whole(*a))
    want_loss, want = one_row_at_a_time(rows(500), vocab=500)
    got_loss, got = packed(rows(500), vocab=500)
    assert calls == [1]
    assert got_loss == pytest.approx(want_loss, rel=1e-6)
    assert relative(got, want) < 1e-5


@pytest.mark.parametrize("chunked_from", [2**27, 1])
def test_bf16_compute_stays_within_its_precision(monkeypatch, chunked_from):
    monkeypatch.setattr(loss_module, "CHUNKED_FROM", chunked_from)
    want_loss, want = one_row_at_a_time(rows(500), vocab=500)
    got_loss, got = packed(rows(500), bf16=True, vocab=500)
    assert got_loss == pytest.approx(want_loss, rel=1e-3)
    assert 1e-6 < relative(got, want) < 3e-2  # the lower bound: it did compute in bf16


def test_no_logit_of_a_row_moves_when_another_row_changes():
    register()
    model, choice = network(PACKED), choose_kernel(torch.device("cpu"), torch.float32)

    def logits(changed):
        pack = collate(rows(changed=changed), range(len(LENGTHS)))
        out = model(pack.input_ids, position_ids=pack.position_ids, use_cache=False, layout=pack.layout, choice=choice)
        return dict(zip(sorted(LENGTHS, reverse=True), out.logits[0].split(pack.layout.lengths), strict=True))

    before, after = logits(None), logits(1)
    assert not torch.equal(before[LENGTHS[1]], after[LENGTHS[1]])
    for number, length in enumerate(LENGTHS):
        if number != 1:
            assert torch.equal(before[length], after[length])


def test_this_test_would_see_rows_that_leak_into_each_other():
    """The mistake to be caught: one long causal row instead of six; the loss hides it, the gradient does not."""
    register()
    model = network(PACKED)
    pack = collate(rows(), range(len(LENGTHS)))
    leaking = collate(Rows.of([(pack.input_ids[0].tolist(), [True] * sum(LENGTHS))]), [0])
    objective = Objective(model, choose_kernel(torch.device("cpu"), torch.float32))
    object.__setattr__(leaking, "predicting", pack.predicting)
    object.__setattr__(leaking, "targets", pack.targets)
    loss = objective(leaking)
    loss.backward()
    want_loss, want = one_row_at_a_time(rows())
    assert float(loss.detach()) == pytest.approx(want_loss, rel=0.01)
    assert relative(gradient(model), want) > 0.05


def test_an_empty_pack_has_no_loss_and_zero_gradients_for_every_weight():
    register()
    model = network(PACKED)
    Objective(model, choose_kernel(torch.device("cpu"), torch.float32))(collate(rows(), [])).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_activation_checkpointing_changes_nothing():
    want = packed(rows())
    register()
    model = network(PACKED)
    recompute_activations(model)
    loss = Objective(model, choose_kernel(torch.device("cpu"), torch.float32))(collate(rows(), range(len(LENGTHS))))
    loss.backward()
    assert float(loss.detach()) == want[0]
    assert torch.equal(gradient(model), want[1])
