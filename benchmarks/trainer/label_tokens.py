"""Are the learnt tokens of a row those that TRL would train on? One table, by family of chat templates.

    python -m venv --system-site-packages TRL && TRL/bin/pip install trl==1.16.0
    TRL/bin/python -m benchmarks.trainer.label_tokens

TRL renders with its own training templates where it has one for a model's template (`assistant_only_loss`), and compares a prompt
with prompt and completion where it has none (`completion_only_loss`). Both are asked here through `SFTTrainer` itself, on rows
of one reply and of two, with and without a system message and a thought.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.models.chat_formats import FORMATS, template
from tests.support.models.template_cells import SHAPES, tokenizer_for
from trainers.data.chat.tokenization import tokenise
from trainers.data.types import Conversation

FAMILIES = {
    "Qwen3": "qwen3.jinja", "Qwen2.5": "qwen2_5.jinja", "Llama 3": "llama3.jinja", "Gemma 3": "gemma3.jinja",
    "Phi-3": "phi3.jinja", "DeepSeek V3": "deepseekv3.jinja", "R1 distilled": "deepseek_r1_distill.jinja",
    "GLM 4 MoE": "glm4moe.jinja", "gpt-oss": "gptoss.jinja", "LFM2": "lfm2.jinja", "Cohere": "cohere.jinja",
    "Phi-4": "phi-4", "OLMo 2": "olmo-2", "SmolLM3": "smollm3",
}  # fmt: skip
"""A file of TRL's `chat_templates`, or one of our formats."""
SMOLLM3 = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""SmolLM3's turns, without the system message that it puts first."""


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"{'family':14} {'shape':16} {'TRL by':16} {'tokens':>7} {'learnt':>7} {'TRL':>5}  difference")
    for family, name in FAMILIES.items():
        for line in _compared(name):
            print(f"{family:14} {line}", flush=True)


def _compared(name: str) -> Iterator[str]:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    source = (
        (folder / name).read_text()
        if name.endswith(".jinja")
        else SMOLLM3
        if name == "smollm3"
        else template(FORMATS[name])
    )
    tokenizer = tokenizer_for(source, "byte-level")
    tokenizer.pad_token = tokenizer.eos_token
    for shape in ("single", "system", "turns", "thinking", "thinking-turns"):
        ours = tokenise(tokenizer, [SHAPES[shape]], 100_000)
        if ours.refused:
            yield f"{shape:16} {'':16} {'':>7} {'':>7} {'':>5}  refused here: {ours.refused[0].reason[:70]}"
            continue
        rows = [(ours.rows.ids(i).tolist(), ours.rows.learn(i).tolist()) for i in range(len(ours.rows))]
        try:
            way, ids, learnt = _of_trl(
                tokenizer, SHAPES[shape], has_training=(folder / name.replace(".", "_training.")).is_file()
            )
        except Exception as e:  # what TRL says of a template differs from version to version
            yield f"{shape:16} {'':16} {len(rows[0][0]):7} {sum(rows[0][1]):7} {'':>5}  TRL fails: {str(e)[:70]}"
            continue
        said = _difference(tokenizer, SHAPES[shape], rows, ids, learnt)
        tokens, mine = sum(len(ids) for ids, _ in rows), sum(sum(learn) for _, learn in rows)
        yield f"{shape:16} {way:16} {tokens:7} {mine:7} {sum(learnt):5}  {said or 'none'}"


def _of_trl(tokenizer: Any, conversation: Conversation, *, has_training: bool) -> tuple[str, list[int], list[bool]]:
    """Returns the way in which TRL masked a row, its tokens and which of them are labels."""
    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with torch.random.fork_rng():
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape))
    row = {"messages": conversation} if has_training else {"prompt": conversation[:-1], "completion": conversation[-1:]}
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(output_dir=out, assistant_only_loss=has_training, use_cpu=True, bf16=False, report_to="none",
                           max_length=None, dataset_num_proc=None)  # fmt: skip
        trainer = SFTTrainer(
            model=model, args=config, train_dataset=Dataset.from_list([row]), processing_class=tokenizer
        )
        batch = next(iter(trainer.get_train_dataloader()))
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return "assistant_only" if has_training else "completion_only", ids, [label != -100 for label in labels]


def _difference(
    tokenizer: Any,
    conversation: Conversation,
    rows: list[tuple[list[int], list[bool]]],
    ids: list[int],
    learnt: list[bool],
) -> str:
    """Says how rows differ from TRL's one row; empty where tokens and labels are the same."""
    if len(rows) == 1 and rows[0] == (ids, learnt):
        return ""
    ours = "".join(tokenizer.decode([t for t, flag in zip(*row, strict=True) if flag]) for row in rows)
    theirs = tokenizer.decode([t for t, flag in zip(ids, learnt, strict=True) if flag])
    said = [f"a row for each reply here ({len(rows)})"] if len(rows) > 1 else []
    replies = [m for m in conversation if m["role"] == "assistant"]
    lost = [m["reasoning_content"] for m in replies if m.get("reasoning_content", "") not in theirs]
    if lost:
        said.append(f"TRL learns no thought ({len(lost)} of {len(replies)})")
    if replies[0]["content"].strip() not in theirs:
        said.append("TRL learns the last reply alone")
    left, right = ours.replace("\n", ""), theirs.replace("\n", "")
    if not lost and left == right:
        said.append("the same labels" if ours == theirs else "TRL learns a line break beside the reply")
    elif not lost and replies[0]["content"].strip() in theirs:
        said.append(f"learnt here {ours[-60:]!r}, by TRL {theirs[-60:]!r}")
    return "; ".join(said)


if __name__ == "__main__":
    main()
