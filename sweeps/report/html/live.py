"""`dipsweep serve`: every sweep of a storage as a page that follows its journal. Loopback, read-only.

There is no state but the journals: a page is made again when its log has grown. A request has to name this machine in
its Host header, so that no web page elsewhere can read sweeps through a visitor's browser (DNS rebinding).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sweeps.errors import DipsweepError, InputError
from sweeps.journal.lease import DriverState, driver_state
from sweeps.journal.rows import LeaseRow
from sweeps.journal.writer import LogReader, sweeps_in
from sweeps.report.analysis.findings import Summary
from sweeps.report.analysis.summarize import summarize, with_driver_note
from sweeps.report.html.page import ASSETS, render, render_html
from sweeps.report.html.page_parts import progress
from sweeps.report.html.reply_data import checkpoint_replies, served
from sweeps.storage.base import Where, is_url
from sweeps.storage.factory import open_store

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOSTS = ("127.0.0.1", "localhost")
REFRESH_S = 20  # a summary of 200 trials takes 0.2 s; a sweep reports every few seconds at most


@dataclass(frozen=True, slots=True)
class Listed:
    """One sweep of the storage folder: its summary, or why its journal cannot be read."""

    id: str
    summary: Summary | None
    trouble: str = ""
    since: str = ""
    hint: str = ""

    @property
    def progress(self) -> str:
        """Where it stands, and whether somebody drives it."""
        stands = progress(self.summary) if self.summary is not None else "unreadable"
        return f"{stands}; {self.hint}" if self.open and self.hint else stands

    @property
    def open(self) -> bool:
        return self.summary is not None and progress(self.summary) != "ended"


class Shelf:
    """The sweeps of one storage, each summed up again when its journal has grown.

    Requests are served by several threads; a sweep is read by one of them at a time.
    """

    def __init__(self, storage: Where) -> None:
        self.storage = open_store(storage)
        self._readers: dict[str, LogReader] = {}
        self._known: dict[str, tuple[int, Listed]] = {}
        self._drivers: dict[str, tuple[float, DriverState]] = {}
        self._locks: dict[str, threading.Lock] = {}

    def ids(self) -> list[str]:
        """Sweep ids by name."""
        return [home.name for home in sweeps_in(self.storage)]

    def sweep(self, id: str) -> Listed | None:
        """Returns a sweep by id; None when there is none. Only names that the storage itself lists are ever opened."""
        return self._fresh(id) if id in self.ids() else None

    def all(self) -> list[Listed]:
        """Returns all sweeps, the one that was driven last first."""
        listed = [self._fresh(id) for id in self.ids()]
        return sorted(listed, key=lambda s: s.since, reverse=True)

    def _fresh(self, id: str) -> Listed:
        with self._locks.setdefault(id, threading.Lock()):
            listed = self._read(id)
            if listed.summary is None or not listed.open or not (hint := self._driver(id).message(id)):
                return listed
            return replace(listed, hint=hint, summary=with_driver_note(listed.summary, hint))

    def _driver(self, id: str) -> DriverState:
        looked, state = self._drivers.get(id, (float("-inf"), DriverState("none")))
        if time.monotonic() - looked >= REFRESH_S:  # a driver of another machine may have to be watched for seconds
            looked, state = self._drivers[id] = time.monotonic(), driver_state(self.storage / id)
        return state

    def _read(self, id: str) -> Listed:
        reader = self._readers.setdefault(id, LogReader(self.storage / id))
        try:
            rows = reader.rows()
            if id not in self._known or self._known[id][0] != len(rows):
                since = max((r.since for r in rows if isinstance(r, LeaseRow)), default="")
                self._known[id] = len(rows), Listed(id, summarize(rows), since=since)
        except DipsweepError as e:
            self._readers.pop(id)
            return Listed(id, None, str(e))
        return self._known[id][1]


def live_app(storage: Where) -> Starlette:
    """Returns the web application: `/`, `/sweeps/ID`, `/sweeps/ID.json`, `/sweeps/ID/replies/TRIAL/STEP.json`, `/health`.

    Raises:
        InputError: the storage folder does not exist, or starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route
    except ImportError as e:
        raise InputError("dipsweep serve needs starlette and uvicorn: pip install starlette uvicorn") from e
    if not is_url(storage) and not Path(str(storage)).is_dir():
        raise InputError(f"{storage}: no such folder; give the folder that holds the sweeps, such as ./runs")
    shelf = Shelf(storage)
    return Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in _endpoints(shelf)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS])],
    )


def _endpoints(shelf: Shelf) -> Sequence[tuple[str, Callable[[Request], Awaitable[Response]]]]:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

    async def index(request: Request) -> Response:
        listed = await run_in_threadpool(shelf.all)
        headers = _headers(any(s.open for s in listed))
        return HTMLResponse(render("live.html", css=_css(), storage=str(shelf.storage), sweeps=listed), headers=headers)

    async def one(request: Request) -> Response:
        id = request.path_params["id"]
        listed = await run_in_threadpool(shelf.sweep, id)
        if listed is None:
            return PlainTextResponse(f"no sweep {id} in {shelf.storage}; / lists those there are\n", 404)
        if listed.summary is None:
            return PlainTextResponse(listed.trouble + "\n", 500)
        replies = await run_in_threadpool(served, shelf.storage / id, f"/sweeps/{quote(id)}/replies")
        page = await run_in_threadpool(render_html, listed.summary, replies)
        return HTMLResponse(page, headers=_headers(listed.open))

    async def one_json(request: Request) -> Response:
        listed = await run_in_threadpool(shelf.sweep, request.path_params["id"])
        if listed is None or listed.summary is None:
            return JSONResponse({"error": listed.trouble if listed else "no such sweep"}, 500 if listed else 404)
        return JSONResponse(await run_in_threadpool(listed.summary.to_json), headers=_headers(False))

    async def replies_of(request: Request) -> Response:
        id, trial, step = (request.path_params[name] for name in ("id", "trial", "step"))
        if id not in await run_in_threadpool(shelf.ids):
            return PlainTextResponse(f"no sweep {id} in {shelf.storage}\n", 404)
        asked = {name: request.query_params.get(name, "") for name in ("base", "show", "role")}
        try:
            found = await run_in_threadpool(checkpoint_replies, shelf.storage / id, trial, step, **asked)
        except InputError as e:
            return PlainTextResponse(f"{e}\n", 404)
        except DipsweepError as e:
            return PlainTextResponse(f"{e}\n", 500)
        return JSONResponse(found, headers=_headers(False))

    async def health(request: Request) -> Response:
        return JSONResponse({"storage": str(shelf.storage), "sweeps": len(shelf.ids())})

    return [
        ("/", index),
        ("/sweeps/{id}.json", one_json),
        ("/sweeps/{id}", one),
        ("/sweeps/{id}/replies/{trial}/{step:int}.json", replies_of),
        ("/health", health),
    ]


def _headers(open_: bool) -> dict[str, str]:
    """Open sweeps reload by themselves; the page remembers what was picked."""
    fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
    return {**fixed, "Refresh": str(REFRESH_S)} if open_ else fixed


def _css() -> str:
    return (ASSETS / "page.css").read_text(encoding="utf-8")


def serve(storage: Where, *, port: int = 8765) -> None:
    """Serves the storage on 127.0.0.1 until it is interrupted."""
    app = live_app(storage)
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
