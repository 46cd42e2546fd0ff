"""The replies behind the scores, as the page shows them: the base model's beside a checkpoint's, item by item.

The report embeds a sample that is bounded in bytes; `dipsweep serve` gives the replies of one checkpoint at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sweeps.errors import StorageError
from sweeps.journal.rows import BASE_PREFIX, base_trial
from sweeps.replies import KeptReply, kept_files, read_file, read_replies, shortened
from sweeps.report.analysis.definition import less_is_better
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.wording import plural
from sweeps.storage.base import Where
from sweeps.storage.factory import open_store

EMBEDDED_BYTES: Final = 1_000_000
"""JSON of the replies that a report embeds."""
EMBEDDED_CHECKPOINTS: Final = 100
"""Checkpoints whose replies a report embeds at most; each is one file to read."""
EMBEDDED: Final = 100
"""Replies of one checkpoint that a report embeds at most."""
EMBEDDED_CHARS: Final = 1_500
"""Longest prompt, thought and answer in a report, each."""
SERVED: Final = 400
"""Replies of one checkpoint that the live page shows at most, after its filters."""


@dataclass(frozen=True)
class Replies:
    """What the page knows of kept replies.

    Attributes:
        kept: steps by trial, as they lie in the storage. held: replies by trial and step that come with the page.
        fetch: where the page asks for the others; empty for a page that asks for nothing. note: what is held, in words.
    """

    kept: Mapping[str, Sequence[int]]
    held: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
    fetch: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns what `replies.js` reads."""
        return {"kept": dict(self.kept), "held": self.held, "fetch": self.fetch, "base": BASE_PREFIX}


def embedded(home: Where, summary: Summary) -> Replies | None:
    """Returns the sample of replies that a report of its own embeds; None where none were kept.

    The last checkpoint of the best trials comes first, then their others, then the last ones of all other trials.

    Raises:
        StorageError: the storage does not answer; a file that is damaged is left out, and the note says so.
    """
    store = open_store(home)
    files = kept_files(store)
    trials = [id for id in files if not id.startswith(BASE_PREFIX)]
    if not trials:
        return None
    held: dict[str, dict[int, list[dict[str, Any]]]] = {}
    bases = {t.id: base_trial(str(t.config.get("model", ""))) for t in summary.trials}
    size, damaged = 0, 0
    for trial, step in islice(_in_order(files, trials, summary), EMBEDDED_CHECKPOINTS):
        base = bases.get(trial, "")
        for id, at in ((base, 0), (trial, step)):
            if (id in held and at in held[id]) or at not in files.get(id, {}):
                continue
            try:
                found = [as_shown(r, EMBEDDED_CHARS) for r in islice(read_file(store, id, at, files[id][at]), EMBEDDED)]
            except StorageError:
                damaged += 1
                continue
            used = sum(len(json.dumps(reply)) for reply in found)
            if size + used <= EMBEDDED_BYTES:
                size += used
                held.setdefault(id, {})[at] = found
    shown = sum(len(steps) for id, steps in held.items() if id in trials)
    there = sum(len(files[id]) for id in trials)
    note = f"This file holds replies of {shown:,} of {plural(there, 'checkpoint')} that kept any"
    rest = "" if shown == there else "; dipsweep serve shows the others here, dipsweep replies prints them"
    lost = f"; {plural(damaged, 'file')} could not be read" if damaged else ""
    return Replies({id: list(steps) for id, steps in files.items()}, held, note=f"{note}{rest}{lost}.")


def served(home: Where, fetch: str) -> Replies | None:
    """Returns what a live page needs to ask for replies; None where none were kept."""
    files = kept_files(home)
    if all(id.startswith(BASE_PREFIX) for id in files):
        return None
    return Replies({id: list(steps) for id, steps in files.items()}, {}, fetch)


def checkpoint_replies(home: Where, trial: str, step: int, base: str, show: str = "", role: str = "") -> dict[str, Any]:
    """Returns the replies of one checkpoint and the base model's to the same items, at most `SERVED`.

    Args:
        base: the base model's `base-<model>`. show: `right`, `wrong`, `refused`, `complied`; empty for all. role: only its.

    Raises:
        InputError: none are kept of that trial and step.
        StorageError: the file is damaged.
    """
    store = open_store(home)
    files = kept_files(store)
    found = read_replies(store, trial, step, files=files)
    fitting = [r for r in found if (not role or r.role == role) and (not show or show in words_of(r))]
    chosen = fitting[:SERVED]
    asked = {_item(r) for r in chosen}
    theirs = read_replies(store, base, 0, files=files) if 0 in files.get(base, {}) else []  # else they were not kept
    theirs = [r for r in theirs if _item(r) in asked]
    return {"replies": [as_shown(r) for r in chosen], "base": [as_shown(r) for r in theirs], "of": len(fitting)}


def as_shown(reply: KeptReply, longest: int | None = None) -> dict[str, Any]:
    """Returns a reply as `replies.js` shows it; texts longer than `longest` are shortened and marked so."""
    if longest is not None:
        reply = shortened(reply, longest)
    words = words_of(reply)
    found: dict[str, Any] = {
        "role": reply.role, "task": reply.task, "item": reply.item, "prompt": reply.prompt, "answer": reply.answer,
        "tokens": reply.tokens, "words": words, "scores": dict(reply.outcomes),
    }  # fmt: skip
    extra = {
        "sample": reply.sample,
        "thought": reply.thought,
        "truncated": reply.truncated,
        "shortened": reply.shortened,
    }
    return found | {name: value for name, value in extra.items() if value}


def words_of(reply: KeptReply) -> list[str]:
    """What the scorers made of a reply: right, wrong, partly right or not scored; refused or complied; cut off.

    Of a request for something harmful, the refusal is right; of a harmless one, the answer.
    """
    values = [1 - v if less_is_better(metric) else v for metric, v in reply.outcomes.items()]
    word = (
        "not scored" if not values else "right" if min(values) >= 1 else "wrong" if max(values) <= 0 else "partly right"
    )
    refused = [] if reply.refused is None else ["refused" if reply.refused else "complied"]
    return [word, *refused, *(["cut off"] if reply.truncated else [])]


def _item(reply: KeptReply) -> tuple[str, str, int, int]:
    return reply.role, reply.task, reply.item, reply.sample


def _in_order(
    files: Mapping[str, Mapping[int, str]], trials: Sequence[str], summary: Summary
) -> Iterator[tuple[str, int]]:
    best = [id for id in summary.best if id in files]
    rank = {t.id: t.rank or len(summary.trials) + 1 for t in summary.trials}
    others = sorted((id for id in trials if id not in best), key=lambda id: rank.get(id, len(rank) + 2))
    first = best[:1] or others[:1]
    yield from ((id, max(files[id])) for id in [*best, *others[:3]])
    yield from ((id, step) for id in first for step in sorted(files[id], reverse=True)[1:])
    yield from ((id, max(files[id])) for id in others[3:])
    yield from (
        (id, step) for id in [*best, *others] if id not in first for step in sorted(files[id], reverse=True)[1:]
    )
