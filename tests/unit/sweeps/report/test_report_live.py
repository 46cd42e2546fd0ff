"""The live pages: they follow the journal, and give nothing to anybody but this machine's own browser."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sweeps.errors import InputError
from sweeps.journal.compaction import segment_key
from sweeps.journal.reader import LogReader
from sweeps.journal.writer import SweepJournal
from sweeps.report.html.live import Shelf, live_app
from tests.support.report_journals import SWEEP, demo_stories, journal, story

testclient = pytest.importorskip("starlette.testclient", reason="no starlette: pip install starlette httpx")


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
    assert "1 recovered (fell, and is back at 90 % of the base)" in page


def test_a_page_follows_the_journal_while_the_sweep_runs(client, tmp_path):
    rows = journal([story()])
    write(tmp_path, rows[:3])
    early = client.get(f"/sweeps/{SWEEP}")
    assert "Nothing was scored on the objective after step 0 yet" in early.text
    assert int(early.headers["refresh"]) >= 5
    write(tmp_path, rows[3:])
    late = client.get(f"/sweeps/{SWEEP}")
    assert "of 1 setting, 1 not back yet and still rising" in late.text
    assert "refresh" not in late.headers, "an ended sweep stands still"


def test_several_clients_of_a_growing_log_all_get_a_page(tmp_path, monkeypatch):
    rows = journal(demo_stories())
    write(tmp_path, rows[:5])
    shelf = Shelf(tmp_path)
    rest = LogReader._rest

    def slowly(reader, piece):
        data = rest(reader, piece)
        time.sleep(0.05)  # another client asks meanwhile
        return data

    monkeypatch.setattr(LogReader, "_rest", slowly)
    write(tmp_path, rows[5:20])
    with ThreadPoolExecutor(4) as pool:
        listed = list(pool.map(lambda _: shelf.sweep(SWEEP), range(4)))
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


def test_importing_the_report_starts_nothing_heavy():
    code = (
        "import sys, sweeps.report, sweeps.report.html.live; "
        "print([m for m in ('ray', 'torch', 'plotly', 'jinja2', 'starlette', 'optuna', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
