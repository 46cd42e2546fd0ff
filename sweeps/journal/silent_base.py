"""A base model that scores 0 in a role: reported once it is scored, since that role then shows no dip.

A score of 0 cannot fall, so no dip shows; and whether it rises says only that a checkpoint writes in the form that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ROLE_METRICS: Final = ("math/score", "transfer/score", "general/score", "safety/score", "safety/refusal")


def silence(
    model: str, metrics: Mapping[str, float], se: Mapping[str, float], n: Mapping[str, int], objective: str = ""
) -> str:
    """Returns what to tell of a base model's scores, as a sentence; empty where it scores something in every role.

    Args:
        metrics, se, n: of its step 0. objective: a metric to look at beside those of the roles.
    """
    looked_at = dict.fromkeys((*ROLE_METRICS, objective))
    silent = [m for m in looked_at if m in metrics and m in n and _is_nothing(metrics[m], se.get(m))]
    found = [f"{metric} ({metrics[metric]:.2f} on {n[metric]} items)" for metric in silent]
    if not found:
        return ""
    return (
        f"base model {model} scores nothing, or next to nothing, in {', '.join(found)}: no dip can be seen there, and "
        "a gain may be the form of answers alone; look at its replies (`dipsweep replies`) and at its chat template, or give it "
        "items that it can answer"
    )


def _is_nothing(value: float, se: float | None) -> bool:
    """True for 0, and for what lies within one standard error of it."""
    return value <= (se or 0.0)
