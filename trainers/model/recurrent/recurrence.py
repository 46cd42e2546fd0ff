"""Models of recurrent depth: layers that run several times in one forward pass, and how often. Nothing here imports torch.

Two kinds, both without code of the model's own:

    recurrent_qwen3   prelude, shared block, coda (`trainers.model.recurrent.recurrent_qwen3`): tiny-r, or any Qwen3
                      whose config.json is given the fields below. Its number of recurrences is drawn anew for each training step.
    hrm_text          HRM-Text, which transformers knows from 5.23 on; its recurrences are its high-level cycles, and it is
                      trained at its own number of them.

Fields of a `recurrent_qwen3`: `num_hidden_layers` layers are stored; `num_prelude_layers` and `num_coda_layers` of them run
once, those between `num_recurrences` times unless more or fewer are asked for; in training each step draws a number from
`train_recurrences`, [fewest, most], each as likely, or takes `num_recurrences` where that is null.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sweeps.errors import InputError

RECURRENT_QWEN3: Final = "recurrent_qwen3"
HRM: Final = "hrm_text"
OWN_CODE: Final[Mapping[str, str]] = {
    "huginn_raven": "Huginn", "raven": "Huginn", "ouro": "Ouro", "iquestloopcoder": "IQuest-Coder Loop",
}  # fmt: skip
"""Model types of recurrent depth that are published with modelling code of their own alone, and their names."""
MOST: Final = 1024
"""Recurrences that may be asked for."""


def is_recurrent(config: Mapping[str, Any]) -> bool:
    """True for the config.json of a model whose number of recurrences can be chosen."""
    return config.get("model_type") in (RECURRENT_QWEN3, HRM)


def usual_recurrences(config: Mapping[str, Any]) -> int:
    """Returns how often a model's shared block runs by default; 1 for a model without one."""
    key = {RECURRENT_QWEN3: "num_recurrences", HRM: "H_cycles"}.get(str(config.get("model_type")))
    return int(config[key]) if key else 1


def train_range(config: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the fewest and the most recurrences of a training step."""
    found = config.get("train_recurrences") if config.get("model_type") == RECURRENT_QWEN3 else None
    usual = usual_recurrences(config)
    return (int(found[0]), int(found[1])) if found else (usual, usual)


def drawn_recurrences(config: Mapping[str, Any], seed: int, step: int) -> int:
    """Returns the recurrences of a training step: a function of the trial's seed and the step's number alone, so that every
    worker, a resumed run and a branch see the same."""
    fewest, most = train_range(config)
    if fewest == most:
        return fewest
    return fewest + int(random.Random(f"{seed}/recurrences/{step}").random() * (most - fewest + 1))


def stored_layers(config: Mapping[str, Any]) -> int:
    """Returns how many layers have weights of their own."""
    if config.get("model_type") == HRM:
        # Absent: never saved by transformers.
        return 2 * int(config.get("num_layers_per_stack") or config["num_hidden_layers"])
    return int(config["num_hidden_layers"])


def layer_runs(config: Mapping[str, Any], recurrences: float) -> float:
    """Returns how many layers a token passes through at a number of recurrences, which may be a mean."""
    if config.get("model_type") == HRM:
        return stored_layers(config) / 2 * recurrences * (int(config["L_cycles"]) + 1)
    if config.get("model_type") == RECURRENT_QWEN3:
        once = int(config["num_prelude_layers"]) + int(config["num_coda_layers"])
        return once + recurrences * (int(config["num_hidden_layers"]) - once)
    return int(config["num_hidden_layers"])


def passes(config: Mapping[str, Any], recurrences: int) -> list[int]:
    """Returns the stored layer of each pass of a `recurrent_qwen3`, in their order."""
    first = int(config["num_prelude_layers"])
    last = int(config["num_hidden_layers"]) - int(config["num_coda_layers"])
    return [*range(first), *list(range(first, last)) * recurrences, *range(last, int(config["num_hidden_layers"]))]


def set_recurrences(network: Any, recurrences: int) -> None:
    """Lets a loaded model's shared block run so often from now on.

    Raises:
        InputError: it has none.
    """
    config = network.config
    if config.model_type == RECURRENT_QWEN3:
        network.base_model.layers.recurrences = recurrences
    elif config.model_type == HRM:
        config.H_cycles = recurrences
        config.num_hidden_layers = config.num_layers_per_stack * recurrences * (config.L_cycles + 1)
    else:
        raise InputError(NOT_RECURRENT.format(kind=config.model_type, recurrences=recurrences))


NOT_RECURRENT: Final = (
    "r={recurrences} asks for recurrences, but models of type {kind} run each layer once; expected a model of recurrent "
    f"depth: tiny-r, or a folder of type {RECURRENT_QWEN3} or {HRM}"
)


def recurrences_of(network: Any) -> int:
    """Returns how often a loaded model's shared block runs now."""
    if network.config.model_type == RECURRENT_QWEN3:
        return int(network.base_model.layers.recurrences)
    return int(network.config.H_cycles) if network.config.model_type == HRM else 1


@contextlib.contextmanager
def running_at(network: Any, recurrences: int | None) -> Iterator[None]:
    """Lets a model run at another number of recurrences for a while; None changes nothing."""
    if recurrences is None:
        yield
        return
    before = recurrences_of(network)
    set_recurrences(network, recurrences)
    try:
        yield
    finally:
        set_recurrences(network, before)


def check_recurrence(folder: str, config: Mapping[str, Any]) -> None:
    """Looks at what a config.json says of recurrence.

    Raises:
        InputError: it is of a model that needs code of its own, reads prompts in both directions, or makes no sense.
    """
    if name := OWN_CODE.get(str(config.get("model_type"))):
        raise InputError(
            f"{folder}/config.json: {name} repeats its layers by modelling code of its own, which dipsweep never runs and "
            f"transformers does not have; expected another model of recurrent depth: tiny-r, a Qwen3 folder whose type is made "
            f"{RECURRENT_QWEN3} (docs/recurrent-depth.md), or HRM-Text ({HRM})"
        )
    if config.get("model_type") == HRM and config.get("prefix_lm", True):
        raise InputError(
            f"{folder}/config.json: HRM-Text reads prompts in both directions (prefix_lm), packed training and our generation "
            "in one; set prefix_lm to false to train and score it that way"
        )
    if config.get("model_type") != RECURRENT_QWEN3:
        return
    faults = []
    layers, once = config.get("num_hidden_layers"), [config.get(f"num_{part}_layers") for part in ("prelude", "coda")]
    sizes = [n for n in (*once, layers) if isinstance(n, int) and 0 <= n <= MOST]
    if len(sizes) < 3 or sizes[0] + sizes[1] >= sizes[2]:
        faults.append(
            f"num_prelude_layers {once[0]} and num_coda_layers {once[1]} of num_hidden_layers {layers}; expected "
            "counts that leave a layer between them"
        )
    if not _is_count(usual := config.get("num_recurrences")):
        faults.append(f"num_recurrences {usual!r}; expected a number from 1 to {MOST}")
    span = config.get("train_recurrences")
    if span is not None and not (
        isinstance(span, list) and len(span) == 2 and all(map(_is_count, span)) and span[0] <= span[1]
    ):
        faults.append(f"train_recurrences {span!r}; expected [fewest, most], from 1 to {MOST}, or null")
    if set(config.get("layer_types") or ()) - {"full_attention"}:
        faults.append("layer_types with other than full_attention; expected that alone")
    if faults:
        raise InputError(f"{folder}/config.json: got {'; got '.join(faults)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST


def decoder_layers(network: Any) -> list[Any]:
    """Returns the modules of a loaded model's stored layers."""
    base = network.base_model
    if network.config.model_type == HRM:
        return [*base.L_module.layers, *base.H_module.layers]
    return [layer for _, layer in base.layers.named_children()]
