"""The live pages: they follow the journal, and give nothing to anybody but this machine's own browser."""

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import ANY

import pytest

from sweeps import Sweep
from sweeps.errors import InputError
from sweeps.journal.compaction import segment_key
from sweeps.journal.reader import LogReader
from sweeps.journal.writer import SweepJournal
from sweeps.report.html import live
from sweeps.report.html import sweep_catalog as module
from sweeps.report.html.live import live_app
from sweeps.report.html.live_feed import changes
from sweeps.report.html.sweep_catalog import SweepCatalog
from tests.support.report_journals import SUITE, SWEEP, demo_stories, journal, scored, story

testclient = pytest.importorskip("starlette.testclient", reason="no starlette: pip install dipsweep[serve,dev]")


def write(storage, rows, name=SWEEP):
    with SweepJournal(storage / name) as log:
        for row in rows:
            log.append(row)


@pytest.fixture
def client(tmp_path):
    return testclient.TestClient(live_app(tmp_path), base_url="http://127.0.0.1")


def test_sweeps_are_listed_with_their_headlines(client, tmp_path):
    assert "No sweeps here yet" in client.get("/").text
    write(tmp_path, journal(demo_stories()))
    page = client.get("/").text
    assert f'href="/sweeps/{SWEEP}"' in page
    assert "reading …" in page, "the list does not wait for any analysis"
    client.get(f"/sweeps/{SWEEP}")
    assert "1 recovered (fell, and is back at 90 % of the base)" in client.get("/").text


def test_a_page_follows_the_journal_while_the_sweep_runs(client, tmp_path):
    rows = journal([story()])
    write(tmp_path, rows[:3])
    early = client.get(f"/sweeps/{SWEEP}")
    assert "Nothing was scored on the objective after step 0 yet" in early.text
    assert f"/sweeps/{SWEEP}/events?rows=4" in early.text
    write(tmp_path, rows[3:])
    late = client.get(f"/sweeps/{SWEEP}")
    assert "of 1 setting, 1 not back yet and still rising" in late.text
    assert f"/sweeps/{SWEEP}/events" not in late.text, "an ended sweep stands still"


class Listener:
    """What a page hears: the events of a stream until it is closed, as (name, data)."""

    def __init__(self, until):
        self.until, self.heard, self.asked = until, [], 0

    async def is_disconnected(self):
        self.asked += 1
        return self.asked > 40 or self.until(self.heard)

    async def listen(self, stream):
        async for event in stream:
            parts = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line and line[0] != ":")
            if parts:
                self.heard.append((parts["event"], json.loads(parts["data"])))
        return self.heard


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(live, "LOOK_S", 0.01)
    monkeypatch.setattr(live, "LOOK_ALL_S", 0.01)
    monkeypatch.setattr(module, "MIN_SUMMARY_INTERVAL_S", 0.0)


def test_new_rows_are_pushed_as_changes_and_then_a_summary(tmp_path, hasty):
    rows = journal([story()])
    write(tmp_path, rows[:30])
    catalog = SweepCatalog(tmp_path)
    seen = catalog.sweep(SWEEP).rows
    write(tmp_path, rows[30:])
    listener = Listener(lambda heard: False)
    heard = asyncio.run(listener.listen(live.sweep_events(catalog, SWEEP, seen, listener)))
    (changed,) = [data for name, data in heard if name == "rows"]
    trial = rows[5].trial
    scores = [c for c in changed if c.get("step") == 400 and "transfer/score" in c["values"]]
    assert scores == [{"trial": trial, "step": 400, "values": ANY, "se": ANY, "n": ANY}]
    assert changed[-1] == {"trial": trial, "state": "completed"}
    assert [data for name, data in heard if name == "summary"][-1] == {
        "rows": len(catalog.rows(SWEEP)),
        "progress": "ended",
        "open": False,
    }


def test_a_page_that_lost_its_connection_hears_only_what_it_missed(tmp_path, hasty):
    rows = journal(demo_stories())
    write(tmp_path, rows)
    catalog = SweepCatalog(tmp_path)
    listener = Listener(lambda heard: len(heard) > 1)
    heard = asyncio.run(listener.listen(live.sweep_events(catalog, SWEEP, len(catalog.rows(SWEEP)), listener)))
    assert not [name for name, _ in heard if name == "rows"]


def test_a_page_is_told_how_far_the_sweep_is_while_somebody_drives_it(tmp_path):
    spec = Sweep(name="fake", space={"replay": {"grid": [0.1, 0.2]}}, trainer={"steps": 400}).to_json()
    rows = journal([story(config={**spec["trainer"], "replay": 0.1})], spec=spec)
    with SweepJournal(tmp_path / SWEEP) as log:
        for row in rows[:30]:
            log.append(row)
        assert "0 of 2 trials ended, 1 running" in SweepCatalog(tmp_path).driver_message(SWEEP)
    assert "no driver" in SweepCatalog(tmp_path).driver_message(SWEEP)


def test_scores_of_another_suite_are_not_pushed():
    rows = [scored("t-1", 40, {"transfer/score": 0.5}, suite="old@1"), scored("t-1", 40, {"transfer/score": 0.6})]
    assert [c["values"]["transfer/score"] for c in changes(rows, SUITE)] == [0.6]


def test_the_list_tells_headlines_when_they_are_ready_and_new_sweeps(tmp_path, hasty):
    write(tmp_path, journal([story()]))
    catalog = SweepCatalog(tmp_path)

    def until(heard):
        if len(heard) == 3:
            write(tmp_path, journal([story()]), "other-00000000")
        return sum(name == "sweep" for name, _ in heard) >= 4

    listener = Listener(until)
    heard = [
        data for name, data in asyncio.run(listener.listen(live.list_events(catalog, listener))) if name == "sweep"
    ]
    assert [(s["id"], s["headline"] == "reading …") for s in heard[:2]] == [(SWEEP, True), (SWEEP, False)]
    assert heard[-1]["id"] == "other-00000000"


def test_a_summary_is_not_made_more_often_than_it_is_worth(tmp_path, monkeypatch):
    rows = journal([story()])
    write(tmp_path, rows[:20])
    catalog = SweepCatalog(tmp_path)
    assert catalog.is_summary_due(SWEEP, 21)
    known = catalog.sweep(SWEEP).rows
    assert not catalog.is_summary_due(SWEEP, known), "nothing new"
    assert not catalog.is_summary_due(SWEEP, known + 1), "too early"
    monkeypatch.setattr(module, "MIN_SUMMARY_INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "CPU_REST_FACTOR", 0)
    assert catalog.is_summary_due(SWEEP, known + 1)


def test_several_clients_of_a_growing_log_all_get_a_page(tmp_path, monkeypatch):
    rows = journal(demo_stories())
    write(tmp_path, rows[:5])
    catalog = SweepCatalog(tmp_path)
    rest = LogReader._rest

    def slowly(reader, piece):
        data = rest(reader, piece)
        time.sleep(0.05)  # another client asks meanwhile
        return data

    monkeypatch.setattr(LogReader, "_rest", slowly)
    write(tmp_path, rows[5:20])
    with ThreadPoolExecutor(4) as pool:
        listed = list(pool.map(lambda _: catalog.sweep(SWEEP), range(4)))
    assert {one.trouble for one in listed} == {""}
    assert len({one.summary.seq for one in listed}) == 1


def test_a_sweep_that_nobody_drives_says_so_on_both_pages(client, tmp_path):
    write(tmp_path, journal(demo_stories())[:12])
    for page in ("/", f"/sweeps/{SWEEP}"):
        assert f"dipsweep resume {SWEEP} goes on" in client.get(page).text
    with SweepJournal(tmp_path / "open-00000000") as log:
        for row in journal([story()])[:3]:
            log.append(row)
        assert "dipsweep resume open-00000000" not in client.get("/").text


def test_the_same_findings_come_as_json(client, tmp_path):
    write(tmp_path, journal(demo_stories()))
    data = client.get(f"/sweeps/{SWEEP}.json").json()
    assert data["sweep"] == SWEEP
    assert len(data["trials"]) == 7


def test_a_damaged_journal_is_named_and_hides_no_other(client, tmp_path):
    write(tmp_path, journal(demo_stories()))
    write(tmp_path, journal([story()])[:5], "torn-00000000")
    log = tmp_path / "torn-00000000" / segment_key(0)
    log.write_text("not json\n" + log.read_text())
    assert "000000000.jsonl:1: not a journal row" in client.get("/").text
    assert client.get("/sweeps/torn-00000000").status_code == 500
    assert client.get(f"/sweeps/{SWEEP}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/sweeps/none-1", "/sweeps/..%2f..%2fetc%2fpasswd", "/sweeps/%2e%2e", "/sweeps/..%2f.json"]
)
def test_only_sweeps_of_this_folder_are_opened(client, path):
    assert client.get(path).status_code == 404


def test_nothing_can_be_written(client):
    assert client.post("/").status_code == 405
    assert client.delete("/sweeps/x").status_code == 405


def test_a_foreign_host_name_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200


def test_a_folder_that_is_not_there_is_refused_with_what_would_do(tmp_path):
    with pytest.raises(InputError, match="give the folder that holds the sweeps"):
        live_app(tmp_path / "none")


@pytest.mark.parametrize("missing", ["starlette.applications", "uvicorn"])
def test_what_serving_needs_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"needs starlette and uvicorn: pip install 'dipsweep\[serve\]'$"):
        live.serve(tmp_path)


def test_importing_the_report_starts_nothing_heavy():
    code = (
        "import sys, sweeps.report, sweeps.report.html.live; "
        "print([m for m in ('ray', 'torch', 'plotly', 'jinja2', 'starlette', 'optuna', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
