"""What vLLM's worker processes import: they end with the evaluator that started them.

vLLM's engine and worker are processes of their own. When an evaluator is killed they would go on for ever and keep the GPU's
memory. This module watches the evaluator from within the worker, from its import on: before a model is loaded.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import Final

EVALUATOR: Final = "DIPSWEEP_EVALUATOR_PID"
"""Environment variable: the process that the engine belongs to."""


class EndsWithEvaluator:
    """vLLM's `worker_extension_cls`: it adds nothing to the worker, naming it has this module imported there."""


def watch_evaluator() -> threading.Thread | None:
    """Starts a thread that ends this process, and the engine above it, once the evaluator is gone."""
    evaluator = int(os.environ.get(EVALUATOR, 0))
    if not evaluator or evaluator == os.getpid():
        return None
    thread = threading.Thread(target=_wait_and_end, args=(evaluator,), daemon=True, name="watch-evaluator")
    thread.start()
    return thread


def _wait_and_end(evaluator: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone already
        handle = os.pidfd_open(evaluator)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll()
        finally:
            os.close(handle)
    engine = os.getppid()
    if engine not in (1, evaluator):
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


watch_evaluator()
