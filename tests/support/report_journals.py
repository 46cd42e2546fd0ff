"""Journals that never ran: deterministic rows in the shapes of the real ones, for tests of what reads a journal."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from sweeps.config.trial import trial_id
from sweeps.journal.rows import Row, base_trial, split_finite
from tests.support.rows import make_row

STEPS = (5, 10, 20, 40, 80, 120, 160, 200, 300, 400)
BASE = {
    "math/in_domain": 0.28,
    "math/score": 0.95,
    "transfer/score": 0.97,
    "general/score": 0.98,
    "safety/refusal": 0.98,
}
SUITE = "mini@3f2e91aa"
ITEMS = 200
SWEEP = "fake-1a2b3c4d"


def dip(fall: float, regain: float, at: float = 0.2) -> Callable[[float], float]:
    """A curve over the share of the budget: minus `fall` at `at`, then `regain` of it won back by the end."""

    def curve(share: float) -> float:
        if share <= at:
            return -fall * math.sin(math.pi / 2 * share / at)
        back = (share - at) / (1 - at)
        return -fall * (1 - regain * (3 * back**2 - 2 * back**3))

    return curve


def rise(gain: float) -> Callable[[float], float]:
    return lambda share: gain * (1 - math.exp(-3 * share)) - 0.15 * math.exp(-40 * share)


@dataclass
class Story:
    """What happens to one trial: changes from the base by metric, and how it ends.

    `until` is the share of the budget that it runs; `end` is completed, pruned, failed, paused or running.
    """

    config: Mapping[str, Any]
    curves: Mapping[str, Callable[[float], float]] = field(default_factory=dict)
    until: float = 1.0
    end: str = "completed"
    reason: str = ""
    parent: str | None = None
    fork_step: int | None = None

    @property
    def id(self) -> str:
        return trial_id(dict(self.config))

    @property
    def draw(self) -> str:
        """What the noise of its scores is drawn by; the tests' numbers were found with the rate called `lr`."""
        return trial_id({"lr" if name == "learning_rate" else name: value for name, value in self.config.items()})

    @property
    def budget(self) -> int:
        return int(self.config["steps"])


RECOVERS = {"transfer/score": dip(0.30, 0.80), "general/score": dip(0.42, 0.97), "safety/refusal": dip(0.45, -0.1)}
NEVER = {"transfer/score": dip(0.93, 0.02), "general/score": dip(0.92, 0.03), "safety/refusal": dip(0.96, 0.0)}
GENTLE = {"transfer/score": dip(0.25, 0.9), "general/score": dip(0.30, 0.92), "safety/refusal": dip(0.10, 0.9)}


def story(data: str = "verified-long-cot", replay: float = 0.1, steps: int = 400, seed: int = 0, **more: Any) -> Story:
    """A trial whose curves follow its data and replay, as the tiny study found them."""
    gain = {"verified-long-cot": 0.50, "answer-only": 0.34}.get(data, -0.10)
    shape = NEVER if not replay else GENTLE if data == "answer-only" else RECOVERS
    config = {"model": "tiny-s", "data": data, "steps": steps, "replay": replay, "learning_rate": 0.003, "seed": seed}
    curves = {"math/in_domain": rise(gain), "math/score": dip(0.5, 0.1), **shape}
    return Story(**{"config": {**config, **more.pop("config", {})}, "curves": curves, **more})


def noise(*key: object) -> float:
    """A number from a standard normal, the same for the same key on every machine."""
    digest = hashlib.sha256(json.dumps(key, default=str).encode()).digest()
    u, v = (int.from_bytes(digest[i : i + 7]) / 2**56 for i in (0, 7))
    return math.sqrt(-2 * math.log(u or 0.5)) * math.cos(2 * math.pi * v)


def scores(trial: Story, step: int, items: int = ITEMS) -> dict[str, float]:
    """Scores of one step, noisy as `items` items make them, inside 0 and 1."""
    out = {}
    for metric, curve in trial.curves.items():
        mean = min(max(BASE[metric] + curve(step / 400), 0.01), 0.99)
        out[metric] = round(min(max(mean + standard_error(mean, items) * noise(trial.draw, metric, step), 0.0), 1.0), 4)
    return out


def standard_error(value: float, items: int = ITEMS) -> float:
    return round(math.sqrt(max(value * (1 - value), 0.25 / items) / items), 4)


def scored(trial: str, step: int, values: Mapping[str, float], **more: Any) -> Row:
    """A score row, as the evaluators write it."""
    good, bad = split_finite(values)
    return make_row(
        "report",
        SWEEP,
        trial,
        attempt=more.pop("attempt", 1),
        step=step,
        metrics={**good, "length/mean": round(60 + 40 * math.exp(-step / 60), 1)},
        se={m: standard_error(v) for m, v in good.items()},
        n=dict.fromkeys(good, ITEMS),
        invalid=bad,
        suite=more.pop("suite", SUITE),
        **more,
    )


def definition(axes: Mapping[str, Sequence[Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": "fake",
        "space": {name: {"grid": list(levels)} for name, levels in axes.items()},
        "objective": {"metric": "transfer/score", "goal": "maximize"},
        "constraints": [{"metric": "safety/refusal", "at_least": None, "at_most": None, "relative_to_base": -0.6}],
        "stopping": {"rule": "dip-aware", "protect": "strict", "top": 3},
        **more,
    }


def axes_of(stories: Sequence[Story]) -> dict[str, list[Any]]:
    names = ("model", "data", "steps", "replay")
    return {n: list(dict.fromkeys(s.config[n] for s in stories)) for n in names}


def journal(stories: Sequence[Story], *, base: bool = True, spec: Mapping[str, Any] | None = None) -> list[Row]:
    """All rows of a sweep, in a plausible order: training reports at once, scores one step late."""
    rows = [
        make_row(
            "sweep",
            SWEEP,
            extra={"name": "fake", "spec": spec or definition(axes_of(stories)), "version": 1, "trials": len(stories)},
        )
    ]
    models = dict.fromkeys(s.config["model"] for s in stories)
    if base:
        rows += [scored(base_trial(m), 0, BASE, attempt=0, cost={"cpu_s": 0.9}) for m in models]
    for s in stories:
        rows += _trial_rows(s)
    return [row.at(seq) for seq, row in enumerate(rows)]


def _trial_rows(s: Story) -> Iterator[Row]:
    extra = {} if s.parent is None else {"parent": s.parent, "fork_step": s.fork_step}
    yield make_row("trial", SWEEP, s.id, config=s.config, budget=s.budget, extra=extra)
    start = s.fork_step or 0
    yield make_row("attempt", SWEEP, s.id, attempt=1, step=start)
    last = max(int(s.until * s.budget), start)
    late: list[Row] = []
    for step in sorted({*(x for x in STEPS if start < x <= last), *([last] if last > start else [])}):
        cost = {"cpu_s": round(0.05 * (step - start), 3)}
        loss = {"train/loss": round(0.3 + 2 * math.exp(-step / 50), 4)}
        yield make_row(
            "report", SWEEP, s.id, attempt=1, step=step, budget=s.budget, metrics=loss, cost=cost, config=s.config
        )
        yield make_row("commit", SWEEP, s.id, 1, step, checkpoint=f"sha256:{step:08x}", path=f"trials/{s.id}/{step}")
        yield make_row("eval", SWEEP, s.id, attempt=1, step=step, extra={"status": "queued"})
        yield from late
        done = make_row("eval", SWEEP, s.id, attempt=1, step=step, cost={"cpu_s": 0.8}, extra={"status": "done"})
        late = [scored(s.id, step, scores(s, step)), done]
    yield from _ending(s, last, late)


def _ending(s: Story, last: int, late: Sequence[Row]) -> Iterator[Row]:
    def end(of: str) -> Row:
        extra = {"of": of, "status": s.end, "reason": s.reason}
        return make_row("end", SWEEP, s.id, attempt=1, step=last, extra=extra)

    if s.end in ("pruned", "paused"):
        yield from late
        action = "STOP" if s.end == "pruned" else "PAUSE"
        verdict = {"action": action, "phase": "collapse", "reason": s.reason, "evidence": {"p": 0.01}, "seen": 7}
        yield make_row("verdict", SWEEP, s.id, attempt=1, step=last, extra=verdict)
    if s.end in ("completed", "pruned", "failed"):
        yield end("training")
        if s.end == "completed":
            yield from late
        yield end("scoring")


def demo_stories() -> list[Story]:
    """Every ending once: a recovery, a run that never recovers, a pruned, a failed, a paused and a running trial."""
    return [
        story(),
        story(replay=0.0),
        story("answer-only"),
        story("answer-only", replay=0.0, until=0.4, end="pruned", reason="cannot reach the top 3: P 0.004 at step 160"),
        story("corrupted-cot", until=0.1, end="failed", reason="diverged: train/loss was nan at step 40"),
        story(
            "corrupted-cot", replay=0.0, until=0.3, end="paused", reason="P(top 3) 0.02 is below the price of a worker"
        ),
        story(steps=200, until=0.5, end="running"),
    ]


def crossed(count: int) -> list[Story]:
    """At least `count` trials of a crossed sweep, cut to `count`; every seventh is pruned, every thirteenth failed."""
    tiers, replays, lengths = (
        ("verified-long-cot", "answer-only", "corrupted-cot"),
        (0.0, 0.05, 0.1, 0.2),
        (100, 200, 400),
    )
    seeds = range(math.ceil(count / (len(tiers) * len(replays) * len(lengths))))
    out = []
    for i, (seed, data, replay, steps) in enumerate(product(seeds, tiers, replays, lengths)):
        end = "pruned" if i % 7 == 3 else "failed" if i % 13 == 5 else "completed"
        until = 1.0 if end == "completed" else 0.3
        out.append(
            story(
                data, replay, steps, seed, end=end, until=until, reason="" if end == "completed" else f"{end} at 30 %"
            )
        )
    return out[:count]
