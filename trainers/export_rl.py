"""A checkpoint as the start of reinforcement learning: model, prompts with answers, a reward, and a config for a framework.

    trl        grpo.yaml for `trl grpo --config`                    (TRL 1.16)
    verl       run.sh for `verl.trainer.main_ppo`, data in Parquet  (verl 0.9)
    open-rlhf  run.sh for `openrlhf.cli.train_ppo_ray`              (OpenRLHF 0.11: earlier releases name their options otherwise)

docs/ready-for-rl.md says how far each of them was tried.

All train GRPO: groups of eight replies a prompt, rewarded 1 where the final answer is that of the data, else 0
(`trainers.rl_reward`). Settings are where to start from, not tuned; the learning rate is a tenth of SFT's. Prompts are Parquet
for all of them: what reads JSON takes texts for dates where all of a column look like them.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from sweeps.config.trial import TierSource
from sweeps.errors import InputError, nearest
from trainers import rl_reward
from trainers.data.chat.template import ChatTemplate, opens_thought, split_thought
from trainers.data.chat.tokenization import refusals
from trainers.data.sources.datasets import load
from trainers.data.types import TOOLS_ROLE, Conversation, Message
from trainers.model.generation import context_of
from trainers.model.load import load_tokenizer
from trainers.rl_reward import answer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAPTERS: Final = 10
"""How many times the learning rate of all weights adapters want (docs/sweep-file.md)."""
GROUP: Final = 8
PROMPTS: Final = 16
"""Prompts of one step, where there are as many."""
PROSE: Final = 8
"""Words above which an answer is taken for prose."""
STEPS: Final = 200
PICTURE: Final = "<image>"
TAGS: Final = frozenset({"<think>", "</think>"})
FOR_HYDRA: Final = r"""case $PWD in
*[*?[]*|*'${'*) echo "got folder $PWD; expected one without *, ?, [ and \${, which verl reads as patterns" >&2; exit 2 ;;
esac
here=$(printf %s "$PWD" | sed "s/\(\\\\*\)'/\1\1\\\\'/g")"""
"""Shell that sets `here`, the folder of a script, as it stands between apostrophes in an option of Hydra.

verl resolves ${…} in what Hydra has read, a second time where it was masked, and `datasets` looks for files by *, ? and [.
"""
FOR_OPEN_RLHF: Final = """here=$PWD
case $here in
*[,@*?[]*) echo "got folder $here; expected one without , and @, *, ? and [, by which OpenRLHF cuts paths" >&2; exit 2 ;;
esac"""
"""The same for OpenRLHF, which takes a comma for the end of a path, and @ for the end of a data set's."""

LeftOut = Mapping[str, int]
"""How many were left out, by what is the matter with them."""


@dataclass(frozen=True, slots=True)
class RlPrompt:
    """What RL asks, and the answer that is rewarded; `reply` is the one that SFT learnt."""

    prompt: Conversation
    answer: str
    reply: Message | None = field(default=None, compare=False, repr=False)

    @property
    def conversation(self) -> Conversation:
        """The prompt with a reply, which alone of it counts as learnt."""
        before = [{**m, "learn": False} if m["role"] == "assistant" else m for m in self.prompt]
        return [*before, self.reply or {"role": "assistant", "content": self.answer}]


@dataclass(frozen=True, slots=True)
class RlSettings:
    """What a config takes from the trial: the learning rate of SFT of all weights, the longest conversation, and the seed."""

    learning_rate: float
    max_length: int
    seed: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RlSettings:
        """Returns those of a trial's config; RL trains all weights, also where SFT trained adapters."""
        rate = config["learning_rate"] / (ADAPTERS if config.get("lora_rank") else 1)
        return cls(rate, config["max_length"], config["seed"])


@dataclass(frozen=True, slots=True)
class RlPrompts:
    """Questions of a tier with their answers, and what is to be known of them.

    Attributes:
        left_out: conversations, or prompts, that were left out.
        disputed: questions to which the tier has several answers; the first one counts.
    """

    prompts: Sequence[RlPrompt]
    left_out: LeftOut
    disputed: int = 0

    @property
    def doubts(self) -> list[str]:
        """What makes the reward worth less, in sentences."""
        found = []
        if self.disputed:
            found.append(f"{self.disputed:,} questions have several answers in the data: the first one is rewarded")
        words = statistics.median_low(len(p.answer.split()) for p in self.prompts)
        if words > PROSE:  # long answers are hardly ever met letter by letter
            found.append(
                f"half of the answers have {words} words and more, and the reward compares letter by letter: "
                "change `right` in reward.py, or mark what counts by \\boxed{}"
            )
        return found


def rl_prompts(tier: str, source: TierSource, seed: int = 0) -> RlPrompts:
    """Returns the questions of a tier whose last reply has an answer to compare with, each once with each of its answers.

    Thoughts of earlier replies belong to a prompt, as they did in SFT.

    Raises:
        InputError: no conversation is left, or the tier cannot be read.
    """
    found: dict[str, RlPrompt] = {}
    left_out: Counter[str] = Counter()
    for conversation in load(tier, source, seed=seed).primary:
        if fault := _unfit(conversation):
            left_out[fault] += 1
            continue
        *before, last = conversation
        answer = str(answer_of(last["content"]))
        keys = ("role", "content", "reasoning_content")
        prompt: Conversation = [{key: m[key] for key in keys if key in m} for m in before]
        found.setdefault(json.dumps([prompt, answer], sort_keys=True), RlPrompt(prompt, answer, last))
    if not found:
        raise InputError(f"tier {tier!r} has no conversation that makes a prompt: {counted(left_out) or 'it is empty'}")
    return RlPrompts(list(found.values()), left_out)


def counted(left_out: LeftOut) -> str:
    """Returns what was left out and how many, in words."""
    return "; ".join(f"{count:,} {fault}" for fault, count in left_out.items())


def _unfit(conversation: Conversation) -> str:
    """Says why a conversation makes no prompt; "" where it does."""
    *before, last = conversation
    if any(m["role"] in (TOOLS_ROLE, "tool") or m.get("tool_calls") for m in conversation):
        return "with tools, whose environments are not in the data"
    if not before or last["role"] != "assistant":
        return "that do not end with a reply of the assistant"
    if not last.get("learn", True):
        return "whose last reply SFT did not learn"
    return "" if answer_of(last["content"]) else "whose last reply has no answer"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the longest prompt, what a reply may have beside it in the model's context, and that context."""

    prompt: int
    reply: int
    context: int


def fitting_prompts(model: Path, prompts: Sequence[RlPrompt], settings: RlSettings) -> RlPrompts:
    """Returns the prompts that SFT trained on: the chat template takes them, and its longest conversation had room for a reply.

    What the template asks alike is one prompt, such as conversations that differ in thoughts which it drops.

    Raises:
        InputError: there is none.
    """
    tokenizer = load_tokenizer(model)
    refused = {each.conversation: each.reason for each in refusals(tokenizer, [p.conversation for p in prompts])}
    taken = [prompt for place, prompt in enumerate(prompts) if place not in refused]
    if not taken:
        raise InputError(f"the chat template takes none of {len(prompts):,} prompts: {refused[0]}")
    template = ChatTemplate(tokenizer)
    answers: dict[str, dict[str, RlPrompt]] = {}
    for prompt in taken:
        answers.setdefault(template.render(prompt.prompt, prompt=True), {}).setdefault(prompt.answer, prompt)
    counts = _tokens(tokenizer, list(answers))
    found = [list(known.values()) for known, count in zip(answers.values(), counts, strict=True)
             if count < settings.max_length]  # fmt: skip
    if not found:
        raise InputError(
            f"the shortest prompt has {min(counts)} tokens, and conversations of SFT had {settings.max_length} at most "
            "(trainer.max_length): no room for a reply"
        )
    long = f"behind which max_length {settings.max_length} had no room for a reply in SFT either"
    faults = {long: len(answers) - len(found), "that the chat template refused in SFT too": len(refused)}
    left_out = {fault: count for fault, count in faults.items() if count}
    return RlPrompts([first for first, *_ in found], left_out, sum(len(known) > 1 for known in found))


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def lengths(model: Path, prompts: Sequence[RlPrompt], settings: RlSettings) -> Lengths:
    """Returns how long prompts are under a model's chat template, and replies may be: at most SFT's longest conversation.

    vLLM, by which verl and OpenRLHF generate, does not start where both together are more than the model's context.

    Raises:
        InputError: the longest prompt leaves no room for a reply.
    """
    tokenizer = load_tokenizer(model)
    template = ChatTemplate(tokenizer)
    longest = max(_tokens(tokenizer, [template.render(p.prompt, prompt=True) for p in prompts]))
    context = context_of(_model_config(model))
    if longest >= context:
        raise InputError(
            f"the longest prompt has {longest} tokens, and the model's context {context}: no room for a reply"
        )
    return Lengths(longest, min(settings.max_length, context - longest), context)


def _model_config(model: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False).get_text_config()


def write_rl(framework: str, folder: Path, prompts: Sequence[RlPrompt], settings: RlSettings) -> Path:
    """Writes what `framework` needs beside the model, which lies in `folder`/model; returns the file that starts it.

    Args:
        framework: one of FRAMEWORKS.

    Raises:
        InputError: the framework is unknown, would ask otherwise than SFT did, cannot find replies, or the model's context has
            no room for one.
    """
    check_framework(framework)
    model = folder / "model"
    _keep_tags(model)
    written, texts = _as_asked(model, prompts)
    (folder / "data").mkdir(parents=True)
    (folder / "reward.py").write_text(_reward(model, texts), encoding="utf-8")
    return FRAMEWORKS[framework](folder, written, settings, lengths(model, written, settings))


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


def _as_asked(model: Path, prompts: Sequence[RlPrompt]) -> tuple[list[RlPrompt], list[str]]:
    """Returns prompts as a tokenizer's own template has to be given them to ask as SFT and evaluation asked, and what it asks.

    Thoughts of earlier replies stand in the content, between <think> tags, or beside it where the template takes them there. A
    template that prints today's date or asks for no reply is written anew.

    Raises:
        InputError: it asks otherwise still.
    """
    template = ChatTemplate(load_tokenizer(model))
    expected = [template.render(p.prompt, prompt=True) for p in prompts]
    within, beside = ([_with_thoughts(p.prompt, beside=each) for p in prompts] for each in (False, True))
    for rewritten in (False, True):
        if rewritten:
            (model / "chat_template.jinja").write_text(template.source, encoding="utf-8")
        for written in (within, beside):
            if _asked(model, written) == expected:
                return [replace(p, prompt=each) for p, each in zip(prompts, written, strict=True)], expected
    others = [(a, b) for a, b in zip(_asked(model, within), expected, strict=True) if a != b]
    got, wanted = others[0]
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    raise InputError(
        f"the chat template asks {len(others):,} of {len(prompts):,} prompts otherwise in RL than in SFT and evaluation: got "
        f"{got[max(0, at - 20) : at + 60]!r}; expected {wanted[max(0, at - 20) : at + 60]!r}"
    )


def _with_thoughts(prompt: Conversation, *, beside: bool) -> Conversation:
    """Returns messages with the thoughts of replies in their content, or all beside it: Parquet gives every message all keys."""
    parted = [split_thought(m) if m["role"] == "assistant" else ("", m["content"]) for m in prompt]
    if beside:
        return [
            {"role": m["role"], "content": said if thought else m["content"], "reasoning_content": thought or None}
            for m, (thought, said) in zip(prompt, parted, strict=True)
        ]
    tagged = [
        f"<think>\n{m['reasoning_content'].strip()}\n</think>\n\n" if m.get("reasoning_content") else "" for m in prompt
    ]
    return [{"role": m["role"], "content": f"{tag}{m['content']}"} for m, tag in zip(prompt, tagged, strict=True)]


def _asked(model: Path, prompts: Sequence[Conversation]) -> list[str]:
    """Returns prompts as RL frameworks render them; a template that fails on one asks nothing."""
    from jinja2.exceptions import TemplateError

    tokenizer, out = load_tokenizer(model), []
    for prompt in prompts:
        try:
            out.append(str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)))
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
            out.append("")
    return out


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


def _reward(model: Path, texts: Sequence[str]) -> str:
    """Returns `trainers.rl_reward` with what it has to know of the model's replies.

    Raises:
        InputError: some prompts open a thought, and others do not: a reply alone does not tell.
    """
    template = ChatTemplate(load_tokenizer(model))
    opened = list(map(opens_thought, texts))
    if 0 < sum(opened) < len(opened):
        raise InputError(
            f"the chat template opens a thought in {sum(opened):,} of {len(opened):,} prompts; expected all or none: the reward "
            "reads the others' replies otherwise. Take the tier's conversations of one kind"
        )
    stops = template.tokenizer.convert_ids_to_tokens(sorted(template.stop_ids))
    ends = sorted({*template.tokenizer.all_special_tokens, *_special(template.tokenizer), *stops} - TAGS)
    return f"{Path(rl_reward.__file__).read_text(encoding='utf-8')}\n\nOPENED = {opened[0]}\nENDS = {tuple(ends)!r}\n"


def check_framework(name: str, target: Path | None = None) -> None:
    """Says which frameworks there are, and where TRL cannot start: it has no script that would say so.

    Raises:
        InputError: `name` is none of them, or TRL would read data of other folders than `target`.
    """
    if name not in FRAMEWORKS:
        raise InputError(f"got framework {name!r}; expected one of {', '.join(FRAMEWORKS)}{nearest(name, FRAMEWORKS)}")
    if name == "trl" and target is not None and set("*?[") & set(str(target.resolve())):
        raise InputError(f"got folder {target.resolve()}; expected one without *, ? and [, which TRL reads as patterns")


def at_once(prompts: Sequence[RlPrompt]) -> int:
    """Prompts of one step: a tier of fewer than that has no whole batch, which every framework drops."""
    return min(PROMPTS, len(prompts))


def passes(prompts: Sequence[RlPrompt]) -> int:
    """How often STEPS steps go through the prompts: frameworks that count passes end after those, whatever their steps."""
    return -(-STEPS // (len(prompts) // at_once(prompts)))


def _trl(folder: Path, prompts: Sequence[RlPrompt], settings: RlSettings, room: Lengths) -> Path:
    _write_rows(folder, [{"prompt": p.prompt, "answer": p.answer} for p in prompts])
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
    _write_rows(folder, rows)
    positions = getattr(_model_config(folder / "model"), "max_position_embeddings", None) or room.context
    tokens = room.prompt + room.reply
    # verl takes the positions for the context, whatever YaRN makes of them.
    key = "+actor_rollout_ref.model.override_config.max_position_embeddings"
    stretched = {key: room.context} if tokens > positions else {}
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
            **stretched,
            "actor_rollout_ref.actor.optim.lr": settings.learning_rate / 10,
            "actor_rollout_ref.actor.ppo_mini_batch_size": at_once(prompts),
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": GROUP,
            "actor_rollout_ref.actor.checkpoint.save_contents": "[model,optimizer,extra,hf_model]",
            "actor_rollout_ref.rollout.name": "vllm",
            "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
            "actor_rollout_ref.rollout.n": GROUP,
            "actor_rollout_ref.rollout.max_model_len": tokens,
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
    _write_rows(folder, [{"prompt": p.prompt, "answer": p.answer} for p in prompts])
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
            "data.prompt_dataset": Here("data/train.parquet"),
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
        InputError: a prompt has text that the tokenizer cannot write, or that OpenRLHF takes for a picture.
    """
    tokenizer = load_tokenizer(model)
    template = ChatTemplate(tokenizer)
    way_out = "leave it out, or export for trl or verl"
    for prompt in prompts:
        if any(PICTURE in m["content"] for m in prompt.prompt):
            raise InputError(f"a prompt holds {PICTURE}, which OpenRLHF takes for a picture: {way_out}")
        text = template.render(prompt.prompt, prompt=True)
        try:
            rl_reward.behind(tokenizer.decode(template.encode(text)), text)
        except ValueError as e:
            raise InputError(
                f"the tokenizer cannot write a prompt: {e}; OpenRLHF finds a reply by the text of its prompt: {way_out}"
            ) from e


FRAMEWORKS: Final[dict[str, Callable[[Path, Sequence[RlPrompt], RlSettings, Lengths], Path]]] = {
    "trl": _trl,
    "verl": _verl,
    "open-rlhf": _open_rlhf,
}


def _write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "data" / "train.parquet")


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
        f'CDPATH= cd -- "$(dirname -- "$0")" || exit\n{place}\n{words}\n'
    )
    file.chmod(0o755)
    return file
