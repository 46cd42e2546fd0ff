"""From `submit` to the first training step on a warm local cluster: ours against bare Tune + Train doing the same.

    python -m benchmarks.scale.first_step [--repeats 5]

One Ray head runs all the time. In turns, `dipsweep submit` sends a sweep of one trial, and `ray job submit` a program that runs
the same training function on the same model and data by Tune and Train alone (`drive`, below). The clock starts with the
command and stops when the checkpoint of step 1 is whole. The two take turns, so that a busy machine is busy for both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from sweeps.config.plan import Plan
from sweeps.config.trial import Saved, TrialSpec, attempt_folder

REPO = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MANIFEST = "step-000001/manifest.json"
SWEEP = """
name: first
seed: {seed}
trainer: {{steps: 1, batch_tokens: 256, max_length: 128}}
evaluation: {{items: 1, at: [1]}}
"""


class BareHooks:
    """The way out of the training loop that Ray Train has."""

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        import ray.train

        ray.train.report(dict(metrics))

    def saved(self, checkpoint: Saved) -> None: ...

    def stop_asked(self) -> bool:
        return False


def bare_worker(config: dict[str, Any]) -> None:
    """The training function under Ray Train."""
    from trainers.loop import train

    train(config["trial"], BareHooks(), folder=Path(config["folder"]))


def drive(config: dict[str, Any]) -> None:
    """The Tune function that Ray's own guide shows for Tune with Train."""
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        bare_worker,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name="bare", storage_path=config["root"], callbacks=[TuneReportCallback()]),
    ).fit()


def bare(sweep_file: Path, root: str) -> None:
    """The program that `ray job submit` runs."""
    from ray import tune

    trial, folder = trial_of(sweep_file, root)
    tune.Tuner(
        tune.with_resources(drive, {"cpu": 0.1}),
        param_space={"trial": trial, "folder": str(folder), "root": root},
        run_config=tune.RunConfig(name="tune", storage_path=root, verbose=0),
    ).fit()


def trial_of(sweep_file: Path, root: str) -> tuple[TrialSpec, Path]:
    """Returns the only trial of a sweep, and where its first attempt saves."""
    from sweeps.config.sweep_file.yaml import load

    plan = Plan(load(sweep_file))
    (trial,) = plan.known_trials()
    return trial, attempt_folder(root, plan.sweep_id, trial.id, 1)


def timed(name: str, folder: Path, turn: int, head: Any) -> float:
    """Runs one of the two; returns the seconds from the command to the end of its first step."""
    sweep_file, root = folder / f"{name}-{turn}.yaml", str(folder / f"{name}-{turn}")
    sweep_file.write_text(SWEEP.format(seed=2 * turn + (name == "bare")))
    program = f"cd {REPO} && {sys.executable} -m benchmarks.scale.first_step --bare {sweep_file} {root}"
    commands = {
        "ours": ["dipsweep", "submit", str(sweep_file), "--address", head.url, "--storage", root, "--python", sys.executable],
        "bare": ["ray", "job", "submit", "--address", head.url, "--no-wait", "--", "bash", "-c", program],
    }  # fmt: skip
    manifest = trial_of(sweep_file, root)[1] / MANIFEST
    command = commands[name]
    began = time.time()
    subprocess.run([BIN / command[0], *command[1:]], env=head.env, check=True, stdout=subprocess.DEVNULL)
    sent = time.time() - began
    while not manifest.exists():
        if time.time() - began > 300:
            raise TimeoutError(f"{name}: no step in 300 s; see {folder}/ray/session_latest/logs")
        time.sleep(0.02)
    seconds = manifest.stat().st_mtime - began
    until_idle(head)
    print(f"{name} {seconds:.1f} s, {sent:.1f} of it the command{'' if turn else ' (warm-up)'}", flush=True)
    return seconds


def until_idle(head: Any) -> None:
    """Waits until no job runs any more."""
    from cluster.jobs.client import Jobs

    jobs: Callable[[], list[Any]] = Jobs.at(head.url, head.token_file)._client.list_jobs
    while any(not job.status.is_terminal() for job in jobs() if job.submission_id):
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bare", nargs=2, metavar=("SWEEP", "ROOT"), help="be the job of the other side")
    a = parser.parse_args()
    if a.bare:
        bare(Path(a.bare[0]), a.bare[1])
        return
    from tests.support.machines.heads import head_node

    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with (
        TemporaryDirectory(prefix="dsf", dir="/tmp", ignore_cleanup_errors=True) as folder,
        head_node(Path(folder), cpus=4) as head,
    ):
        for turn in range(a.repeats + 1):
            for name in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                seconds = timed(name, Path(folder), turn, head)
                if turn:  # the first of each warms the file cache and sends the code
                    times[name].append(seconds)
    ours, other = median(times["ours"]), median(times["bare"])
    print(f"median of {a.repeats}: ours {ours:.1f} s, bare {other:.1f} s, {ours / other:.2f} x; "
          f"turn by turn {', '.join(f'{x / y:.2f}' for x, y in zip(times['ours'], times['bare'], strict=True))}")  # fmt: skip


if __name__ == "__main__":
    main()
