"""The way to a cluster: is the address one, does somebody answer, and does it ask for a token?

A Ray cluster without a token runs the code of everybody who can reach it (CVE-2023-48022). So one rule holds for every
command that takes an address: beyond this machine there is no cluster without a token. The token itself is sent only to
a server that says that it wants one.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.connect.tokens import find_token
from sweeps.errors import InputError

PATIENCE_S = 10.0  # for one small answer; a busy head node on two cores took 3
RAY_PORT = 6379
NEED_TOKEN = (
    "a cluster beyond this machine needs a token: copy the file with which it was started here and give --token-file, "
    "or set RAY_AUTH_TOKEN_PATH"
)


@dataclass(frozen=True, slots=True)
class JobsEndpoint:
    """A cluster's Jobs API that answered: where, with which headers, and which Ray is behind it."""

    url: str
    headers: Mapping[str, str] = field(repr=False)  # the token is in here
    ray: str
    requires_token: bool


def jobs_url(address: str) -> str:
    """Returns the address of a Jobs API without a trailing slash.

    Raises:
        InputError: it is not one; the message names the usual mix-ups.
    """
    if "://" not in address:
        raise InputError(f"--address: got '{address}'; expected the dashboard's address: {_guess(address)}")
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        raise InputError(f"--address: got '{address}'; expected a port up to 65535") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--address: got '{address}'; expected http://HOST:8265, the address of Ray's dashboard")
    if parts.username or parts.password:
        raise InputError("--address: a name or password in an address ends up in logs; give a token file instead")
    if port == RAY_PORT:
        raise InputError(
            f"--address: {RAY_PORT} is the port of Ray itself; give the dashboard's: {_guess(parts.hostname)}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _guess(address: str) -> str:
    host, _, port = address.partition(":")
    return f"http://{host or 'HOST'}:{port if port.isdigit() and int(port) != RAY_PORT else 8265}"


def is_loopback(address: str) -> bool:
    """True when an address (a URL, or host:port) cannot leave this machine."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_ray(address: str) -> None:
    """Looks at Ray's own port, host:port, before a driver joins there: it must answer, and beyond this machine ask for a token.

    Raises:
        InputError: it does not.
    """
    if address.startswith("ray://"):
        raise InputError(
            f"--address: got '{address}'; Ray Client cannot hold a sweep's driver: dipsweep submit SWEEP --address "
            f"{_guess(urlsplit(address).hostname or '')}"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
    except (OSError, ValueError) as e:
        raise InputError(f"--address: got '{address}'; no Ray answers there ({e}); give HOST:{RAY_PORT}") from None
    if is_loopback(address):
        return
    bare = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    probe = [sys.executable, "-m", "cluster.ray_internals.gcs_probe", address]
    asked = subprocess.run(probe, env=bare, capture_output=True, text=True, check=False)
    if asked.stdout.strip() != "asks":
        why = "it lets everybody in who reaches it" if asked.stdout.strip() == "open" else "it does not say so"
        raise InputError(
            f"{address}: a cluster beyond this machine must ask for a token, and {why}; start it with "
            "RAY_AUTH_MODE=token (`dipsweep token` makes one)"
        )


def connect(address: str, token_file: Path | None = None) -> JobsEndpoint:
    """Finds out how to talk to the Jobs API at an address, and that talking to it is safe.

    Raises:
        InputError: no cluster answers there, it is open to everybody, or the token is missing or wrong.
    """
    url, token = jobs_url(address), None
    if not is_loopback(url) and (token := find_token(token_file)) is None:
        raise InputError(f"{url}: {NEED_TOKEN}")
    requires_token = _asks_for_token(url)
    if not is_loopback(url) and not requires_token:
        raise InputError(
            f"{url} runs the code of everybody who can reach it: start that cluster with RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH (dipsweep token makes the file); nothing was sent to it"
        )
    if requires_token and token is None and (token := find_token(token_file)) is None:
        raise InputError(f"{url} wants a token; give --token-file, or set RAY_AUTH_TOKEN_PATH")
    headers = {"Authorization": f"Bearer {token}"} if requires_token and token else {}
    answer = _get(f"{url}/api/version", headers)
    if answer.status_code in (401, 403):
        raise InputError(
            f"{url} refuses this token ({answer.status_code}); give the one with which the cluster was started"
        )
    if answer.status_code != 200 or "ray_version" not in (version := _json(answer)):
        raise InputError(f"{url} answers, but is no Ray dashboard (status {answer.status_code}); give http://HOST:8265")
    return JobsEndpoint(url, headers, str(version["ray_version"]), requires_token)


def _asks_for_token(url: str) -> bool:
    """Asks without a token. A server that does not know the question is not a Ray of 2.52 or later."""
    answer = _get(f"{url}/api/authentication_mode", {})
    mode = _json(answer).get("authentication_mode")
    if answer.status_code != 200 or mode is None:
        raise InputError(
            f"{url} answers, but not as the dashboard of a Ray of 2.54 or later (status {answer.status_code}); "
            "give the dashboard's address, usually http://HOST:8265"
        )
    return str(mode) != "disabled"


def _get(url: str, headers: Mapping[str, str]) -> Any:
    import requests

    try:
        return requests.get(url, headers=dict(headers), timeout=PATIENCE_S, allow_redirects=False)
    except requests.exceptions.SSLError as e:
        raise InputError(f"{_origin(url)}: its certificate is not trusted ({e}); set REQUESTS_CA_BUNDLE") from e
    except requests.exceptions.Timeout:
        raise InputError(
            f"{_origin(url)} does not answer in {PATIENCE_S:.0f} s; is it the right host, and the way open?"
        ) from None
    except requests.exceptions.RequestException:
        raise InputError(
            f"nobody answers at {_origin(url)}; is the cluster up, and its dashboard reachable from here "
            "(ray start --dashboard-host, or an SSH tunnel)?"
        ) from None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _json(answer: Any) -> dict[str, Any]:
    try:
        data = answer.json()
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
