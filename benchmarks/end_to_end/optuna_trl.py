"""Optuna and TRL: the cells as enqueued trials of one study, two processes, the median pruner.

python -m benchmarks.end_to_end.optuna_trl median|median-late wsd|cosine OUT
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from functools import partial
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.end_to_end.common import cells, name_of, sft, space


def objective(trial: optuna.Trial, schedule: str, out: Path) -> float:
    cell = {name: trial.suggest_categorical(name, values) for name, values in space().items()}
    last = 0.0

    def report(step: int, score: float) -> bool:
        nonlocal last
        last = score
        trial.report(score, step)
        trial.set_user_attr("step", step)
        return not trial.should_prune()

    sft(cell, schedule, str(out / "models" / name_of(cell)), report)
    if trial.user_attrs["step"] < cell["steps"]:
        raise optuna.TrialPruned
    return last


def study(way: str, out: Path) -> optuna.Study:
    late = max(space()["steps"]) // 4
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=late if way == "median-late" else 0)
    storage = JournalStorage(JournalFileBackend(str(out / "study.log")))
    return optuna.create_study(
        study_name="end-to-end", storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
    )


def work(way: str, schedule: str, out: Path) -> None:
    mine = study(way, out)
    while mine.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        mine.optimize(partial(objective, schedule=schedule, out=out), n_trials=1)


def main() -> None:
    way, schedule, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
    whole = study(way, out)
    for cell in cells():
        whole.enqueue_trial(cell)
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=work, args=(way, schedule, out)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            sys.exit(f"a worker ended with {worker.exitcode}")
    found = []
    for trial in whole.get_trials():
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
            found.append({**trial.params, "reached": trial.last_step, "score": last})
    (out / "trials.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
