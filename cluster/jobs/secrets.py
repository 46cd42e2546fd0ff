"""Checks that what Ray shows of a job holds no secret.

Ray returns a job's entrypoint, runtime environment and metadata in clear, and writes them to logs (ray issues 28276 and
39502, open since 2022). So everything that is about to be sent with a job is checked here.

Known kinds are found by `detect-secrets` (its detectors of one kind each, none that goes by entropy alone: data tiers and
digests would be refused) and by the patterns below for kinds that it lacks; also in base64. Whatever stands under a secret's
name is one, in lists and mappings too. A password that looks like a word, under a name like any other, is not seen.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from sweeps.config.blocks import TrainerBlock
from sweeps.errors import Fault, SpecError

_NAME: Final = re.compile(
    r"(?i)secret|token|passw(or)?d|credential|(^|[^a-z])hf_token|api[-_]?key|private[-_]?key|aws_session"
)
_COLLECTION: Final = re.compile(r"(?i)(secret|token|password|passwd|credential|api[-_]?key|private[-_]?key)s?$")
"""Names of lists and mappings of secrets; a tier may be called `long-token-cot`."""
_OTHER_PLUGINS: Final = ("Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_OURS: Final = frozenset(name for name in TrainerBlock.model_fields if _NAME.search(name))  # batch_tokens
_VALUE: Final = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_\-]{35}"),
    "an npm token": re.compile(r"\bnpm_[A-Za-z0-9]{36}"),
    "a GitLab token": re.compile(r"\bgl[a-z]{1,6}-[0-9A-Za-z_\-]{20,}"),
    "a bearer token": re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/\-]{12,}"),
    "a token in an address": re.compile(r"[a-z0-9+]+://[^/\s:@]{12,}@"),
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
            named = _NAME if isinstance(value, str) else _COLLECTION
            if named.search(str(name)) and name not in _OURS and _holds_text(value):
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


def _holds_text(value: Any) -> bool:
    """True for text, and for what holds text, at any depth."""
    if isinstance(value, Mapping):
        return any(map(_holds_text, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_text, value))
    return isinstance(value, str) and bool(value)


def _value(where: str, text: str) -> Iterator[Fault]:
    if kind := _kind(text) or next((f"{k}, in base64" for plain in _decoded(text) if (k := _kind(plain))), ""):
        yield Fault(where, f"holds {kind}, and Ray shows it in clear to everybody who sees the job; {INSTEAD}")


def _kind(text: str) -> str:
    """Returns what secret a text holds, such as `a GitHub token`; empty when none is known."""
    if kind := next((kind for kind, pattern in _VALUE.items() if pattern.search(text)), ""):
        return kind
    from detect_secrets.core.scan import scan_line  # half a second, and only who submits needs it
    from detect_secrets.settings import transient_settings

    with transient_settings({"plugins_used": [{"name": name} for name in _plugins()]}):
        return next((f"what looks like a secret ({s.type})" for line in text.splitlines() for s in scan_line(line)), "")


@cache
def _plugins() -> tuple[str, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    names = (kind.__name__ for kind in get_mapping_from_secret_type_to_class().values())
    return tuple(sorted(name for name in names if name not in _OTHER_PLUGINS))


def _decoded(text: str) -> Iterator[str]:
    """Yields decoded base64 in a text, where that is text again."""
    for found in _BASE64.findall(text):
        with contextlib.suppress(ValueError):  # no base64, or no text
            padded = found.rstrip("=").replace("-", "+").replace("_", "/")
            yield base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode()
