"""A checkpoint as the start of reinforcement learning: model, prompts with answers, a reward, and a config for a framework.

    trl        grpo.yaml for `trl grpo --config`                    (TRL 1.16)
    verl       run.sh for `verl.trainer.main_ppo`, data in Parquet  (verl 0.9)
    open-rlhf  run.sh for `openrlhf.cli.train_ppo_ray`              (OpenRLHF 0.11: earlier releases name their options otherwise)

docs/ready-for-rl.md says how far each of them was tried.

All train GRPO: groups of eight replies a prompt, rewarded 1 where the final answer is that of the data, else 0
(`trainers.rl_reward`). Settings are where to start from, not tuned; the learning rate is a tenth of SFT's.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from sweeps.config.trial import TierSource
from sweeps.errors import InputError, nearest
from trainers import rl_reward
from trainers.data.chat.template import ChatTemplate, opens_thought
from trainers.data.sources.datasets import load
from trainers.data.types import TOOLS_ROLE, Conversation
from trainers.model.generation import context_of
from trainers.model.load import load_tokenizer
from trainers.rl_reward import answer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GROUP: Final = 8
PROMPTS: Final = 16
"""Prompts of one step, where there are as many."""
PROSE: Final = 8
"""Words above which an answer is taken for prose."""
STEPS: Final = 200
TAGS: Final = frozenset({"<think>", "</think>"})
FOR_HYDRA: Final = r"""here=$(printf %s "$PWD" | sed "s/'/\\\\'/g")"""
"""Shell that sets `here`, the folder of a script, as it stands between apostrophes in an option of Hydra."""
FOR_OPEN_RLHF: Final = """here=$PWD
case $here in
*[,@]*) echo "got folder $here; expected one without , and @, at which OpenRLHF cuts paths" >&2; exit 2 ;;
esac"""
"""The same for OpenRLHF, which takes a comma for the end of a path, and @ for the end of a data set's."""


@dataclass(frozen=True, slots=True)
class RlPrompt:
    """What RL asks, and the answer that is rewarded."""

    prompt: Conversation
    answer: str


@dataclass(frozen=True, slots=True)
class RlSettings:
    """What a config takes from the trial: the learning rate of SFT, the longest conversation, and the seed."""

    learning_rate: float
    max_length: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RlPrompts:
    """The questions of a tier, and what is to be known of them.

    Attributes:
        disputed: questions to which the tier has several answers; the first one counts.
        words: of the answers, at the median. Long ones are hardly ever met letter by letter.
    """

    prompts: Sequence[RlPrompt]
    disputed: int
    words: int

    @property
    def doubts(self) -> list[str]:
        """What makes the reward worth less, in sentences."""
        found = []
        if self.disputed:
            found.append(f"{self.disputed:,} questions have several answers in the data: the first one is rewarded")
        if self.words > PROSE:
            found.append(
                f"half of the answers have {self.words} words and more, and the reward compares letter by letter: "
                "change `right` in reward.py, or mark what counts by \\boxed{}"
            )
        return found


def rl_prompts(tier: str, source: TierSource, seed: int = 0) -> RlPrompts:
    """Returns the distinct questions of a tier whose last reply has an answer to compare with.

    Conversations with tools are left out: their environments are not in the data.

    Raises:
        InputError: no conversation is left, or the tier cannot be read.
    """
    found: dict[str, RlPrompt] = {}
    disputed: set[str] = set()
    for conversation in load(tier, source, seed=seed).primary:
        *before, last = conversation
        answer = answer_of(str(last.get("content") or ""))
        tools = any(m["role"] in (TOOLS_ROLE, "tool") or m.get("tool_calls") for m in conversation)
        if before and answer and last["role"] == "assistant" and not tools:
            prompt = [{"role": m["role"], "content": m["content"]} for m in before]
            key = json.dumps(prompt, sort_keys=True)
            if found.setdefault(key, RlPrompt(prompt, answer)).answer != answer:
                disputed.add(key)
    if not found:
        raise InputError(f"tier {tier!r} has no conversation without tools that ends with an answer of the assistant")
    words = statistics.median_low(len(p.answer.split()) for p in found.values())
    return RlPrompts(list(found.values()), len(disputed), words)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the longest prompt, and what a reply may have beside it in the model's context."""

    prompt: int
    reply: int


def fitting_prompts(model: Path, prompts: Sequence[RlPrompt], settings: RlSettings) -> list[RlPrompt]:
    """Returns the prompts behind which SFT's longest conversation had room for a reply: it trained on no others.

    Raises:
        InputError: there is none.
    """
    counts = _tokens(model, prompts)
    found = [prompt for prompt, count in zip(prompts, counts, strict=True) if count < settings.max_length]
    if not found:
        raise InputError(
            f"the shortest prompt has {min(counts)} tokens, and conversations of SFT had {settings.max_length} at most "
            "(trainer.max_length): no room for a reply"
        )
    return found


def _tokens(model: Path, prompts: Sequence[RlPrompt]) -> list[int]:
    tokenizer = load_tokenizer(model)
    template = ChatTemplate(tokenizer)
    texts = [template.render(p.prompt, prompt=True) for p in prompts]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def lengths(model: Path, prompts: Sequence[RlPrompt], settings: RlSettings) -> Lengths:
    """Returns how long prompts are under a model's chat template, and replies may be: at most SFT's longest conversation.

    vLLM, by which verl and OpenRLHF generate, does not start where both together are more than the model's context.

    Raises:
        InputError: the longest prompt leaves no room for a reply.
    """
    from transformers import AutoConfig

    longest = max(_tokens(model, prompts))
    context = context_of(AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False))
    if longest >= context:
        raise InputError(
            f"the longest prompt has {longest} tokens, and the model's context {context}: no room for a reply"
        )
    return Lengths(longest, min(settings.max_length, context - longest))


def write_rl(framework: str, folder: Path, prompts: Sequence[RlPrompt], settings: RlSettings) -> Path:
    """Writes what `framework` needs beside the model, which lies in `folder`/model; returns the file that starts it.

    Args:
        framework: one of FRAMEWORKS.

    Raises:
        InputError: the framework is unknown, the model has no chat template, or its context no room for a reply.
    """
    check_framework(framework)
    _keep_tags(folder / "model")
    _keep_prompt(folder / "model", prompts[0])
    (folder / "data").mkdir(parents=True)
    (folder / "reward.py").write_text(_reward(folder / "model", prompts[0]), encoding="utf-8")
    return FRAMEWORKS[framework](folder, prompts, settings, lengths(folder / "model", prompts, settings))


def _keep_tags(model: Path) -> None:
    """Makes <think> and </think> ordinary tokens of a tokenizer that calls them special.

    TRL and verl take special tokens out of a reply before they reward it: it would hold no thought, and nothing be right.

    Raises:
        InputError: they stay special.
    """
    if not _special(load_tokenizer(model)) & TAGS:
        return
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (file := model / name).is_file():
            known = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(_without_tags(known), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if still := _special(load_tokenizer(model)) & TAGS:
        raise InputError(
            f"the tokenizer calls {', '.join(sorted(still))} special, which RL frameworks take out of replies before they "
            "are rewarded; expected an ordinary added token"
        )


def _keep_prompt(model: Path, prompt: RlPrompt) -> None:
    """Has a tokenizer's own chat template ask as SFT and evaluation asked, where it prints today's date or asks for no reply.

    Raises:
        InputError: it asks otherwise still.
    """
    expected = ChatTemplate(load_tokenizer(model)).render(prompt.prompt, prompt=True)
    if _asked(model, prompt) == expected:
        return
    source = ChatTemplate(load_tokenizer(model)).source
    (model / "chat_template.jinja").write_text(source, encoding="utf-8")
    if (asked := _asked(model, prompt)) != expected:
        raise InputError(
            f"the chat template asks {asked[-80:]!r} in RL; expected {expected[-80:]!r}, as SFT and evaluation asked"
        )


def _asked(model: Path, prompt: RlPrompt) -> str:
    """Returns a prompt as RL frameworks render it."""
    return str(load_tokenizer(model).apply_chat_template(prompt.prompt, tokenize=False, add_generation_prompt=True))


def _special(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    return {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}


def _without_tags(known: dict[str, Any]) -> dict[str, Any]:
    """Returns one of a tokenizer's files in which the tags of a thought are not special; see `_keep_tags`."""
    out = {key: value for key, value in known.items() if not key.endswith("_token") or _content(value) not in TAGS}
    for key in ("added_tokens", "added_tokens_decoder"):
        if isinstance(tokens := known.get(key), list):
            out[key] = [_plain(token) for token in tokens]
        elif isinstance(tokens, dict):
            out[key] = {id_: _plain(token) for id_, token in tokens.items()}
    for key in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(tokens := known.get(key), list):
            out[key] = [token for token in tokens if _content(token) not in TAGS]
        elif isinstance(tokens, dict):
            out[key] = {name: token for name, token in tokens.items() if _content(token) not in TAGS}
    return out


def _plain(token: dict[str, Any]) -> dict[str, Any]:
    return {**token, "special": False} if token["content"] in TAGS else token


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _reward(model: Path, prompt: RlPrompt) -> str:
    """Returns `trainers.rl_reward` with what it has to know of the model's replies."""
    template = ChatTemplate(load_tokenizer(model))
    opened = opens_thought(template.render(prompt.prompt, prompt=True))
    stops = template.tokenizer.convert_ids_to_tokens(sorted(template.stop_ids))
    ends = sorted({*template.tokenizer.all_special_tokens, *_special(template.tokenizer), *stops} - TAGS)
    return f"{Path(rl_reward.__file__).read_text(encoding='utf-8')}\n\nOPENED = {opened}\nENDS = {tuple(ends)!r}\n"


def check_framework(name: str) -> None:
    """Says which frameworks there are.

    Raises:
        InputError: `name` is none of them.
    """
    if name not in FRAMEWORKS:
        raise InputError(f"got framework {name!r}; expected one of {', '.join(FRAMEWORKS)}{nearest(name, FRAMEWORKS)}")


def at_once(prompts: Sequence[RlPrompt]) -> int:
    """Prompts of one step: a tier of fewer than that has no whole batch, which every framework drops."""
    return min(PROMPTS, len(prompts))


def passes(prompts: Sequence[RlPrompt]) -> int:
    """How often STEPS steps go through the prompts: frameworks that count passes end after those, whatever their steps."""
    return -(-STEPS // (len(prompts) // at_once(prompts)))


def _trl(folder: Path, prompts: Sequence[RlPrompt], settings: RlSettings, room: Lengths) -> Path:
    _write_jsonl(folder, prompts)
    return _config(
        folder / "grpo.yaml",
        "# In this folder: trl grpo --config grpo.yaml",
        {
            "model_name_or_path": "model",
            "dataset_name": "data",
            "reward_funcs": ["reward.reward"],
            "output_dir": "out",
            "num_generations": GROUP,
            "per_device_train_batch_size": GROUP,
            "gradient_accumulation_steps": at_once(prompts),
            "max_completion_length": room.reply,
            "max_steps": STEPS,
            "learning_rate": settings.learning_rate / 10,
            "temperature": 1.0,
            "beta": 0.0,
            "seed": settings.seed,
            "report_to": "none",
        },
    )


def _verl(folder: Path, prompts: Sequence[RlPrompt], settings: RlSettings, room: Lengths) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "data_source": "dipsweep",
            "prompt": p.prompt,
            "ability": "reasoning",
            "reward_model": {"style": "rule", "ground_truth": p.answer},
            "extra_info": {"index": i},
        }
        for i, p in enumerate(prompts)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train.parquet")
    return _script(
        folder,
        "python3 -m verl.trainer.main_ppo",
        {
            "algorithm.adv_estimator": "grpo",
            "data.train_files": Here("data/train.parquet"),
            "data.val_files": Here("data/train.parquet"),
            "data.train_batch_size": at_once(prompts),
            "data.filter_overlong_prompts": True,
            "data.max_prompt_length": room.prompt,
            "data.max_response_length": room.reply,
            "data.seed": settings.seed,
            "actor_rollout_ref.model.path": Here("model"),
            "actor_rollout_ref.actor.optim.lr": settings.learning_rate / 10,
            "actor_rollout_ref.actor.ppo_mini_batch_size": at_once(prompts),
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": GROUP,
            "actor_rollout_ref.actor.checkpoint.save_contents": "[model,optimizer,extra,hf_model]",
            "actor_rollout_ref.rollout.name": "vllm",
            "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
            "actor_rollout_ref.rollout.n": GROUP,
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": GROUP,
            "reward.custom_reward_function.path": Here("reward.py"),
            "reward.custom_reward_function.name": "compute_score",
            "trainer.n_gpus_per_node": 1,
            "trainer.nnodes": 1,
            "trainer.total_training_steps": STEPS,
            "trainer.total_epochs": passes(prompts),
            "trainer.save_freq": STEPS,
            "trainer.val_before_train": False,
            "trainer.logger": "console",
            "trainer.default_local_dir": Here("out"),
        },
        FOR_HYDRA,
        lambda key, value: f"{key}=" + (f"\"'{value}'\"" if isinstance(value, Here) else shlex.quote(f"{value}")),
    )


def _open_rlhf(folder: Path, prompts: Sequence[RlPrompt], settings: RlSettings, room: Lengths) -> Path:
    _check_read_back(folder / "model", prompts)
    _write_jsonl(folder, prompts)
    whole_batches = len(prompts) // at_once(prompts)
    return _script(
        folder,
        "python3 -m openrlhf.cli.train_ppo_ray",
        {
            "actor.model_name_or_path": Here("model"),
            "actor.num_nodes": 1,
            "actor.num_gpus_per_node": 1,
            "actor.adam.lr": settings.learning_rate / 10,
            "actor.gradient_checkpointing_enable": True,  # as TRL and verl do where nothing is said
            "data.prompt_dataset": Here("data/train.jsonl"),
            "data.input_key": "prompt",
            "data.label_key": "answer",
            "data.apply_chat_template": True,
            "data.max_len": room.prompt + room.reply,
            "data.max_samples": at_once(prompts) * min(whole_batches, STEPS),  # what is left of a batch makes no step
            "reward.remote_url": Here("reward.py"),
            "algo.advantage.estimator": "group_norm",
            "algo.kl.init_coef": 0.0,
            "rollout.n_samples_per_prompt": GROUP,
            "rollout.batch_size": at_once(prompts),
            "rollout.max_new_tokens": room.reply,
            "train.batch_size": GROUP * at_once(prompts),
            "train.num_episodes": passes(prompts),
            "train.seed": settings.seed,
            "train.colocate_all": True,
            "vllm.num_engines": 1,
            "vllm.gpu_memory_utilization": 0.5,  # the same GPU trains
            "vllm.enable_sleep": True,
            "ds.enable_sleep": True,
            "ckpt.output_dir": Here("out"),
        },
        FOR_OPEN_RLHF,
        lambda key, value: f"--{key}" if value is True else f"--{key} {_shell(value)}",
    )


def _check_read_back(model: Path, prompts: Sequence[RlPrompt]) -> None:
    """Makes sure that a reply is found behind its prompt in what a tokenizer makes of both: OpenRLHF hands rewards nothing else.

    Raises:
        InputError: a prompt has text that the tokenizer cannot write.
    """
    tokenizer = load_tokenizer(model)
    template = ChatTemplate(tokenizer)
    for prompt in prompts:
        text = template.render(prompt.prompt, prompt=True)
        try:
            rl_reward.behind(tokenizer.decode(template.encode(text)), text)
        except ValueError as e:
            raise InputError(
                f"the tokenizer cannot write a prompt: {e}; OpenRLHF finds a reply by the text of its prompt: "
                "leave it out, or export for trl or verl"
            ) from e


FRAMEWORKS: Final[dict[str, Callable[[Path, Sequence[RlPrompt], RlSettings, Lengths], Path]]] = {
    "trl": _trl,
    "verl": _verl,
    "open-rlhf": _open_rlhf,
}


def _write_jsonl(folder: Path, prompts: Sequence[RlPrompt]) -> None:
    lines = (json.dumps({"prompt": p.prompt, "answer": p.answer}) + "\n" for p in prompts)
    (folder / "data" / "train.jsonl").write_text("".join(lines), encoding="utf-8")


def _config(file: Path, head: str, settings: dict[str, Any]) -> Path:
    file.write_text(f"{head}\n{yaml.safe_dump(settings, sort_keys=False)}", encoding="utf-8")  # 1e-06 is text in YAML
    return file


class Here(str):
    """A path in the folder of the script. It is written whole: Ray's workers may run in another folder."""


def _shell(value: Any) -> str:
    return f'"{value}"' if isinstance(value, Here) else shlex.quote(str(value))


def _script(
    folder: Path, program: str, settings: dict[str, Any], place: str, as_word: Callable[[str, Any], str]
) -> Path:
    """Writes run.sh. `place` is shell that sets `here`, the folder of the script as the program reads it."""
    placed = {key: Here(f"$here/{value}") if isinstance(value, Here) else value for key, value in settings.items()}
    words = " \\\n  ".join([program, *(as_word(key, value) for key, value in placed.items()), '"$@"'])
    file = folder / "run.sh"
    file.write_text(
        "#!/bin/sh\n# Needs GPUs; options given to this script come last and win.\n"
        f'cd "$(dirname "$0")" || exit\n{place}\n{words}\n'
    )
    file.chmod(0o755)
    return file
