"""`compat: paper`: order, loss and warm-up of the paper's trainer, against a loop that does it as that one does."""

import pytest
import torch
import torch.nn.functional as F

from sweeps import Sweep
from sweeps.config.blocks import TrialSettings
from sweeps.config.compat import NEEDS
from sweeps.config.plan import Plan
from sweeps.errors import InputError, SpecError
from tests.support.models import tiny_sft
from tests.support.models.tiny_sft import Notes, network, same_to_the_bit, sums, tokenizer, weights, write_base
from tests.unit.trainers.model.test_loss import relative, rows
from trainers.data.batching.batches import BatchIterator
from trainers.data.batching.packing import collate
from trainers.data.batching.paper_order import in_file_order, label_weights, micro_batches
from trainers.data.types import TierData
from trainers.model.attention import PACKED, choose_kernel, register
from trainers.model.linear_cross_entropy import linear_cross_entropy
from trainers.model.loss import Objective
from trainers.schedule import lr_factor

PAPER = {"compat": "paper", "batch_rows": 32, "replay": 0.0, "long_rows": "cut-answer", "batch_tokens": 2048}
DATA = TierData(primary=sums(80))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("model") / "base")


def settings(**more):
    return TrialSettings.from_config({**tiny_sft.trial("unused", (4,)).config, **PAPER, **more})


def run(base, folder, **how):
    return tiny_sft.run(base, folder, how.pop("snapshots", (2, 5)), data=DATA, **{**PAPER, **how})


def test_rows_come_in_the_order_of_the_file_and_every_epoch_alike():
    steps = in_file_order(80, 32)
    assert [next(steps) for _ in range(3)] == [list(range(32)), list(range(32, 64)), list(range(32))]
    with pytest.raises(InputError, match="80 rows"):
        next(in_file_order(80, 96))


def test_a_micro_batch_has_four_rows_of_one_of_eight_gpus():
    groups = micro_batches(64)
    assert groups[:3] == [[0, 8, 16, 24], [32, 40, 48, 56], [1, 9, 17, 25]]
    assert sorted(i for group in groups for i in group) == list(range(64))


def paper_step(model, feed):
    """One step as the paper's trainer takes it: a GPU sums the gradients of its micro-batches' means, the GPUs average."""
    step, means = next(feed), []
    for gpu in range(8):
        own = step.rows[gpu::8]
        for at in range(0, len(own), 4):
            losses, count = 0.0, 0
            for row in own[at : at + 4]:
                ids = torch.tensor(feed.rows.ids(row).tolist())
                labels = torch.where(torch.tensor(feed.rows.learn(row)), ids, -100)[1:]
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
                losses = losses + F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
                count += int((labels != -100).sum())
            (losses / count / 8).backward()
            means.append(float(losses.detach()) / count)
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    return sum(means) / len(means), norm


def test_three_steps_are_those_of_a_loop_that_does_it_as_the_papers_trainer_does(base, tmp_path):
    found = run(base, tmp_path, snapshots=(3,), steps=12, logging_steps=1, warmup_steps=2)
    config, model = settings(steps=12, warmup_steps=2), network()
    feed = BatchIterator(config, tokenizer(), DATA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for step, rate in enumerate((0.0, 0.5, 1.0), 1):
        optimizer.param_groups[0]["lr"] = rate * 3e-3
        loss, norm = paper_step(model, feed)
        optimizer.step()
        optimizer.zero_grad()
        assert found.reports[step]["train/loss"] == pytest.approx(loss, rel=1e-4)
        assert found.reports[step]["train/grad_norm"] == pytest.approx(norm, rel=1e-3)
        assert found.reports[step]["train/lr"] == pytest.approx(rate * 3e-3)
    ours, theirs = weights(found), dict(model.named_parameters())
    assert max(float((ours[n] - theirs[n].detach()).abs().max()) for n in ours) < 2e-5


def looped(rate, dtype, steps):
    """Parameters after the paper's loop with weights and moments of one type."""
    config, model = settings(steps=12, warmup_steps=2), network().to(dtype)
    feed = BatchIterator(config, tokenizer(), DATA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = lr_factor(step, config) * rate
        paper_step(model, feed)
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach().float() for name, p in model.named_parameters()}


def test_in_bf16_it_follows_the_papers_loop_in_fp32_and_not_its_rounding_of_weights(base, tmp_path):
    """docs/compat-paper.md states these numbers: how far the change of the weights is from that of the loop in fp32."""
    rate, start = 5e-5, {name: p.detach() for name, p in network().named_parameters()}
    exact = looped(rate, torch.float32, 6)

    def off(found):
        change = torch.cat([(exact[n] - start[n]).flatten() for n in exact])
        return relative(torch.cat([(found[n].float() - start[n]).flatten() for n in exact]), change)

    how = {"snapshots": (6,), "steps": 12, "warmup_steps": 2, "learning_rate": rate}
    assert off(weights(run(base, tmp_path / "fp32", precision="fp32", **how))) < 0.001
    assert off(weights(run(base, tmp_path / "bf16", precision="bf16", **how))) < 0.03
    assert off(looped(rate, torch.bfloat16, 6)) > 0.3


def test_rates_are_those_of_the_step_before():
    config = settings(steps=640, warmup_steps=0.1)
    assert [lr_factor(step, config) for step in (1, 2, 64, 65)] == pytest.approx([0, 1 / 64, 63 / 64, 1])
    plain = settings(compat="none", steps=640, warmup_steps=0.1)
    assert [lr_factor(s, config) for s in (66, 300, 640)] == [lr_factor(s, plain) for s in (66, 300, 640)]


def test_neither_the_size_of_a_pass_nor_the_seed_changes_the_run_and_a_resumed_one_repeats_it(base, tmp_path):
    whole = run(base, tmp_path / "whole")
    small = run(base, tmp_path / "small", pack_tokens=128)
    ours, theirs = weights(whole), weights(small)
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in ours)
    assert same_to_the_bit(whole, run(base, tmp_path / "seed", seed=5))
    stopped = run(base, tmp_path / "a", notes=Notes(stop_after=3))
    assert same_to_the_bit(whole, run(base, tmp_path / "b", resume=stopped.checkpoints[-1]))


def test_the_head_in_chunks_weighs_labels_as_the_plain_one_does(monkeypatch):
    register()
    table, chosen = rows(), range(len(rows()))
    counts = dict(zip(chosen, label_weights([5 + i for i in range(32)]), strict=False))
    found = []
    for limit in (1, 2**27):
        monkeypatch.setattr("trainers.model.loss.CHUNKED_FROM", limit)
        model = network(PACKED)
        loss = Objective(model, choose_kernel(torch.device("cpu"), torch.float32))(collate(table, chosen, counts))
        loss.backward()
        found.append((float(loss.detach()), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert relative(found[0][1], found[1][1]) < 1e-5
    hidden, weight, targets = torch.randn(7, 4), torch.randn(9, 4), torch.arange(7)
    ones = linear_cross_entropy(hidden, weight, targets, torch.float32, torch.ones(7))
    assert ones == pytest.approx(linear_cross_entropy(hidden, weight, targets, torch.float32))


OTHER = {"batch_rows": 48, "replay": 0.1, "lr_scheduler_type": "wsd", "long_rows": "drop", "lora_rank": 4}


@pytest.mark.parametrize("name", [need.setting for need in NEEDS])
def test_what_does_not_go_with_it_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"{name}: got {OTHER[name]!r} under compat paper"):
        settings(**{name: OTHER[name]})
    trainer = {**PAPER, name: OTHER[name]}
    with pytest.raises(SpecError, match=f"trainer.{name}: got {OTHER[name]!r} under compat paper"):
        Sweep(name="p", trainer=trainer)
    axis = {name: {"grid": [PAPER.get(name, {"lora_rank": 0, "lr_scheduler_type": "cosine"}.get(name)), OTHER[name]]}}
    with pytest.raises(SpecError, match=f"space.{name}: got {OTHER[name]!r} under compat paper"):
        Sweep(name="p", trainer=PAPER, space=axis)
    only_plain = {**axis, "compat": {"grid": ["none", "paper"]}}
    only_plain[name] = {"grid": [OTHER[name]], "when": {"compat": "none"}}
    assert len(Plan(Sweep(name="p", trainer=PAPER, space=only_plain)).known_trials()) == 2


def test_repeats_would_all_be_the_same_run():
    with pytest.raises(SpecError, match=r"search\.repeats: got 2 under compat paper"):
        Sweep(name="p", trainer=PAPER, search={"repeats": 2})
    Sweep(name="p", trainer={**PAPER, "compat": "none"}, search={"repeats": 2})


def test_a_sweep_without_it_is_called_what_it_was():
    plain = Sweep(name="p", trainer={"steps": 7})
    assert plain.id == Sweep(name="p", trainer={"steps": 7, "compat": "none"}).id
    assert "compat" not in Plan(plain).known_trials()[0].config
    assert Plan(Sweep(name="p", trainer=PAPER)).known_trials()[0].config["compat"] == "paper"
