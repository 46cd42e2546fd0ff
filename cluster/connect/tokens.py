"""The token that opens a Ray cluster: one file, readable by its owner alone.

Whoever can send a job to a Ray cluster runs code on all of it, so the token is the only lock there is. Ray's own
`ray get-auth-token --generate` writes a file that everybody on the machine can read (mode 0644 under the usual umask,
Ray 2.60); this one is created 0600, and a token that others can read is refused.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from sweeps.errors import InputError

SHORTEST: Final = 16  # characters; ours have 64


def default_path() -> Path:
    """Returns the default path of a token."""
    return Path.home() / ".dipsweep" / "token"


def make_token(path: Path) -> Path:
    """Writes a new token of 256 random bits to a file that must not exist yet; returns the file.

    Raises:
        InputError: the file exists, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Created with its mode: there is no moment at which others could open it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise InputError(
            f"{path} exists already; a cluster's token is not overwritten: remove it, or name another"
        ) from None
    except OSError as e:
        raise InputError(f"{path}: a token cannot be written there ({e.strerror})") from e
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    return path


def read_token(path: Path) -> str:
    """Returns the token in a file.

    Raises:
        InputError: there is no such file, others than its owner can read it, or what it holds is no token.
    """
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode  # of what was opened, not of what lies there a moment later
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "not plain text"
        raise InputError(f"{path}: the token cannot be read ({why}); `dipsweep token` makes one") from None
    if stat.S_IMODE(mode) & 0o077:
        raise InputError(
            f"{path} can be read by others (mode {stat.S_IMODE(mode):04o}), so it is no secret any more: "
            f"make a new one, or if you know that nobody looked, chmod 600 {path}"
        )
    if len(token) < SHORTEST or not token.isprintable() or " " in token:
        raise InputError(
            f"{path} holds no token: one line of at least {SHORTEST} characters without blanks is expected"
        )
    return token


def find_token(path: Path | None = None) -> str | None:
    """Returns the token to use, or None when there is none.

    The order is Ray's own, with our file before Ray's: the file given, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH,
    ~/.dipsweep/token, ~/.ray/auth_token.

    Raises:
        InputError: the file that would be taken cannot be used.
    """
    if path is not None:
        return read_token(path)
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return read_token(Path(named))
    for candidate in (default_path(), Path.home() / ".ray" / "auth_token"):
        if candidate.exists():
            return read_token(candidate)
    return None
