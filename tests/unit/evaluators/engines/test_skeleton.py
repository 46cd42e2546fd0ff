"""An evaluator that keeps its network answers as one that loads each checkpoint anew."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.engines import skeleton
from evaluators.engines.huggingface import load
from evaluators.engines.skeleton import load_again
from evaluators.evaluate import answer
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from trainers.model.files.builtin import builtin_folder

SUITE = load_suite(EvalSpec("mini", 2))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(skeleton, "_kept", None)


@pytest.fixture
def checkpoint(tmp_path):
    """Makes checkpoints of the tiny model, each with noise of another seed in its weights."""

    def make(seed: int):
        folder = tmp_path / f"step-{seed}"
        shutil.copytree(builtin_folder("tiny-xs"), folder)
        draw = torch.Generator().manual_seed(seed)
        weights = load_file(folder / "model.safetensors")
        noisy = {n: t + 0.02 * torch.randn(t.shape, generator=draw, dtype=t.dtype) for n, t in weights.items()}
        save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
        save_file({"adam/x/step": torch.full((), float(seed))}, folder / "trainer.safetensors")
        (folder / "manifest.json").write_text(str(seed))
        return folder

    return make


def same(a, b) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_the_same_network_takes_the_weights_of_each_checkpoint_and_gives_its_replies(checkpoint):
    first = load_again(checkpoint(1))
    for seed in (2, 3, 4):
        folder = checkpoint(seed)
        again = load_again(folder)
        assert again is first
        assert same(again, load(folder))
        assert answer(again, SUITE)[0] == answer(load(folder), SUITE)[0]


@pytest.mark.parametrize("change", ["config", "template", "shape"])
def test_whatever_differs_beside_the_weights_makes_a_new_one(checkpoint, change):
    first, folder = load_again(checkpoint(1)), checkpoint(2)
    if change == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    elif change == "template":
        (folder / "chat_template.jinja").write_text((folder / "chat_template.jinja").read_text() + " ")
    else:
        shutil.rmtree(folder)
        shutil.copytree(builtin_folder("tiny-s"), folder)
    again = load_again(folder)
    assert again is not first
    assert same(again, load(folder))


def test_a_network_that_has_changed_as_it_ran_is_not_used_again(checkpoint):
    first = load_again(checkpoint(1))
    next(first.model.buffers()).add_(1.0)
    assert load_again(checkpoint(2)) is not first


def test_weights_that_are_no_numbers_are_refused_and_the_next_checkpoint_is_loaded_anew(checkpoint):
    first, folder = load_again(checkpoint(1)), checkpoint(2)
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="no finite numbers"):
        load_again(folder)
    good = checkpoint(3)
    again = load_again(good)
    assert again is not first
    assert same(again, load(good))
