"""A real S3 server on loopback for the tests (seaweedfs), to be killed and started again; and a proxy that breaks requests.

The server starts in about 1.3 s and is back 2 s after a SIGKILL with all its data. Nothing here listens beyond 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUCKET = "sweeps"


@dataclass
class S3Server:
    """One `weed mini` with one pair of access keys and one bucket.

    Attributes:
        folder: where it keeps everything. port: of its S3 interface; three more follow for its other parts.
    """

    folder: Path
    key: str = field(default_factory=lambda: "AK" + secrets.token_hex(9).upper())
    secret: str = field(default_factory=lambda: secrets.token_hex(20))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What a process needs to use the server, or a proxy on another port in front of it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }  # fmt: skip

    def start(self) -> None:
        """Starts it, and waits until it takes a write: an open port alone says little."""
        self.port = self.port or free_ports(4)
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        identity = {"name": "tests", "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
                    "actions": ["Read", "List", "Tagging", "Write"]}  # fmt: skip
        config.write_text(json.dumps({"identities": [identity]}))
        config.chmod(0o600)
        weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
        p = self.port
        flags = {"dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false", "master.port": p + 1,
                 "volume.port": p + 2, "filer.port": p + 3, "s3.port": p, "s3.config": config, "admin.ui": "false",
                 "webdav": "false", "s3.port.iceberg": 0, "s3.port.lance": 0, "bucket": BUCKET}  # fmt: skip
        argv = [weed, "mini", *(f"-{name}={value}" for name, value in flags.items())]
        env = {**os.environ, "GOMEMLIMIT": "512MiB"}
        with open(self.folder / "weed.log", "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True, env=env)
        self._wait()

    def _wait(self) -> None:
        assert self.process is not None
        probe = _probe(self)
        for _ in range(300):
            assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-2000:]
            try:
                probe()
                return
            except Exception:  # whatever a server says that is not up yet
                time.sleep(0.1)
        raise AssertionError("the S3 server did not take a write:\n" + (self.folder / "weed.log").read_text()[-2000:])

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _probe(server: S3Server) -> Callable[[], None]:
    """A write with a client that has the server's keys at hand, whatever the environment of the test says."""
    import s3fs

    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": 1, "read_timeout": 5}
    fs = s3fs.S3FileSystem(key=server.key, secret=server.secret, endpoint_url=server.url, config_kwargs=config,
                           client_kwargs={"region_name": "us-east-1"}, skip_instance_cache=True)  # fmt: skip
    fs.retries = 1
    return lambda: fs.pipe_file(f"{BUCKET}/ready/probe", b"1")


def free_ports(count: int) -> int:
    """Returns the first of so many free ports in a row; the server adds 10,000 for its gRPC, so all stay below 55,000."""
    while True:
        first = 20_000 + secrets.randbelow(30_000)
        wanted = [*range(first, first + count), *range(first + 10_000, first + 10_000 + count)]
        if all(_free(port) for port in wanted):
            return first


def _free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


Rule = Callable[[int, str, str], tuple[Any, ...] | None]
"""(number of the request, method, path) -> what to do to it:
("status", number[, code]) answer with it; ("stall", seconds) wait first; ("reset",) drop the connection at once;
("cut", bytes) pass on so much of the request and drop it; ("drop_reply",) carry it out, say nothing;
("truncate", bytes) send so much of the answer; ("rate", bytes per second) slow the answer down."""


class FaultProxy:
    """An HTTP proxy on loopback that does to requests what a network does on a bad day.

    Attributes:
        rule: asked for every request. seen: method and path of each, in order.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.rule: Rule = lambda number, method, path: None
        self.seen: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True, name="fault-proxy")
        self._thread.start()
        assert ready.wait(10)
        assert self._server is not None
        self.port: int = self._server.sockets[0].getsockname()[1]

    def first(self, count: int, *what: Any, only: str = "") -> None:
        """Does something to the first requests from now on, of one method if given; then nothing."""
        left = [count]

        def rule(number: int, method: str, path: str) -> tuple[Any, ...] | None:
            if left[0] > 0 and (not only or method == only):
                left[0] -= 1
                return what
            return None

        self.rule = rule

    def always(self, *what: Any) -> None:
        self.rule = lambda number, method, path: what

    def calm(self) -> None:
        self.rule = lambda number, method, path: None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._client, "127.0.0.1", 0))
        ready.set()
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Carries one request; True when the connection can take another."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        self.seen.append((method, path))
        kind, *how = self.rule(len(self.seen), method, path) or ("pass",)
        if kind == "reset":
            writer.transport.abort()
            return False
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)expect: *100-continue\r\n", b"", head)
        body = await _body(reader, head, how[0] if kind == "cut" else None)
        if kind == "stall":
            await asyncio.sleep(how[0])
        if kind == "status":
            writer.write(_refusal(*how))
            await writer.drain()
            return False
        return await self._forward(writer, method, head + body, kind, how)

    async def _forward(
        self, writer: asyncio.StreamWriter, method: str, request: bytes, kind: str, how: list[Any]
    ) -> bool:
        up_reader, up = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            up.write(request)
            await up.drain()
            if kind == "cut":
                writer.transport.abort()
                return False
            head = await up_reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 100"):
                head = await up_reader.readuntil(b"\r\n\r\n")
            bodiless = method == "HEAD" or head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
            body = b"" if bodiless else await _body(up_reader, head, None)
            if kind == "drop_reply":
                writer.transport.abort()
                return False
            writer.write(head)
            if kind == "truncate":
                writer.write(body[: how[0]])
                await writer.drain()
                writer.close()
                return False
            await _send(writer, body, how[0] if kind == "rate" else None)
            return True
        finally:
            up.transport.abort()


async def _send(writer: asyncio.StreamWriter, body: bytes, rate: int | None) -> None:
    piece = max(1, (rate or 10 * len(body) + 10) // 10)
    for start in range(0, len(body), piece):
        writer.write(body[start : start + piece])
        await writer.drain()
        if rate:
            await asyncio.sleep(0.1)


async def _body(reader: asyncio.StreamReader, head: bytes, at_most: int | None) -> bytes:
    if b"transfer-encoding: chunked" in head.lower():
        out = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            out += line + await reader.readexactly(size + 2)
            if size == 0:
                return out
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    size = int(length.group(1)) if length else 0
    return await reader.readexactly(size if at_most is None else min(size, at_most))


def _refusal(status: int, code: str = "SlowDown") -> bytes:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return (head + text).encode()
