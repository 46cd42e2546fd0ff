"""What a live page costs: drawing it in Chromium, and one new row, at the server and in the browser.

    python -m benchmarks.report.live --trials 1000 --reports 100

Prints CPU seconds of the browser's main thread (its own, not the clock's) until the figures are drawn; then for each of ten
rows that are written while the page is open: seconds until the page shows it, and the CPU that server and browser took beyond
an idle second. The analysis that follows later takes at most one part in twenty of a core
(`CPU_REST_FACTOR` in `sweeps.report.html.sweep_catalog`); it is kept off here.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import sync_playwright

from benchmarks.report.speed import journal
from sweeps.journal.rows import EndRow, ReportRow
from sweeps.journal.writer import SweepJournal
from sweeps.report.html import sweep_catalog
from sweeps.report.html.live import live_app

PARTS = {"scripts": "ScriptDuration", "layout": "LayoutDuration", "styles": "RecalcStyleDuration"}
SWEEP, ROWS = "speed-00000000", 10


def serve(storage: Path) -> tuple[str, uvicorn.Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(live_app(storage), host="127.0.0.1", port=port, log_level="error", ws="none", lifespan="off")
    )
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    return f"http://127.0.0.1:{port}", server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=100)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    chosen = parser.parse_args()
    rows = [replace(r, sweep=SWEEP) for r in journal(chosen.trials, chosen.reports)]
    ends = [i for i, r in enumerate(rows) if isinstance(r, EndRow)]
    late = [rows[i - 1] for i in ends[-ROWS:]]  # the last score of some trials comes while the page is open
    early = [r for r in rows if r not in late and not (isinstance(r, EndRow) and r.trial in {x.trial for x in late})]
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        SweepJournal(Path(folder) / SWEEP) as log,
    ):
        with log.batch():
            for row in early:
                log.append(row)
        address, server = serve(Path(folder))
        browser = playwright.chromium.launch(executable_path=chosen.chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(300_000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})  # CPU seconds, whatever else the machine does

        def spent() -> tuple[float, float]:
            found: Any = session.send("Performance.getMetrics")["metrics"]
            return time.process_time(), next(m["value"] for m in found if m["name"] == "TaskDuration")

        page.goto(f"{address}/sweeps/{SWEEP}")
        page.wait_for_selector("figure svg .axis", state="attached")
        page.wait_for_timeout(2000)
        drawn: Any = session.send("Performance.getMetrics")["metrics"]
        told = {m["name"]: m["value"] for m in drawn}
        parts = ", ".join(f"{what} {told[name]:.2f}" for what, name in PARTS.items())
        print(f"drawn: {told['TaskDuration']:.2f} CPU s of the browser's main thread ({parts})", flush=True)
        sweep_catalog.MIN_SUMMARY_INTERVAL_S = 1e9
        before = spent()
        page.wait_for_timeout(3000)
        idle = [(b - a) / 3 for a, b in zip(before, spent(), strict=True)]
        shown, server_s, browser_s = [], [], []
        for row in late:
            assert isinstance(row, ReportRow)
            before, began = spent(), time.monotonic()
            log.append(row)
            cell = f'#trials tr[data-trial="{row.trial}"] td:nth-child(4)'
            page.wait_for_function(
                "([cell, step]) => document.querySelector(cell).dataset.sort === step", arg=[cell, str(row.step)]
            )
            shown.append(time.monotonic() - began)
            page.wait_for_timeout(700)
            for i, took in enumerate((server_s, browser_s)):
                took.append(spent()[i] - before[i] - idle[i] * (time.monotonic() - began))
        print(f"a new row is shown after {statistics.median(shown):.2f} s (median of {ROWS})")
        print(f"it costs {1000 * statistics.median(server_s):.0f} ms CPU at the server, "
              f"{1000 * statistics.median(browser_s):.0f} ms in the browser")  # fmt: skip
        browser.close()
        server.should_exit = server.force_exit = True


if __name__ == "__main__":
    main()
