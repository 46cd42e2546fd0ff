"""What checkpoints replied: some or all of the replies that an evaluation scored, kept beside the sweep's journal.

    <sweep>/replies/<trial>/step-000040.attempt-1.jsonl.gz

One JSON object a line: first what the file is of, then one reply each. The base model's are under `base-<model>`, step 0.
Readers leave out what a later attempt has replied again, and lines of a newer version.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from sweeps.config.trial import KeepReplies
from sweeps.errors import InputError, NotFound, StorageError, nearest
from sweeps.storage.base import Store, Where
from sweeps.storage.factory import open_store

log = logging.getLogger(__name__)
FOLDER: Final = "replies"
VERSION: Final = 1
SAMPLE: Final = 8
"""Replies that a sample holds of each role."""
SAMPLE_CHARS: Final = 6_000
"""Longest prompt, thought and answer of a sample, each; the middle of a longer one is left out, and the reply says so."""
ALL_BYTES: Final = 256 * 2**20
"""What one checkpoint may keep with `all`, before compression; the file says how many replies there were."""
_NAME: Final = re.compile(r"step-(\d+)\.attempt-(\d+)\.jsonl\.gz")


@dataclass(frozen=True, slots=True)
class KeptReply:
    """One reply to one item.

    Attributes:
        trial, step, attempt: whose it is.
        role, task: of the item. item: its number in the task. sample: which of several replies to it.
        prompt: what was asked, as one text.
        thought, answer: the reply, split at its last `</think>`; `answer` is None where the thought never ended.
        tokens: length of the whole reply. truncated: the cap came before its end.
        outcomes: metric to what the scorer made of it, in [0, 1].
        refused: whether the reply refuses, where the task looks for that; None where it does not.
        shortened: characters of prompt, thought and answer that were left out.
    """

    role: str
    task: str
    item: int
    prompt: str
    thought: str
    answer: str | None
    tokens: int
    truncated: bool
    outcomes: Mapping[str, float] = field(default_factory=dict)
    sample: int = 0
    shortened: int = 0
    refused: bool | None = None
    trial: str = ""
    step: int = 0
    attempt: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the reply as plain JSON."""
        return asdict(self)


_FIELDS: Final = frozenset(f.name for f in fields(KeptReply))


def sampled(replies: Sequence[KeptReply]) -> list[KeptReply]:
    """Returns what a sample keeps: of each role the first replies of its tasks in turn, long texts shortened.

    Items are asked in the same order at every checkpoint, so samples of two checkpoints can be laid side by side.
    """
    queues: dict[str, dict[str, list[KeptReply]]] = {}
    for reply in replies:
        if reply.sample == 0:
            queues.setdefault(reply.role, {}).setdefault(reply.task, []).append(reply)
    kept: list[KeptReply] = []
    for tasks in queues.values():
        turns = sorted((at, name) for name, task in tasks.items() for at in range(min(SAMPLE, len(task))))
        kept += [shortened(tasks[name][at]) for at, name in turns[:SAMPLE]]
    return kept


def shortened(reply: KeptReply, longest: int = SAMPLE_CHARS) -> KeptReply:
    """Returns a reply whose texts are at most `longest` characters each, beginning and end kept."""
    texts = {name: getattr(reply, name) or "" for name in ("prompt", "thought", "answer")}
    missing = sum(max(0, len(text) - longest) for text in texts.values())
    if not missing:
        return reply
    cut = {name: _middle_out(text, longest) for name, text in texts.items()}
    return KeptReply(
        **(asdict(reply) | cut | {"answer": None if reply.answer is None else cut["answer"], "shortened": missing})
    )


def _middle_out(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} […{len(text) - 2 * half} characters…] {text[-half:]}"


def to_bytes(replies: Sequence[KeptReply], of: int, facts: Mapping[str, Any]) -> bytes:
    """Writes replies as a compressed file.

    Args:
        of: how many there were. facts: what the file is of.
    """
    lines, size = [], 0
    for reply in replies:
        line = json.dumps(reply.to_json(), ensure_ascii=True, allow_nan=False)
        size += len(line)
        if size > ALL_BYTES:
            break
        lines.append(line)
    head = json.dumps({"v": VERSION, "kind": "replies", **facts, "kept": len(lines), "of": of})
    return gzip.compress("\n".join([head, *lines, ""]).encode(), mtime=0)


def from_bytes(data: bytes, where: str = "replies") -> tuple[dict[str, Any], list[KeptReply]]:
    """Reads a file of replies: what it is of, and the replies.

    Raises:
        StorageError: it is damaged, or of a newer version.
    """
    try:
        head, *lines = gzip.decompress(data).decode().split("\n")
        facts = json.loads(head)
        if facts["v"] > VERSION:
            raise StorageError(f"{where} is of version {facts['v']}; this dipsweep reads up to {VERSION}")
        rows = [json.loads(line) for line in lines if line]
        found = [KeptReply(**{key: value for key, value in row.items() if key in _FIELDS}) for row in rows]
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError) as e:
        raise StorageError(f"{where} is damaged: {type(e).__name__}: {e}") from e
    return facts, found


def key_of(trial: str, step: int, attempt: int) -> str:
    """Returns where a checkpoint's replies are kept in its sweep."""
    return f"{FOLDER}/{trial}/step-{step:06d}.attempt-{attempt}.jsonl.gz"


def read_replies(
    home: Where,
    trial: str,
    step: int | None = None,
    *,
    role: str | None = None,
    task: str | None = None,
    files: Mapping[str, Mapping[int, str]] | None = None,
) -> list[KeptReply]:
    """Returns the replies of a trial that were kept, in the order of its steps.

    Args:
        home: the sweep's folder, address or store. trial: its id, or `base-<model>` for a base model.
        step: of one checkpoint alone. role, task: only those. files: what `kept_files` found there a moment ago.

    Raises:
        InputError: nothing was kept of that trial, step, role or task; it says what there is.
        StorageError: a file is damaged.
    """
    store = open_store(home)
    files = kept_files(store) if files is None else files
    if trial not in files:
        raise InputError(
            f"no replies of {trial!r} are kept in {store.name}{nearest(trial, files)}; kept are those of: "
            f"{', '.join(files) or 'nobody (evaluation.keep_replies: none?)'}"
        )
    steps = files[trial]
    if step is not None and step not in steps:
        raise InputError(f"no replies of {trial} at step {step} are kept; kept are steps {', '.join(map(str, steps))}")
    found = [
        reply for at in ([step] if step is not None else steps) for reply in read_file(store, trial, at, steps[at])
    ]
    for name, wanted in (("role", role), ("task", task)):
        there = list(dict.fromkeys(getattr(reply, name) for reply in found))
        if wanted is not None and wanted not in there:
            raise InputError(
                f"no replies of {name} {wanted!r} are kept{nearest(wanted, there)}; kept are: {', '.join(there)}"
            )
        found = [reply for reply in found if wanted is None or getattr(reply, name) == wanted]
    return found


def kept_files(home: Where) -> dict[str, dict[int, str]]:
    """Returns trial to step to the key of its replies: those of the latest attempt that replied there."""
    latest: dict[str, dict[int, tuple[int, str]]] = {}
    for entry in open_store(home).list(FOLDER):
        _, trial, name = [*entry.key.split("/"), "", ""][:3]
        if match := _NAME.fullmatch(name):
            step, attempt = int(match[1]), int(match[2])
            steps = latest.setdefault(trial, {})
            if step not in steps or steps[step][0] < attempt:
                steps[step] = (attempt, entry.key)
    return {trial: {step: steps[step][1] for step in sorted(steps)} for trial, steps in sorted(latest.items())}


def read_file(store: Store, trial: str, step: int, key: str) -> Iterator[KeptReply]:
    """Yields the replies of one checkpoint, `key` being one that `kept_files` found for it.

    Raises:
        StorageError: the file is damaged.
    """
    try:
        data = store.read(key)
    except NotFound:  # cleaned up meanwhile
        return
    facts, replies = from_bytes(data, f"{store}/{key}")
    whose = {"trial": trial, "step": step, "attempt": int(facts.get("attempt", 0))}
    for reply in replies:
        yield KeptReply(**(reply.to_json() | whose))


class ReplyWriter:
    """Keeps the replies of one checkpoint beside its sweep.

    Args:
        home: the sweep. mode: how many. trial, step, attempt: of the checkpoint.
    """

    def __init__(self, home: Where, mode: KeepReplies, trial: str, step: int, attempt: int) -> None:
        self.home, self.mode = home, mode
        self.trial, self.step, self.attempt = trial, step, attempt

    def __call__(self, replies: Sequence[KeptReply], of: int, suite: str) -> None:
        """Writes replies down. They explain scores and are none: a storage that does not take them fails no evaluation.

        Args:
            of: how many there were. suite: its version.
        """
        facts = {"trial": self.trial, "step": self.step, "attempt": self.attempt, "suite": suite}
        try:
            open_store(self.home).write(key_of(self.trial, self.step, self.attempt), to_bytes(replies, of, facts))
        except StorageError as e:
            log.warning("replies of %s at step %d are not kept: %s", self.trial, self.step, e)


def printable(text: str) -> str:
    r"""Returns a text that a terminal shows and does not obey: control and invisible formatting characters as `\x1b`."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return (
        character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else f"\\x{ord(character):02x}"
    )


def to_text(reply: KeptReply) -> str:
    """Returns a reply as a person reads it."""
    verdict = ", ".join(f"{metric} {value:g}" for metric, value in reply.outcomes.items()) or "not scored"
    where = f"{reply.trial} step {reply.step}" if reply.trial else f"step {reply.step}"
    sample = f", sample {reply.sample}" if reply.sample else ""
    notes = [f"{reply.tokens} tokens", *(["cut off by the cap"] if reply.truncated else [])]
    if reply.shortened:
        notes.append(f"{reply.shortened} characters left out")
    what = f"{reply.role}/{reply.task} item {reply.item}{sample}"
    parts = [f"── {where} · {what} · {verdict} · {', '.join(notes)}", "prompt:", reply.prompt]
    if reply.thought:
        parts += ["thought:", reply.thought]
    parts += ["answer:", reply.answer if reply.answer is not None else "(none: the thought never ended)"]
    return printable("\n".join(parts))
