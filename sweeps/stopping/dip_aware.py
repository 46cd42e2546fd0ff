"""DipAware: never prune a run for the dip before its recovery; prune what cannot win any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sweeps.errors import InputError
from sweeps.records import Row
from sweeps.stopping.base import Action, Constraint, Goal, Phase, StopRule, Verdict
from sweeps.stopping.field import Field, Track
from sweeps.stopping.posterior import Noise
from sweeps.stopping.prior import Array

MIN_REPORTS = 3


class DipAware(StopRule):
    name = "dip-aware"

    def __init__(
        self,
        goal: Goal,
        protect: Literal["strict", "soft"] = "strict",
        risk: float = 0.2,
        patience: float = 4.0,
        cap: float = 0.5,
        dear: float = 4.0,
        wait: float = 3.0,
        again: float = 1.5,
        cost_power: float = 0.0,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(goal)
        self.protect, self.risk, self.dear, self.waitf, self.again, self.cost_power = protect, risk, dear, wait, again, cost_power
        self.field = Field(goal.metric, goal.sign, self.history, patience=patience, cap=cap, noise=noise)
        self.out: set[str] = set()
        self.waited: set[str] = set()

    def observe(self, row: Row) -> bool:
        fresh = super().observe(row)
        if fresh:
            self.field.observe(row)
            if row.kind == "verdict":
                if row.extra.get("action") == "PARK": self.waited.add(row.trial)
            if row.kind == "end" and row.extra.get("status") in ("pruned", "failed"):
                self.out.add(row.trial)
        return fresh

    def threshold(self) -> Array | None:
        return None

    def p_top(self, track: Track) -> float:
        k = self.goal.top
        n = len(self.field.tracks)
        d = self.field.draws[:n].copy()
        d[track.row] = -np.inf
        for t in self.out:
            if t in self.field.tracks: d[self.field.tracks[t].row] = -np.inf
        if n - 1 < k: return 1.0
        th = np.partition(d, n - k, axis=0)[n - k]
        return self.field.probability_above(track, th)

    def eps(self) -> float:
        k = self.goal.top
        n = max(len(self.history.curves), 8)
        return self.risk * k / max(n - k, 1)

    def decide(self, trial: str) -> Verdict:
        track = self.field.tracks.get(trial)
        if track is None or track.reports < MIN_REPORTS:
            return Verdict(Action.CONTINUE, "young")
        ph = track.phase
        bad = self.history.curves[trial].points[track.last]
        loss = [p.metrics["train/loss"] for p in self.history.curves[trial].points.values() if "train/loss" in p.metrics]
        if len(loss) > 2 and loss[-1] > min(loss) + .7:
            return Verdict(Action.STOP, "diverged", Phase.DIVERGED)
        if ph.protected and self.protect == "strict":
            return Verdict(Action.CONTINUE, "protected", ph.phase)
        p = self.p_top(track)
        eps = self.eps()
        if self.cost_power: eps *= (2 * (1 - track.last / track.budget)) ** self.cost_power
        if ph.protected: eps /= self.dear
        elif trial not in self.waited: eps *= self.waitf
        if p < eps:
            return Verdict(Action.PARK, "low", ph.phase, {"p": p})
        return Verdict(Action.CONTINUE, "ok", ph.phase)

    def wake(self, parked: Sequence[str]) -> str | None:
        best, bp = None, 0.0
        for t in parked:
            tr = self.field.tracks[t]
            eps = self.eps()
            if self.cost_power: eps *= (2 * (1 - tr.last / tr.budget)) ** self.cost_power
            if tr.phase.protected: eps /= self.dear
            p = self.p_top(tr) / eps
            if p > bp: best, bp = t, p
        return best if bp >= self.again else None
