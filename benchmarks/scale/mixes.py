"""Mixed sizes on fake GPUs, by arithmetic alone: how full is the cluster, who waits how long, does it ever stand still?

    python -m benchmarks.scale.mixes [--mixes 50] [--trials 200] [--nodes 4] [--gpus 8] [--blind]

Every mix draws its sizes (1, 2, 4, 8), run times and order anew. What a trial is expected to take is wrong by a factor
between 0.5 and 2 for every trial, and unknown until the first trial of its size has ended. Once a tenth of a run is done its
own pace is known, as the gate knows it from the steps that it hears of; with `--blind` it never is.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass, field, replace
from statistics import mean

from cluster.resources.backfill import BackfillScheduler, Group, Pace, Running, Waiting

SIZES = (1, 2, 4, 8)
LOOK = 64  # how far down the line the executor looks
HEARD = 0.1  # share of a run after which its own pace tells when it ends


@dataclass(frozen=True)
class Job:
    trial: str
    size: int
    seconds: float
    expected: float


@dataclass
class Result:
    """What came of one mix; `starts` and `headed` (when it came to stand at the head of the line) are by trial."""

    starts: dict[str, float] = field(default_factory=dict)
    headed: dict[str, float] = field(default_factory=dict)
    makespan: float = 0.0
    peak: float = 0.0


def draw(seed: int, trials: int) -> list[Job]:
    """Draws a mix: weights of the sizes, run times of one to ten units, and a wrong expectation of each."""
    rng = random.Random(seed)
    weights = [rng.random() + 0.05 for _ in SIZES]
    jobs = []
    for i in range(trials):
        size, seconds = rng.choices(SIZES, weights)[0], rng.uniform(1, 10)
        jobs.append(Job(f"t{i:03d}", size, seconds, seconds * 2 ** rng.uniform(-1, 1)))
    return jobs


def run(jobs: list[Job], nodes: dict[str, float], look: int = LOOK, heard: float = HEARD) -> Result:
    """Runs a mix to its end under `BackfillScheduler`; with `look` 1 strictly in order, with `heard` 1 blind to a trial's pace.

    Raises:
        RuntimeError: trials wait, nothing runs and nothing starts.
    """
    free, line, backfill, result = dict(nodes), list(jobs), BackfillScheduler(), Result()
    running: list[tuple[float, str, Job, dict[str, int]]] = []
    seen, now = Pace(), 0.0
    while line or running:
        while line:
            waiting = [_waiting(j, seen) for j in line[:look]]
            if len(line) < look:
                waiting = backfill.order(waiting, {n: {"GPU": gpus} for n, gpus in nodes.items()})
            result.headed.setdefault(waiting[0].trial, now)
            choice = backfill.choose(
                {n: {"GPU": f} for n, f in free.items()},
                waiting,
                [_running(end, j, placed, result.starts[j.trial], now, seen, heard) for end, _, j, placed in running],
                now,
            )
            if choice is None:
                break
            job = next(j for j in line if j.trial == choice.trial)
            line.remove(job)
            for node, count in choice.placed.items():
                free[node] -= count
                assert free[node] >= 0, "over-committed"
            heapq.heappush(running, (now + job.seconds, job.trial, job, dict(choice.placed)))
            result.starts[job.trial] = now
            result.peak = max(result.peak, sum(nodes.values()) - sum(free.values()))
        if not running:
            raise RuntimeError(f"deadlock: {len(line)} trials wait on an empty cluster")
        now, _, job, placed = heapq.heappop(running)
        seen.learn(str(job.size), 1, job.seconds)
        for node, count in placed.items():
            free[node] += count
    result.makespan = now
    return result


def _waiting(job: Job, seen: Pace) -> Waiting:
    known = seen.expect(str(job.size), 1) is not None
    return Waiting(job.trial, Group({"GPU": 1.0}, job.size, job.size), job.expected if known else None)


def _running(
    end: float, job: Job, placed: dict[str, int], start: float, now: float, seen: Pace, heard: float
) -> Running:
    if now - start >= heard * job.seconds:
        return Running({"GPU": 1.0}, placed, end - now)
    known = seen.expect(str(job.size), 1) is not None
    return Running({"GPU": 1.0}, placed, max(0.0, start + job.expected - now) if known else None)


def bound(jobs: list[Job], gpus: float) -> float:
    """Returns the shortest time in which any packing could be done: all work on all GPUs, or the longest trial."""
    return max(sum(j.size * j.seconds for j in jobs) / gpus, max(j.seconds for j in jobs))


def clairvoyant(jobs: list[Job], nodes: dict[str, float]) -> float:
    """Returns the time of a packer that may reorder everything and knows every run time: longest first, then backfilled."""
    known = [replace(job, expected=job.seconds) for job in jobs]
    return run(sorted(known, key=lambda job: -job.seconds), nodes, look=len(jobs)).makespan


def fullness(jobs: list[Job], result: Result, gpus: float) -> float:
    """Returns the share of all GPUs in use from the first start until the last trial leaves the line.

    1 is what a packing can reach while there is something to pack; after that the cluster only runs out.
    """
    last, by_id = max(result.starts.values()), {j.trial: j for j in jobs}
    used = sum(min(by_id[t].seconds, last - start) * by_id[t].size for t, start in result.starts.items())
    return used / (last * gpus)


def fair(jobs: list[Job], nodes: dict[str, float]) -> dict[str, float]:
    """Returns when each trial is to have started: as early as strictly in order, plus two of the longest runs."""
    in_order = run(jobs, nodes, look=1).starts
    return {trial: start + 2 * max(j.seconds for j in jobs) for trial, start in in_order.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixes", type=int, default=50)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--blind", action="store_true")
    a = parser.parse_args()
    heard = 1.0 if a.blind else HEARD
    nodes, gpus = {f"n{i}": float(a.gpus) for i in range(a.nodes)}, float(a.gpus * a.nodes)
    rows: dict[str, list[float]] = {name: [] for name in ("full", "strict", "makespan", "knowing", "late", "head")}
    for seed in range(a.mixes):
        jobs = draw(seed, a.trials)
        result, strict, limits = run(jobs, nodes, heard=heard), run(jobs, nodes, look=1), fair(jobs, nodes)
        rows["full"].append(fullness(jobs, result, gpus))
        rows["strict"].append(fullness(jobs, strict, gpus))
        rows["makespan"].append(bound(jobs, gpus) / result.makespan)
        rows["knowing"].append(clairvoyant(jobs, nodes) / result.makespan)
        rows["late"].append(sum(result.starts[t] > limits[t] for t in limits))
        rows["head"].append(
            max(result.starts[t] - t0 for t, t0 in result.headed.items()) / max(j.seconds for j in jobs)
        )
    print(f"{a.mixes} mixes of {a.trials} trials on {a.nodes} nodes of {a.gpus} fake GPUs; every mix ran to its end")
    print(f"GPUs in use while trials wait:        mean {mean(rows['full']):.3f}, worst {min(rows['full']):.3f}")
    print(f"  the same, strictly in order:        mean {mean(rows['strict']):.3f}, worst {min(rows['strict']):.3f}")
    print(f"work / GPUs, over the whole makespan: mean {mean(rows['makespan']):.3f}, worst {min(rows['makespan']):.3f}")
    print(
        f"makespan, longest first and knowing all / ours: mean {mean(rows['knowing']):.3f}, worst {min(rows['knowing']):.3f}"
    )
    print(f"trials later than their fair bound: {sum(rows['late']):g} of {a.mixes * a.trials}")
    print(f"longest wait at the head of the line, in longest runs: {max(rows['head']):.2f} (2 where expectations hold)")


if __name__ == "__main__":
    main()
