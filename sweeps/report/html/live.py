"""`dipsweep serve`: every sweep of a storage as a page that follows its journal. Loopback, read-only.

There is no state but the journals. New rows are pushed as server-sent events within a second, as small changes of what a
page holds; what needs the whole analysis follows when a summary is made anew, at most one part in twenty of a core. A
request has to name this machine in its Host header, so that no web page elsewhere can read sweeps through a visitor's
browser (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sweeps.errors import DipsweepError, InputError
from sweeps.report.html.live_feed import changes
from sweeps.report.html.page import Live, asset, render, render_html, script_hash
from sweeps.report.html.reply_data import checkpoint_replies, served
from sweeps.report.html.sweep_catalog import CatalogEntry, SweepCatalog
from sweeps.storage.base import Where, is_url

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOSTS: Final = ("127.0.0.1", "localhost")
NEEDS: Final = "dipsweep serve needs starlette and uvicorn: pip install 'dipsweep[serve]'"
LOOK_S: Final = 0.5
"""How often a journal is looked at while a page of it is open."""
LOOK_ALL_S: Final = 5.0
"""How often all journals are looked at while the list is open."""


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
        raise InputError(NEEDS) from e
    if not is_url(storage) and not Path(str(storage)).is_dir():
        raise InputError(f"{storage}: no such folder; give the folder that holds the sweeps, such as ./runs")
    catalog = SweepCatalog(storage)
    return Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in _endpoints(catalog)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS])],
    )


def _endpoints(catalog: SweepCatalog) -> Sequence[tuple[str, Callable[[Request], Awaitable[Response]]]]:
    from markupsafe import Markup
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

    async def index(request: Request) -> Response:
        listed = await run_in_threadpool(catalog.all)
        script = asset("live.js")
        page = render(
            "live.html",
            css=Markup(asset("page.css")),
            storage=str(catalog.storage),
            sweeps=[_line(s) for s in listed],
            script=Markup(script),
            script_hash=script_hash(script),
        )
        return HTMLResponse(page, headers=HEADERS)

    async def index_events(request: Request) -> Response:
        return _events(list_events(catalog, request))

    async def one(request: Request) -> Response:
        id = request.path_params["id"]
        listed = await run_in_threadpool(catalog.sweep, id)
        if listed is None:
            return PlainTextResponse(f"no sweep {id} in {catalog.storage}; / lists those there are\n", 404)
        if listed.summary is None:
            return PlainTextResponse(listed.trouble + "\n", 500)
        where = f"/sweeps/{quote(id)}"
        replies = await run_in_threadpool(served, catalog.storage / id, f"{where}/replies")
        live = Live(f"{where}/events?rows={listed.rows}" if listed.open else "")
        page = await run_in_threadpool(render_html, listed.summary, replies, live)
        return HTMLResponse(page, headers=HEADERS)

    async def events(request: Request) -> Response:
        id = request.path_params["id"]
        if id not in await run_in_threadpool(catalog.ids):
            return PlainTextResponse(f"no sweep {id} in {catalog.storage}\n", 404)
        try:
            seen = int(request.headers.get("last-event-id") or request.query_params.get("rows", "0"))
        except ValueError:
            return PlainTextResponse("rows: expected the number of rows that the page was made of\n", 400)
        return _events(sweep_events(catalog, id, seen, request))

    async def one_json(request: Request) -> Response:
        listed = await run_in_threadpool(catalog.sweep, request.path_params["id"])
        if listed is None or listed.summary is None:
            return JSONResponse({"error": listed.trouble if listed else "no such sweep"}, 500 if listed else 404)
        return JSONResponse(await run_in_threadpool(listed.summary.to_json), headers=HEADERS)

    async def replies_of(request: Request) -> Response:
        id, trial, step = (request.path_params[name] for name in ("id", "trial", "step"))
        if id not in await run_in_threadpool(catalog.ids):
            return PlainTextResponse(f"no sweep {id} in {catalog.storage}\n", 404)
        asked = {name: request.query_params.get(name, "") for name in ("base", "show", "role")}
        try:
            found = await run_in_threadpool(checkpoint_replies, catalog.storage / id, trial, step, **asked)
        except InputError as e:
            return PlainTextResponse(f"{e}\n", 404)
        except DipsweepError as e:
            return PlainTextResponse(f"{e}\n", 500)
        return JSONResponse(found, headers=HEADERS)

    async def health(request: Request) -> Response:
        return JSONResponse({"storage": str(catalog.storage), "sweeps": len(catalog.ids())})

    return [
        ("/", index),
        ("/sweeps/{id}.json", one_json),
        ("/sweeps/{id}", one),
        ("/events", index_events),
        ("/sweeps/{id}/events", events),
        ("/sweeps/{id}/replies/{trial}/{step:int}.json", replies_of),
        ("/health", health),
    ]


HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}


def _events(told: AsyncIterator[str]) -> Response:
    from starlette.responses import StreamingResponse

    return StreamingResponse(told, media_type="text/event-stream", headers=HEADERS)


def _event(name: str, data: Any, id: int | None = None) -> str:
    number = "" if id is None else f"id: {id}\n"
    return f"event: {name}\n{number}data: {json.dumps(data, allow_nan=False, separators=(',', ':'))}\n\n"


async def sweep_events(catalog: SweepCatalog, id: str, seen: int, request: Request) -> AsyncIterator[str]:
    """New rows of a sweep from the page's last one on, and when a new summary is ready; until it has ended."""
    from starlette.concurrency import run_in_threadpool

    summed, said = seen, ""
    while not await request.is_disconnected():
        try:
            rows = await run_in_threadpool(catalog.rows, id)
        except DipsweepError as e:
            yield _event("trouble", str(e))
            return
        if len(rows) < seen:  # a driver withdrew what it had written
            seen, summed = 0, -1
        elif len(rows) > seen:
            suite = await run_in_threadpool(catalog.suite, id)
            yield _event("rows", list(changes(rows[seen:], suite)), len(rows))
            seen = len(rows)
        else:
            yield ": still here\n\n"
        if (summed != len(rows) and catalog.is_summary_due(id, len(rows))) or catalog.rows_summarized(id) > summed:
            listed = await run_in_threadpool(catalog.sweep, id)
            if listed is not None:
                summed = listed.rows
                yield _event("summary", {"rows": listed.rows, "progress": listed.progress, "open": listed.open})
                if not listed.open and listed.rows == len(rows):
                    return
        message = await run_in_threadpool(catalog.driver_message, id)
        if message != said:
            said = message
            yield _event("driver", message)
        await asyncio.sleep(LOOK_S)


async def list_events(catalog: SweepCatalog, request: Request) -> AsyncIterator[str]:
    """Lines of the list that have changed; headlines are made one after the other, and come when they are ready."""
    from starlette.concurrency import run_in_threadpool

    told: dict[str, dict[str, Any]] = {}
    while not await request.is_disconnected():
        listed = await run_in_threadpool(catalog.all)
        for one in listed:
            line = _line(one)
            if told.get(one.id) != line:
                told[one.id] = line
                yield _event("sweep", line)
        for one in listed:
            if await request.is_disconnected():
                return
            if not one.trouble and catalog.is_summary_due(one.id, one.rows):
                fresh = await run_in_threadpool(catalog.sweep, one.id)
                if fresh is not None and told.get(one.id) != _line(fresh):
                    told[one.id] = _line(fresh)
                    yield _event("sweep", told[one.id])
        yield _event("all", sorted(told))
        await asyncio.sleep(LOOK_ALL_S)


def _line(listed: CatalogEntry) -> dict[str, Any]:
    """A sweep as the list shows it."""
    headline = listed.summary.headline if listed.summary is not None else listed.trouble or "reading …"
    return {
        "id": listed.id, "href": f"/sweeps/{quote(listed.id)}", "progress": listed.progress, "headline": headline,
        "begun": listed.begun, "since": listed.since, "tags": listed.tags,
    }  # fmt: skip


def serve(storage: Where, *, port: int = 8765) -> None:
    """Serves the storage on 127.0.0.1 until it is interrupted.

    Raises:
        InputError: as `live_app`, or uvicorn is not installed.
    """
    app = live_app(storage)
    try:
        import uvicorn
    except ImportError as e:
        raise InputError(NEEDS) from e
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
