"""What the page shows of one trial besides its curves: short texts, made here so that the script only places them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweeps.journal.rows import TierRow
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.analysis.wording import number, plural, spent
from sweeps.report.html.page_tables import tier_rows


def settings_data(summary: Summary) -> list[dict[str, Any]]:
    """Returns what is concluded on each setting, with the trials that it stands for."""
    return [
        {
            "trials": list(s.trials),
            "rank": s.rank,
            "shares": s.shares,
            "verdicts": [[v.kind.value, v.sentence, v.settle] for v in s.verdicts],
        }
        for s in summary.settings
    ]


def tier_data(summary: Summary) -> list[dict[str, Any]]:
    """Returns the data cards, as names and texts."""
    heads = ("Conversations", "Rows", "Tokens", "Learnt tokens", "Tokens a row", "To look at")
    return [
        {
            "tier": line.tier,
            "model": line.model,
            "facts": [
                ["Tier and model", f"{line.tier}, {line.model}{_kind_of(card)}"],
                *zip(
                    heads,
                    (line.conversations, line.rows, line.tokens, line.learnt, line.lengths, line.warn),
                    strict=True,
                ),
            ],
        }
        for card, line in zip(summary.tiers, tier_rows(summary), strict=True)
    ]


def _kind_of(card: TierRow) -> str:
    limit = f", rows of at most {card.row_limit:,} tokens" if card.row_limit else ""
    return f"{limit}{', its replay pool among them' if card.replay else ''}"


def trial_facts(t: Trial) -> Iterator[list[str]]:
    """Yields names and texts: how far a trial went, its attempts, what they cost, and what could not be measured."""
    yield ["Steps", _steps(t)]
    if t.parent:
        yield ["Begins from", f"{t.parent} at step {t.fork_step or 0:,}; the curve up to there is that trial's"]
    if t.picked is not None:
        worth = f"; worth {number(t.picked.value)}, corrected for having been chosen" if t.picked.by else ""
        chosen = f"step {t.picked.step:,}, the best of {plural(t.picked.of, 'checkpoint')} by {t.picked.metric}"
        trained = f"; trained by {t.picked.trained_by}" if t.picked.trained_by not in ("", t.id) else ""
        yield ["Best checkpoint", f"{chosen}{worth}{trained}{f'; ranked once, with {t.shares}' if t.shares else ''}"]
    for run in t.runs:
        begun = f"from step {run.start:,}" if run.start else "from the beginning"
        yield [f"Attempt {run.attempt}", f"{begun}, {spent(run.training)}"]
    yield ["Training", f"{spent(t.training)}, all attempts together"]
    yield ["Scoring", spent(t.scoring)]
    if t.objective is not None:
        yield from (
            [f"{c.metric} {c.rule}", "not scored" if c.met is None else "met" if c.met else "not met"] for c in t.checks
        )
    if t.evals_open:
        yield ["To be scored", plural(t.evals_open, "checkpoint")]
    if t.evals_failed:
        yield ["Not scored", "; ".join(t.evals_failed)]
    if t.evals_skipped:
        yield ["Left out to keep up", f"steps {', '.join(f'{s:,}' for s in t.evals_skipped)}"]
    if t.evals_early:
        yield ["Scored in part", "; ".join(f"step {s:,}: {asked} of {of} items" for s, asked, of in t.evals_early)]
    if t.invalid:
        yield ["Not finite", "; ".join(t.invalid)]


def _steps(t: Trial) -> str:
    budget = "" if t.budget is None else f" of {t.budget:,}"
    own = f", {t.own_steps:,} of them its own" if t.own_steps != t.steps_run else ""
    return f"{t.steps_run:,}{budget}{own}"
