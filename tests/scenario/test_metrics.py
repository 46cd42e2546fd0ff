"""The dashboard against a real Prometheus that scrapes Ray's real exporter: every query of every panel has an answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.observe.dashboard import DASHBOARD, queries
from cluster.observe.metrics import FAMILIES
from tests.support.machines.heads import Head, clean_env, end_all, free_ports, head_node

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with (
        tempfile.TemporaryDirectory(prefix="dsm", dir="/tmp", ignore_cleanup_errors=True) as folder,
        head_node(Path(folder)) as head,
    ):
        program = [sys.executable, "-m", "tests.scenario.programs.metrics", head.address]
        with open(Path(folder) / "driver.log", "wb") as log:
            driver = subprocess.Popen(program, cwd=REPO, env=head.env, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            yield head
        finally:
            end_all(driver.pid)
            driver.communicate()


@pytest.fixture(scope="module")
def prometheus(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes the head's exporter every second; its address."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs the Debian package prometheus")
    folder, (port,) = tmp_path_factory.mktemp("prometheus"), free_ports(1)
    target = urllib.parse.urlsplit(head.metrics).netloc
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n"
        f"  - {{job_name: ray, static_configs: [{{targets: ['{target}']}}]}}\n"
    )
    command = [binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=clean_env(), stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end_all(process.pid)
        process.wait()


def ask(prometheus: str, query: str) -> list[dict[str, Any]]:
    """Returns the series that a query gives now; raises what Prometheus says of a wrong one."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        answer = json.load(urllib.request.urlopen(url, timeout=5))
    except urllib.error.HTTPError as e:
        pytest.fail(f"{query}: {e.read().decode()}")
    except OSError:
        return []
    return list(answer["data"]["result"])


def test_every_query_of_every_panel_finds_something_in_what_ray_exports(prometheus: str, head: Head):
    until = time.monotonic() + 240
    wanted = {(title, query.replace("$sweep", ".*")) for title, query in queries(json.loads(DASHBOARD.read_text()))}
    assert len(wanted) >= 15
    while wanted and time.monotonic() < until:
        wanted = {(title, query) for title, query in wanted if not ask(prometheus, query)}
        time.sleep(0.5)
    assert wanted == set(), (head.token_file.parent / "driver.log").read_text()[-2000:]


def test_the_numbers_that_prometheus_has_are_those_of_the_journal(prometheus: str):
    def value(query: str) -> float:
        (series,) = ask(prometheus, query)
        return float(series["value"][1])

    assert value('ray_dipsweep_trials{state="pruned"}') == 1
    assert value('ray_dipsweep_gpu_hours{part="training"}') == 1.0
    assert value("ray_dipsweep_saved_gpu_hours") == 1.5  # 60 of 100 steps not run, 40 took an hour
    assert value("ray_dipsweep_best") == 0.4
    assert value('ray_dipsweep_verdicts_total{action="STOP"}') == 1
    assert value('ray_dipsweep_queue{queue="evaluations"}') == 3
    assert ask(prometheus, 'ray_dipsweep_step{trial="t-1"}') == []  # ended: its series is gone
    exported = {s["metric"]["__name__"] for s in ask(prometheus, '{__name__=~"ray_dipsweep_.*"}')}
    assert exported == {f"ray_{n}{'_total' if f.kind == 'counter' else ''}" for n, f in FAMILIES.items()}


def test_the_dashboard_is_put_beside_rays_own(head: Head):
    from cluster.observe.dashboard import install

    placed = install(head.session)
    assert placed.parent == head.session.resolve() / "metrics" / "grafana" / "dashboards"
    assert (placed.parent / "train_grafana_dashboard.json").is_file()
    assert json.loads(placed.read_text())["title"] == "dipsweep"
