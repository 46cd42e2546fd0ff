"""Names that a sweep file may use: their patterns, what is built in, and what other trainers call the same."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from sweeps.setting_names import RENAMED

BUILTIN_MODELS: Final = ("tiny-s", "tiny-xs", "tiny-m", "tiny-r")
BUILTIN_TIERS: Final = ("verified-long-cot", "answer-only", "corrupted-cot", "concise-cot", "few-long-cot")
TEMPLATES: Final = ("thinking", "chatml", "gemma")
"""Chat templates by name (`trainers.data.chat.training_templates`)."""
NAME: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
SUITE: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*(:.*)?$"
JUDGED_ROLES: Final = ("math", "transfer", "general", "safety")
"""Roles whose scores are shares of items that were answered right."""
ROLES: Final = (*JUDGED_ROLES, "ready", "train", "length", "perf")
"""What stands before the slash of a metric's name."""
TRAINER_METRICS: Final = (
    "train/loss", "train/grad_norm", "train/lr", "train/rows_dropped", "train/rows_cut", "train/rows_bad",
    "perf/tokens_per_s", "perf/label_tokens_per_s", "perf/mfu", "perf/start_up_s", "perf/reused_processes",
    "perf/resumed_in_memory",
)  # fmt: skip
"""What the training loop that ships reports of itself, as far as metrics of a sweep file can name it."""
METRIC: Final = rf"^({'|'.join(ROLES)})/[A-Za-z0-9_.\-]+(@\d+)?(,[a-z]+=[^,\s]+)*$"
TASK: Final = r"^[A-Za-z0-9_.-]+$"
_SETTING: Final = r"(cap|think|t|r)=[0-9.]+"
VARIANT: Final = rf"^(@[1-9]\d{{0,3}}(,{_SETTING})*|{_SETTING}(,{_SETTING})*)$"
RL_READINESS: Final = "rl-readiness"
"""Objective by name: what stands below, with the samples that it takes (`evaluators.readiness`)."""
READY_SAMPLES: Final = "@8,t=1"
READY_METRIC: Final = "ready/score,avg=8,t=1"
_SYNONYMS: Final = {
    "batch_size": "batch_tokens", "per_device_train_batch_size": "batch_tokens", "epochs": "steps", "max_steps": "steps",
    "num_train_epochs": "steps", "warmup_ratio": "warmup_steps", "num_samples": "trials", "n_trials": "trials",
    "mode": "goal", "metrics": "metric", "max_seq_length": "max_length", "grad_clip": "max_grad_norm",
    "lr_scheduler": "lr_scheduler_type", "min_lr_ratio": "min_lr_rate", "bf16": "precision", "lora_r": "lora_rank",
    "r": "lora_rank", "target_modules": "lora_target_modules",
}  # fmt: skip


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" by spelling, or by what other trainers call the same thing."""
    known = list(known)
    meant = {other: ours for other, ours in (_SYNONYMS | RENAMED).items() if ours in known} | {
        ours: ours for ours in known
    }
    close = difflib.get_close_matches(name, meant, n=1, cutoff=0.6)
    return f"; did you mean '{meant[close[0]]}'?" if close else ""


def is_judged(metric: str) -> bool:
    """True for a score of the suite's own replies: those of `evaluation.test_time` have a tail."""
    return metric.partition("/")[0] in JUDGED_ROLES and "@" not in metric and "," not in metric


def is_share(metric: str) -> bool:
    """True for a metric that lies between 0 and 1, whatever its tail: scores, and of readiness and lengths the shares."""
    role, _, name = metric.partition(",")[0].partition("/")
    shares = {"ready": ("score", "mixed", "distinct", "self_bleu"), "length": ("truncated", "reasoned")}
    return role in JUDGED_ROLES or name in shares.get(role, ())
