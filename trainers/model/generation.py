"""A model's context, and its generation settings (generation_config.json) as checkpoints and exports carry them on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

log = logging.getLogger(__name__)
_TOKENS: Final = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")


def context_of(config: Any) -> int:
    """Returns the most tokens that a model can see: its positions, or those to which YaRN stretches the original ones.

    It is the rule of vLLM, which does not start beyond. The positions of Llama 3's and Phi's scaling are stretched already.
    """
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if not longest:
        return 2**31
    for rope in ropes(text):
        if rope.get("rope_type") == "yarn" and rope.get("factor"):
            return int(rope["original_max_position_embeddings"] * rope["factor"])
    return int(longest)


def ropes(config: Any) -> list[dict[str, Any]]:
    """Returns the parameters of a model's rotary embedding: one set, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    return [found] if "rope_type" in found else [rope for rope in found.values() if isinstance(rope, dict)]


def end_replies(settings: Any, stop: Iterable[int]) -> None:
    """Adds the tokens at which training teaches to end to those at which generation ends, and makes the settings fit to be saved.

    Many public models say a temperature without `do_sample`: transformers loads that and refuses to save it. Sampling is what
    they mean; where that does not cure it, all but the special tokens goes back to transformers' defaults.

    Args:
        settings: a `GenerationConfig`, changed in place.
    """
    named = settings.eos_token_id
    ends = set(stop) | set(named if isinstance(named, list) else [] if named is None else [named])
    settings.eos_token_id = sorted(ends)
    if not _fault(settings):
        return
    settings.do_sample = True
    if fault := _fault(settings):
        plain = type(settings)(**{name: getattr(settings, name) for name in _TOKENS})
        settings.__dict__.clear()
        settings.__dict__.update(plain.__dict__)
        log.warning(
            "generation_config.json of the model cannot be saved: %s; checkpoints have transformers' defaults", fault
        )
    else:
        log.warning("generation_config.json of the model samples without do_sample; checkpoints say do_sample: true")


def _fault(settings: Any) -> str:
    try:
        settings.validate(strict=True)
    except ValueError as e:
        return " ".join(str(e).split())[:300]
    return ""
