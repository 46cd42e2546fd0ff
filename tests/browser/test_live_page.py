"""The live pages in a real browser: what is pushed is drawn, and what was picked, sorted and opened stays."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest

from sweeps.journal.writer import SweepJournal
from sweeps.report.html.live import live_app
from tests.support.machines.chromium import IN_BROWSER
from tests.support.report_journals import SWEEP, demo_stories, journal, story

pytestmark = IN_BROWSER


@pytest.fixture
def served(tmp_path):
    """The address of a server of an empty storage, and that storage."""
    uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn: pip install dipsweep[serve]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(
        live_app(tmp_path), host="127.0.0.1", port=port, log_level="error", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}", tmp_path
    server.should_exit = server.force_exit = True
    thread.join(10)


def write(storage, rows, name=SWEEP):
    with SweepJournal(storage / name) as log:
        for row in rows:
            log.append(replace(row, sweep=name))


def opened(browser, address):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(address)
    return page


def test_new_scores_come_by_themselves_and_what_was_picked_stays(browser, served):
    address, storage = served
    rows = journal([*demo_stories()[:3], story(replay=0.2, config={"note": "late"})])
    cut = next(i for i, r in enumerate(rows) if r.trial == rows[-1].trial) + 25
    write(storage, rows[:cut])
    page = opened(browser, f"{address}/sweeps/{SWEEP}")
    page.wait_for_selector("figure svg .axis", state="attached")
    late, other = rows[-1].trial, rows[2].trial
    row = page.locator(f'#trials tr[data-trial="{late}"]')
    before = row.locator("td").nth(2).text_content()
    page.get_by_role("button", name="transfer/score").click()
    page.select_option("#scale", "linear")
    page.locator(f'button.pick[data-trial="{other}"]').click()
    page.locator("details", has_text="In sentences").first.evaluate("d => { d.open = true; }")
    write(storage, rows[cut:])
    page.wait_for_function("() => document.querySelector('.over').textContent.includes('ended')", timeout=20_000)
    assert row.locator("td").nth(2).text_content() != before
    assert row.locator(".state").text_content() == "completed"
    assert page.input_value("#scale") == "linear"
    assert (
        page.locator("#picked-title").text_content()
        == page.locator(f'button.pick[data-trial="{other}"]').text_content()
    )
    assert page.locator("#trials th[aria-sort]").text_content() == "transfer/score"
    scores = [float(c.get_attribute("data-sort")) for c in page.locator("#trials tbody tr td:nth-child(6)").all()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("details", has_text="In sentences").first.evaluate("d => d.open")
    assert page.complaints == []
    page.close()


def test_a_score_is_drawn_within_a_second_or_so_without_any_summary(browser, served, monkeypatch):
    from sweeps.report.html import sweep_catalog

    address, storage = served
    rows = journal([story()])
    last = max(i for i, r in enumerate(rows) if r.step == 400 and "transfer/score" in getattr(r, "metrics", {}))
    write(storage, rows[:last])
    page = opened(browser, f"{address}/sweeps/{SWEEP}")
    page.wait_for_selector("figure svg .axis", state="attached")
    monkeypatch.setattr(sweep_catalog, "MIN_SUMMARY_INTERVAL_S", 1e9)
    write(storage, rows[last : last + 1])
    step = page.locator("#trials tbody tr td:nth-child(4)").first
    page.wait_for_function(
        "() => document.querySelector('#picked-scores tbody').textContent.includes('400')", timeout=10_000
    )
    assert step.text_content().startswith("400")
    assert page.complaints == []
    page.close()


def test_the_list_grows_and_keeps_its_filter(browser, served):
    address, storage = served
    write(storage, journal(demo_stories()))
    page = opened(browser, address)
    page.wait_for_function("() => document.querySelector('.reason').textContent.includes('Best by')")
    page.fill("#search", "other")
    write(storage, journal([story()]), "other-00000000")
    page.wait_for_function(
        "() => document.querySelectorAll('#sweeps tbody tr:not([hidden])').length === 1", timeout=15_000
    )
    assert page.locator("#many").text_content() == "2 sweeps"
    page.reload()
    assert page.input_value("#search") == "other"
    assert page.complaints == []
    page.close()
