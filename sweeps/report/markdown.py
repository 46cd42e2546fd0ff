"""The report as Markdown: for a pull request, a model card, or two sweeps side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sweeps.report.analysis.conclusions.answer import counts_at, progress
from sweeps.report.analysis.conclusions.verdicts import span
from sweeps.report.analysis.findings.settings import Setting, SettingMetric
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import UserNote
from sweeps.report.analysis.inference import Difference, difference
from sweeps.report.analysis.wording import compact, number, percent, score, spent


def markdown(summary: Summary, *, card: bool = False) -> str:
    """Returns one sweep's answer, its best setting and its verdicts as Markdown.

    Args:
        card: put Hugging Face model card metadata (`model-index`) for the best setting in front.
    """
    best = next(iter(summary.ranked()), None)
    parts = [*(["---", *_metadata(summary, best), "---", ""] if card and best is not None else [])]
    parts += [
        f"## {_text(summary.name)} (`{summary.sweep}`)",
        "",
        *([f"Tags: {', '.join(f'`{tag}`' for tag in summary.tags)}", ""] if summary.tags else []),
        *([f"State: {state}.", ""] if (state := progress(summary)) != "ended" else []),
        *(f"- {_text(f.sentence)}" for f in summary.answer),
        "",
    ]
    if best is not None:
        parts += [*_table(["best setting", "base", counts_at(summary), "change, 95 %"], _best_rows(best)), ""]
    verdicts = [(s.label, v.kind.value, v.sentence) for s in summary.settings for v in s.verdicts]
    parts += [*_table(["setting", "verdict", "why"], verdicts), ""]
    if summary.notes:
        parts += ["Notes:", "", *(f"- {_text(note)}" for note in summary.notes), ""]
    if summary.user_notes:
        parts += ["Written by people:", "", *(f"- {_text(user_note(n, summary))}" for n in summary.user_notes), ""]
    return "\n".join(parts)


def user_note(note: UserNote, summary: Summary) -> str:
    """A note in one line, with the trial that it is on, who wrote it, and when."""
    label = next((f"{t.label} ({t.id}): " for t in summary.trials if t.id == note.trial), "")
    by = ", ".join(part for part in (note.who, note.when) if part)  # neither is known of a note that cannot be read
    return f"{label}{note.text} ({by})" if by else f"{label}{note.text}"


def _best_rows(best: Setting) -> Iterator[Sequence[str]]:
    for m in best.metrics.values():
        end = number(m.value) + ("" if m.items_se is None else f" ± {number(m.items_se)}")
        yield m.metric, score(m.base), end, "–" if m.change is None else span(m.change)


def _metadata(summary: Summary, best: Setting) -> Iterator[str]:
    """A model card's `model-index`: https://huggingface.co/docs/hub/model-cards."""
    import yaml

    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"dipsweep suite {summary.suite}", "type": summary.suite or "unknown"},
            "metrics": [{"type": m.metric, "value": round(m.value, 4), "name": f"{m.metric} at step {m.step}"}],
        }
        for m in best.metrics.values()
        if m.metric in summary.panels
    ]
    card = {"base_model": best.model, "tags": ["dipsweep"], "model-index": [{"name": best.label, "results": results}]}
    yield from yaml.safe_dump(card, sort_keys=False, allow_unicode=True).splitlines()


def side_by_side(summaries: Sequence[Summary]) -> str:
    """Returns several sweeps as one Markdown table, a column each; only what can be compared is.

    Scores of two suites, or two objectives, are not put beside each other as a difference, and it says why.
    """
    heads = ["", *(f"{s.name} `{s.sweep}`" for s in summaries)]
    facts = [_facts(s) for s in summaries]
    rows = [(name, *(f.get(name, "–") for f in facts)) for name in dict.fromkeys(k for f in facts for k in f)]
    lines = _table(heads, rows)
    first = summaries[0]
    for other in summaries[1:]:
        lines += ["", *comparison(first, other)]
    return "\n".join([*lines, ""])


def _facts(s: Summary) -> dict[str, str]:
    best = next(iter(s.ranked()), None)
    facts = {
        "suite": s.suite or "–",
        "objective": f"{_sought(s)}, {s.goal}",
        **({"tags": ", ".join(s.tags)} if s.tags else {}),
        "state": progress(s),
        "trials": f"{len(s.trials)} in {len(s.settings)} settings",
        "best setting": "–" if best is None else best.label,
    }
    if best is not None:
        for m in best.metrics.values():
            facts[m.metric] = _of_base(m)
        facts["verdicts on it"] = ", ".join(v.kind.value for v in best.verdicts)
    total = s.costs.training + s.costs.scoring
    facts["cost"] = spent(total)
    if s.costs.share_saved is not None:
        facts["saved by stopping"] = percent(s.costs.share_saved)
    return facts


def _sought(s: Summary) -> str:
    return f"{s.objective} at the best checkpoint" if s.at == "best" else s.objective


def _of_base(m: SettingMetric) -> str:
    end = number(m.value) + ("" if m.items_se is None else f" ± {number(m.items_se)}")
    return end if m.base is None else f"{end} (base {number(m.base.value)})"


def comparison(a: Summary, b: Summary) -> list[str]:
    """Returns what can be said of the best settings of two sweeps, a line each."""
    names = f"{a.sweep} and {b.sweep}"
    if without := [s.sweep for s in (a, b) if not s.suite]:
        return [f"- {names}: nothing was scored yet in {' and '.join(without)}, so nothing is compared."]
    if a.suite != b.suite:
        return [
            f"- {names} were scored by two suites ({a.suite or 'none'}, {b.suite or 'none'}): no score is compared."
        ]
    if (a.objective, a.goal, a.at) != (b.objective, b.goal, b.at):
        return [f"- {names} look for two things ({_sought(a)}, {_sought(b)}): their bests are not compared."]
    ours, theirs = next(iter(a.ranked()), None), next(iter(b.ranked()), None)
    if ours is None or theirs is None:
        return [f"- {names}: one of them has no best setting yet."]
    lines = [f"- Bests of {names} differ in: {_differing(ours, theirs) or 'nothing but the seed'}."]
    for metric in a.panels:
        if metric in ours.metrics and metric in theirs.metrics:
            d = _apart(theirs.metrics[metric], ours.metrics[metric])
            if d is not None:
                told = "told apart" if d.p <= min(a.threshold, b.threshold) else "not told apart"
                lines.append(f"- {metric}: {b.sweep} is {span(d)} from {a.sweep}, {told}.")
    return lines


def _apart(theirs: SettingMetric, ours: SettingMetric) -> Difference | None:
    """Theirs minus ours; the larger of the error over items and that over the setting's own seeds, for each."""
    errors = [[e for e in (m.items_se, m.seeds_se) if e is not None] for m in (theirs, ours)]
    if not all(errors):
        return None
    return difference(theirs.value - ours.value, sum(max(e) ** 2 for e in errors) ** 0.5)


def _differing(a: Setting, b: Setting) -> str:
    names = sorted({*a.config, *b.config})
    return ", ".join(
        f"{n} ({compact(a.config.get(n))}, {compact(b.config.get(n))})"
        for n in names
        if repr(a.config.get(n)) != repr(b.config.get(n))
    )


def _table(heads: Sequence[str], rows: Any) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_text(c) for c in cells) + " |"

    return [line(heads), "| " + " | ".join("---" for _ in heads) + " |", *(line(row) for row in rows)]


def _text(value: str) -> str:
    """Text that cannot end a table cell or open an element."""
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())
