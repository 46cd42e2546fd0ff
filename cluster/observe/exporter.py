"""Carries a sweep's numbers to Ray: metrics for Prometheus, and one line of progress into the job's status.

Ray forgets a gauge that was not set again for two of its report intervals (measured on 2.60: gone after about 20 s, with
the default interval of 10 s). So all of them are set anew every few seconds, and a trial that has ended simply stops being set.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from cluster.observe.metrics import FAMILIES, SweepMetrics
from sweeps.controller.controller import SweepController
from sweeps.journal.rows import Row

EVERY_S: Final = 4.0
SUBMISSION_KEY: Final = "job_submission_id"  # in the metadata that Ray hands to a job's driver
_log = logging.getLogger("dipsweep")


@contextmanager
def exported(controller: SweepController, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Exports the sweep of a controller while the block runs; needs a Ray that is initialised. It never harms the sweep."""
    exporter = Exporter(SweepMetrics(controller.plan.sweep, controller.state), controller.queues)
    for row in controller.journal.rows():
        exporter.take(row)
    unsubscribe = controller.subscribe(exporter.take)
    over = threading.Event()
    thread = threading.Thread(target=_keep_pushing, args=(exporter, over, every_s), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=2 * every_s)
        unsubscribe()


def _keep_pushing(exporter: Exporter, over: threading.Event, every_s: float) -> None:
    report = job_reporter()
    while True:
        ended = over.wait(every_s)  # looked at first: the last push has all rows
        try:
            exporter.push()
            report(exporter.progress())
        except Exception as e:  # numbers for people; a sweep does not end for them
            _log.warning("metrics were not exported: %s: %s", type(e).__name__, e)
        if ended:
            return


class Exporter:
    """Sets Ray's metrics to those of a sweep.

    Args:
        metrics: the numbers. queues: lengths of queues, by name, now.
    """

    def __init__(self, metrics: SweepMetrics, queues: Callable[[], Mapping[str, int]] = dict) -> None:
        self.metrics, self.queues = metrics, queues
        self._lock = threading.Lock()
        self._metrics: dict[str, Any] = {}
        self._counted: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def take(self, row: Row) -> None:
        """Takes one row in."""
        with self._lock:
            try:
                self.metrics.apply(row)
            except Exception as e:
                _log.warning("a row is missing in the metrics: %s: %s", type(e).__name__, e)

    def progress(self) -> str:
        with self._lock:
            return self.metrics.progress()

    def push(self) -> None:
        """Hands every sample to Ray."""
        with self._lock:
            samples = list(self.metrics.samples(self.queues()))
        for name, labels, value in samples:
            metric = self._metrics.get(name) or self._make(name)
            if FAMILIES[name].kind == "gauge":
                metric.set(value, tags=dict(labels))
                continue
            key = (name, frozenset(labels.items()))
            if (more := value - self._counted.get(key, 0.0)) > 0:
                metric.inc(more, tags=dict(labels))
                self._counted[key] = value

    def _make(self, name: str) -> Any:
        from ray.util.metrics import Counter, Gauge

        family = FAMILIES[name]
        kind = Gauge if family.kind == "gauge" else Counter
        self._metrics[name] = kind(name, description=family.help, tag_keys=("sweep", *family.labels))
        return self._metrics[name]


def job_reporter() -> Callable[[str], None]:
    """Returns what writes a line into the status of the Ray job that this process is the driver of; else does nothing."""
    from cluster.connect.environment import JOB_CONFIG

    try:
        job = str(json.loads(os.environ[JOB_CONFIG])["metadata"][SUBMISSION_KEY])
    except (KeyError, ValueError, TypeError):
        return lambda line: None
    from cluster.ray_internals.jobs import set_job_message

    written = ""

    def write(line: str) -> None:
        nonlocal written
        if line != written and set_job_message(job, line):
            written = line

    return write
