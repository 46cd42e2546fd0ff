"""What Ray shows to everybody who may look at a job must hold no secret.

Ray returns a job's entrypoint, runtime environment and metadata in clear, and writes them to logs (ray issues 28276 and
39502, open since 2022). So everything that is about to be sent with a job goes through one gate here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sweeps.config.blocks import TrainerBlock
from sweeps.errors import Fault, SpecError

_NAME: Final = re.compile(
    r"(?i)secret|token|passw(or)?d|credential|(^|[^a-z])hf_token|api[-_]?key|private[-_]?key|aws_session"
)
_OURS: Final = frozenset(name for name in TrainerBlock.model_fields if _NAME.search(name))  # batch_tokens
_VALUE: Final = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_\-]{20,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a name and password": re.compile(r"[a-z0-9+]+://[^/\s:@]*:(?!\d+/)[^\s@]+@"),  # a key may hold a slash
    "a signed or keyed URL": re.compile(
        r"(?i)[?&](secret|token|password|access_?key|secret_?key|x-amz-signature|sig)[a-z_-]*="
    ),
}
INSTEAD: Final = (
    "put it on the nodes: an instance role, the environment in which Ray is started there, or a file named by a path"
)


def refuse_secrets(what: str, data: Any) -> None:
    """Raises SpecError for each place in `data` (plain JSON) whose name or value looks like a secret.

    The message names the place and never repeats the value.
    """
    found = list(_secrets(what, data))
    if found:
        raise SpecError(*found)


def _secrets(where: str, data: Any) -> Iterator[Fault]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            place = f"{where}.{name}"
            if isinstance(value, str) and value and _NAME.search(str(name)) and name not in _OURS:
                yield Fault(
                    place, f"is named like a secret, and Ray shows it in clear to everybody who sees the job; {INSTEAD}"
                )
            else:
                yield from _secrets(place, value)
            yield from _value(f"{where}: the name of an entry", str(name))
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            yield from _secrets(f"{where}[{number}]", value)
    elif isinstance(data, str):
        yield from _value(where, data)


def _value(where: str, text: str) -> Iterator[Fault]:
    kind = next((kind for kind, pattern in _VALUE.items() if pattern.search(text)), None)
    if kind:
        yield Fault(where, f"holds {kind}, and Ray shows it in clear to everybody who sees the job; {INSTEAD}")
