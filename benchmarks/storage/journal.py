"""What the journal costs: CPU per row written, and the time to read 100,000 rows back.

python -m benchmarks.storage.journal [--rows 100000] [--where FOLDER_OR_URL] [--batch 10] [--rest 10000]
python -m benchmarks.storage.journal --s3 --rest 5      in a bucket of a server on this machine, as drivers write: 20,000 objects
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from sweeps.journal.compaction import listed
from sweeps.journal.rows import ReportRow, Row
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.storage.factory import open_store
from tests.support.machines.s3 import S3Server


def report(i: int) -> Row:
    """A scored report as a real sweep writes it: nine metrics with errors and counts, about 800 bytes."""
    names = [f"{role}/score" for role in ("math", "transfer", "general", "safety")]
    names += ["math/in_domain", "general/gcd", "general/sorting", "length/mean", "safety/refusal"]
    return ReportRow("bench-00000000", f"t-{i % 200:08x}", 1, i // 200, budget=640,
        metrics=dict.fromkeys(names, i % 97 / 97), se=dict.fromkeys(names, 0.018), n=dict.fromkeys(names, 300),
        suite="mini@3f2e1a",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--one-by-one", type=int, default=2_000, help="rows that are each made durable on their own")
    parser.add_argument("--batch", type=int, default=10, help="rows of a batch, as a driver takes in a turn's news")
    parser.add_argument("--rest", type=int, default=10_000, help="rows of a batch when the log is filled up")
    parser.add_argument("--where", default="")
    parser.add_argument("--s3", action="store_true", help="start an S3 server of its own for it (seaweedfs)")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not a.s3:
            measure(a, folder)
            return
        server = S3Server(Path(folder))
        server.start()
        os.environ |= server.environment()
        try:
            a.where = "s3://sweeps/bench"
            measure(a, folder)
        finally:
            server.kill()


def measure(a: argparse.Namespace, folder: str) -> None:
    home = open_store(a.where or folder) / f"bench-{os.getpid()}"
    out: dict[str, object] = {"where": home.root, "rows": a.rows, "bytes": len(report(1).line())}
    with SweepJournal(home) as journal:
        out["one by one"] = _write(journal, a.one_by_one, 1)
        out[f"in batches of {a.batch}"] = _write(journal, a.one_by_one, a.batch)
        out[f"the rest in batches of {a.rest}"] = _write(journal, a.rows - len(journal.rows()), a.rest)
    cpu, wall = time.process_time(), time.perf_counter()
    rows = read_rows(home)
    spent = {"cpu_s": _since(cpu), "wall_s": _wall(wall)}
    pieces, packs = listed(home)
    out["read"] = {"rows": len(rows), "segments": len(pieces), "packs": len(packs), **spent}
    cpu, wall = time.process_time(), time.perf_counter()
    SweepJournal(home).close()
    out["open for writing"] = {"cpu_s": _since(cpu), "wall_s": _wall(wall)}
    if a.where:
        (open_store(a.where)).delete_tree(home.name)
    print(json.dumps(out, indent=1))


def _write(journal: SweepJournal, count: int, batch: int) -> dict[str, float]:
    rows = [report(i) for i in range(count)]
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, count, batch):
        with journal.batch():
            for row in rows[start : start + batch]:
                journal.append(row)
    return {
        "cpu_ms_per_row": round(_since(cpu) / count * 1000, 4),
        "wall_ms_per_row": round(_wall(wall) / count * 1000, 4),
    }


def _since(cpu: float) -> float:
    return round(time.process_time() - cpu, 3)


def _wall(start: float) -> float:
    return round(time.perf_counter() - start, 3)


if __name__ == "__main__":
    main()
