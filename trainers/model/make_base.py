"""Makes a tiny base model from nothing: a Qwen3 of 0.03M to 0.4M parameters that knows the tasks of the tiny study.

    python -m trainers.model.make_base --size s --out DIR       about 5 CPU-minutes on one thread; size r takes 15

The base answers nearly always at once, without a thought, because only a quarter of what can be reasoned is shown with
its trace; reasoning SFT later brings the trace out. The SFT task itself is not in the mix (`Task.weight` 0).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from trainers.data.tiny_study.tasks import TASKS, Item, generate
from trainers.data.tiny_study.vocabulary import build_tokenizer, reply
from trainers.model.recurrent.recurrence import drawn_recurrences, set_recurrences
from trainers.model.recurrent.recurrent_qwen3 import RecurrentQwen3Config, RecurrentQwen3ForCausalLM

USUAL_RECURRENCES: Final = 4
"""Recurrences of a base of recurrent depth unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shape and training of one base. `reasoned` is the share of rows shown with their trace, where a task has one."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    steps: int
    lr: float = 4e-3
    batch: int = 64
    warmup: int = 50
    reasoned: float = 0.25
    seed: int = 0
    recurrences: tuple[int, int] | None = None
    """Fewest and most runs of the layers between the first and the last; each step draws one. None: a plain decoder."""


RECIPES: Final = {
    "xs": Recipe(hidden=32, layers=2, heads=2, kv_heads=1, feed_forward=96, steps=6000),  # 0.03M
    "s": Recipe(hidden=64, layers=2, heads=2, kv_heads=1, feed_forward=192, steps=5000),  # 0.1M
    "m": Recipe(hidden=96, layers=3, heads=3, kv_heads=3, feed_forward=288, steps=4000),  # 0.4M
    "r": Recipe(hidden=64, layers=3, heads=2, kv_heads=1, feed_forward=192, steps=5000, recurrences=(1, 8)),  # 0.16M
}
Example = tuple[list[int], list[int]]
"""Token ids of the prompt and of the reply."""


def build_model(recipe: Recipe, tokenizer: Any) -> Any:
    """Returns an untrained Qwen3 with tied embeddings, of recurrent depth where the recipe says so."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    kind, config, more = Qwen3ForCausalLM, Qwen3Config, {}
    if recipe.recurrences is not None:
        kind, config = RecurrentQwen3ForCausalLM, RecurrentQwen3Config
        more = {"num_recurrences": USUAL_RECURRENCES, "train_recurrences": list(recipe.recurrences)}
    return kind(
        config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.hidden // recipe.heads,
            intermediate_size=recipe.feed_forward,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **more,
        )
    )


def encode(tokenizer: Any, items: list[Item], *, reasoned: bool) -> dict[Item, Example]:
    """Tokenizes each distinct item once, through the chat template."""
    distinct = list(dict.fromkeys(items))
    prompts = [[{"role": "user", "content": item.prompt}] for item in distinct]
    asked = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(
        [
            [*prompt, {"role": "assistant", "content": reply(item.trace if reasoned else None, item.target)}]
            for prompt, item in zip(prompts, distinct, strict=True)
        ],
        tokenize=False,
    )
    ids = tokenizer([*asked, *whole], add_special_tokens=False)["input_ids"]
    pairs = zip(distinct, ids[: len(distinct)], ids[len(distinct) :], strict=True)
    return {item: (prompt, full[len(prompt) :]) for item, prompt, full in pairs}


def sampler(tokenizer: Any, pools: dict[str, list[Item]], recipe: Recipe) -> Callable[[], list[Example]]:
    """Returns a function that draws one batch of the base mix; the same batches for the same seed."""
    everything = [item for pool in pools.values() for item in pool]
    direct = encode(tokenizer, everything, reasoned=False)
    reasoned = encode(tokenizer, [item for item in everything if item.trace], reasoned=True)
    draw = random.Random(recipe.seed)
    names, weights = list(pools), [TASKS[name].weight for name in pools]

    def batch() -> list[Example]:
        rows = []
        for name in draw.choices(names, weights, k=recipe.batch):
            item = draw.choice(pools[name])
            with_trace = item.trace is not None and draw.random() < recipe.reasoned
            rows.append(reasoned[item] if with_trace else direct[item])
        return rows

    return batch


def collate(rows: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns ids, attention mask and labels (-100 outside replies), each [rows, longest], padded on the right."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        mask[i, :end] = 1
        labels[i, len(prompt) : end] = torch.tensor(answer)
    return ids, mask, labels


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / recipe.warmup)
    return recipe.lr * warm * (0.55 + 0.45 * math.cos(math.pi * step / recipe.steps))


def train(model: Any, batch: Callable[[], list[Example]], recipe: Recipe, pad: int) -> float:
    """Trains in place; returns the mean loss of the last hundred steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        ids, mask, labels = collate(batch(), pad)
        if recipe.recurrences is not None:
            set_recurrences(model, drawn_recurrences(model.config.to_dict(), recipe.seed, step))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 250 == 0:
            recent = sum(losses[-250:]) / 250
            print(
                f"step {step + 1:5d} of {recipe.steps}  loss {recent:.4f}  {time.process_time():.0f} CPU-s", flush=True
            )
    return sum(losses[-100:]) / len(losses[-100:])


def make(recipe: Recipe, out: Path) -> None:
    """Builds tokenizer and model, trains, and writes a plain Hugging Face folder."""
    torch.manual_seed(recipe.seed)
    pools = {name: generate(name, "base") for name, task in TASKS.items() if task.weight}
    texts = [text for pool in pools.values() for i in pool for text in (i.prompt, i.trace or "", i.target)]
    tokenizer = build_tokenizer(texts)
    model = build_model(recipe, tokenizer)
    loss = train(model, sampler(tokenizer, pools, recipe), recipe, tokenizer.pad_token_id)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    facts = {
        "made_by": "python -m trainers.model.make_base",
        "recipe": asdict(recipe),
        "parameters": model.num_parameters(),
        "last_loss": round(loss, 4),
        "cpu_seconds": round(time.process_time()),
        "torch": torch.__version__,
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a tiny base model.")
    parser.add_argument("--size", choices=sorted(RECIPES), default="s")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    make(RECIPES[options.size], options.out)


if __name__ == "__main__":
    main()
