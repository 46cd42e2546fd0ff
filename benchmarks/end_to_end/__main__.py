"""The same sweep by Ray Tune with TRL, by Optuna with TRL, and by dipsweep: what each costs and what it finds.

    python -m benchmarks.end_to_end --setup                   a virtual environment with TRL, once
    python -m benchmarks.end_to_end [--size full|third|small] [--schedule wsd|cosine] [--ways grid asha …] [--seed N] --out DIR
    python -m benchmarks.end_to_end --kill [--ways …] --out DIR    what is left 15 s after kill -9 of the driver

36 cells: 3 tiers x 2 shares of replay x 2 learning rates x budgets 100, 200, 400. Every way runs as a program of its own, one
after the other; DIR/WAY.json is written as each ends, and a way that is there is not run again. CPU seconds count every
process of a way, start-up included: on a shared machine they say more than wall-clock time. What a way calls its best is
scored again by one evaluator on other items. `--size third` leaves 12 cells (2 tiers, one rate), `small` 4 of 40 steps that only
try the machinery.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.end_to_end.common import METRIC, SIZES, name_of
from benchmarks.end_to_end.table import tables
from benchmarks.scale.start_up import CpuMeter

HERE = Path(__file__).parent
TRL = "trl==1.16.0"
WAYS = {
    "dipsweep": ["dipsweep_way", "strict"],
    "dipsweep-soft": ["dipsweep_way", "soft"],
    "grid": ["tune_trl", "grid"],
    "grid-reused": ["tune_trl", "grid-reused"],
    "asha": ["tune_trl", "asha"],
    "asha-late": ["tune_trl", "asha-late"],
    "optuna-median": ["optuna_trl", "median"],
    "optuna-median-late": ["optuna_trl", "median-late"],
}
AGAIN = {"items": 300, "seed": 1}
"""The common re-evaluation: other items than those of the sweep, more of them."""
WRITTEN = {
    "dipsweep_way": ["sweep.yaml"],
    "tune_trl": ["tune_trl.py", "common.py"],
    "optuna_trl": ["optuna_trl.py", "common.py"],
}


def setup(folder: Path) -> None:
    """Makes a virtual environment that sees this one's packages and holds TRL."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(site.stdout.strip()) / "dipsweep.pth").write_text(sysconfig.get_path("purelib") + "\n")
    constraints = HERE.parents[1] / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", TRL, "-c", str(constraints)], check=True)


def command(way: str, a: argparse.Namespace, out: Path) -> tuple[list[str], dict[str, str]]:
    """Returns how a way is started, and in which environment."""
    module, how = WAYS[way]
    python = sys.executable if module == "dipsweep_way" else str(a.venv / "bin" / "python")
    path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    env |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    return [python, "-m", f"benchmarks.end_to_end.{module}", how, a.schedule, str(out)], env


def once(way: str, a: argparse.Namespace) -> dict[str, Any]:
    """Runs a way to its end."""
    out = a.out / way
    out.mkdir(parents=True)
    words, env = command(way, a, out)
    began, load = time.monotonic(), os.getloadavg()[0]
    with CpuMeter() as cpu, open(out / "log", "w", encoding="utf-8") as log:
        done = subprocess.run(words, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
    end_children()  # Ray leaves some behind; they would count in the next way
    if done.returncode:
        sys.exit(f"{way} ended with {done.returncode}: {out / 'log'}")
    found = json.loads((out / "trials.json").read_text())
    for trial in found:
        trial["cell"] = name_of(trial)
        if (trial["reached"] or 0) >= trial["steps"]:
            trial.setdefault("model", str(out / "models" / trial["cell"]))
    steps = out / "steps_run"  # of a way whose trials share steps
    return {
        "way": way,
        "schedule": a.schedule,
        "size": a.size,
        "seed": a.seed,
        "cores": len(os.sched_getaffinity(0)),
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(cpu.seconds, 1),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "steps": int(steps.read_text()) if steps.exists() else sum(t["reached"] or 0 for t in found),
        "lines": lines_written(WAYS[way][0]),
        "trials": found,
    }


def end_children() -> None:
    """Ends every process that this one, or one of its children, has started."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def lines_written(module: str) -> int:
    """Lines that a user writes: neither empty nor comment."""
    texts = [(HERE / name).read_text(encoding="utf-8") for name in WRITTEN[module]]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for text in texts for line in text.splitlines())


def score_again(result: dict[str, Any]) -> None:
    """Scores every run that reached its budget on other items."""
    from evaluators.evaluate import evaluate
    from sweeps.config.trial import EvalSpec

    for trial in result["trials"]:
        if trial.get("model") and "again" not in trial:
            scores = evaluate(Path(trial["model"]), EvalSpec("mini", AGAIN["items"]), seed=AGAIN["seed"])
            trial["again"], trial["again_se"] = scores.metrics[METRIC], scores.se[METRIC]


def kill(way: str, a: argparse.Namespace) -> dict[str, Any]:
    """Kills the driver of a way in the middle; says what of its processes is left after 15 seconds, and ends it."""
    out = a.out / f"{way}-killed"
    out.mkdir(parents=True)
    words, env = command(way, a, out)
    with CpuMeter(), open(out / "log", "w", encoding="utf-8") as log:
        driver = subprocess.Popen(words, env=env, stdout=log, stderr=subprocess.STDOUT)
        time.sleep(a.after)
        if driver.poll() is not None:
            sys.exit(
                f"{way} had ended within {a.after:g} s, with {driver.returncode}: {out / 'log'}; expected a smaller --after"
            )
        before = psutil.Process().children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(15)
        left = [p for p in before if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        mib = sum(p.memory_info().rss for p in left) / 2**20
        names = sorted({p.name() for p in left})
        end_children()
    return {"way": way, "processes": len(before), "left": len(left), "mib": round(mib), "names": names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=Path.home() / ".cache" / "dipsweep" / "trl")
    parser.add_argument("--setup", action="store_true")
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--after", type=float, default=45.0, help="seconds after which --kill kills")
    parser.add_argument("--schedule", choices=("wsd", "cosine"), default="wsd")
    parser.add_argument("--seed", type=int, default=0, help="of the runs; the spread of the table over several")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if a.setup:
        setup(a.venv)
        return
    if a.out is None:
        parser.error("--out DIR is needed")
    os.environ["E2E_SIZE"], os.environ["E2E_SEED"] = a.size, str(a.seed)
    a.out = a.out.resolve()
    if a.kill:
        for way in a.ways:
            print(json.dumps(kill(way, a)), flush=True)
        return
    results = {}
    for way in a.ways:
        file = a.out / f"{way}.json"
        if not file.exists():
            result = once(way, a)
            score_again(result)
            file.write_text(json.dumps(result, indent=1))
        results[way] = json.loads(file.read_text())
        print(f"{way}: {results[way]['wall_s']} s, {results[way]['cpu_s']} CPU s", file=sys.stderr, flush=True)
    print(tables(list(results.values())))


if __name__ == "__main__":
    main()
