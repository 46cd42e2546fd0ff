"""What one attempt must not leave to the next in its process: random states, global settings, threads, open files."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from cluster.train.process_settings import changed, current, put_back

MOST_FILES: Final = 64
"""So many files more may be open than after the first attempt, since when CUDA and NCCL have theirs."""
LEFT_BEHIND = 2**26  # bytes of GPU memory that may stay allocated after an attempt; a leaked model is far more
ACCEPTS: Final = 0x10000  # the kernel's flag of a Unix socket that is listened on
IDLE: Final = ("concurrent/futures/thread.py", "multiprocessing/pool.py", "selectors.py")
"""Where threads of libraries wait for work: pools and event loops."""


@dataclass(slots=True)
class ProcessState:
    """A process as its first attempt found it.

    Take it before anything of an attempt has run. `doubt` after an attempt and `restore` before the next make attempts equal
    to those in processes of their own. What the code of a training function replaces in other modules is not seen.
    """

    torch_rng: torch.Tensor
    python_rng: Any
    numpy_rng: Any
    settings: dict[str, Any]
    environ: dict[str, str]
    folder: str
    import_path: list[str]
    handlers: dict[int, Any]
    going_on: set[str] = field(default_factory=lambda: set(_going_on(idle=True)))
    own: set[str] = field(default_factory=set)
    """Modules that an attempt imported from folders which it put on the import path itself."""
    kept: set[str] | None = None
    """What was there after the first attempt: idle pools, handlers of logs, functions for the end of the process."""
    files: int = 0
    """How many files were open then."""

    @classmethod
    def capture(cls) -> ProcessState:
        """Returns the state of this process now; creates no CUDA context."""
        return cls(
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state(),
            current(),
            dict(os.environ),
            os.getcwd(),
            list(sys.path),
            _signal_handlers(),
        )

    def restore(self) -> None:
        """Puts back what can be. Random numbers on the GPU start anew from the CPU's seed, as in a new process."""
        torch.set_rng_state(self.torch_rng)
        if _on_gpu():
            torch.cuda.manual_seed_all(torch.initial_seed())
        random.setstate(self.python_rng)
        np.random.set_state(self.numpy_rng)
        put_back(self.settings)
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
            time.tzset()
        os.chdir(self.folder)
        more = [folder for folder in dict.fromkeys(sys.path) if folder not in self.import_path]
        # A package that is installed may add a folder of its own, once, such as setuptools: it is every attempt's.
        installed = [folder for folder in more if _is_installed(folder, self.import_path)]
        self.own |= _modules_in(set(more) - set(installed))
        sys.path[:] = [*self.import_path, *installed]
        faulthandler.cancel_dump_traceback_later()  # it may be told to end the process
        torch.clear_autocast_cache()

    def doubt(self) -> str:
        """Frees and puts back what can be; returns why this process should not run another attempt, empty when it may."""
        try:
            self.restore()
            different = changed(self.settings)
        except Exception as e:  # whatever it is, it is not the next attempt's
            return f"a setting cannot be put back: {type(e).__name__}: {e}"
        if different:
            return f"{different[0]}: not as it was, and only a new process puts it back"
        if self.own:
            return f"module {min(self.own)} was imported from a folder that the attempt put on the path"
        self._collect()
        if _on_gpu():
            torch.cuda.empty_cache()
            left = max(torch.cuda.memory_allocated(i) for i in range(torch.cuda.device_count()))
            if left > LEFT_BEHIND:
                return f"{left / 2**20:.0f} MiB of GPU memory are still allocated"
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)
        if other := [n for n, handler in _signal_handlers().items() if handler != self.handlers[n]]:
            return f"handles {signal.Signals(other[0]).name} in another way"
        kept, files = set(_kept()), len(os.listdir("/proc/self/fd"))
        if self.kept is None:
            self.kept, self.files = kept, files
        if files > self.files + MOST_FILES:
            return f"{files - self.files} files more are open than after the first attempt"
        return "; ".join(sorted((set(_going_on()) - self.going_on) | (kept - self.kept)))

    def _collect(self) -> None:
        """Frees what only garbage collection frees, such as a model with references in a circle.

        What is left after the first attempt are modules by the thousand. To look at them again after every other one took
        0.29 s of CPU, so they are put aside.
        """
        gc.collect()
        if self.kept is None:
            gc.freeze()


def _modules_in(folders: set[str]) -> set[str]:
    """Returns the names of imported modules whose file lies directly in one of these folders; packages count as a whole."""
    if not folders:
        return set()
    tops = {name: module for name, module in list(sys.modules.items()) if "." not in name}
    homes = {name: Path(getattr(module, "__file__", None) or "/").parent for name, module in tops.items()}
    roots = {Path(folder).absolute() for folder in folders}
    return {name for name, home in homes.items() if roots & {home.absolute(), home.absolute().parent}}


def _is_installed(folder: str, import_path: Sequence[str]) -> bool:
    """True for a folder inside one of those into which packages are installed."""
    homes = [Path(home) for home in import_path if Path(home).name in ("site-packages", "dist-packages")]
    return any(Path(folder).is_relative_to(home) for home in homes)


def _signal_handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _going_on(*, idle: bool = False) -> Iterator[str]:
    """Yields what goes on or stays open: threads, processes, files open for writing, sockets that listen.

    Args:
        idle: idle threads of pools and event loops too.
    """
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread is threading.current_thread() or frame is None:
            continue
        if idle or not frame.f_code.co_filename.endswith(IDLE):
            yield f"thread {thread.name} still runs"
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # that thread has ended meanwhile
            children = task.read_text().split()
            yield from (f"process {pid} still runs" for pid in children)
    listening = _listening()
    for link in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(link)
            flags = Path(f"/proc/self/fdinfo/{link.name}").read_text().split("flags:")[1].split()[0]
            regular = stat.S_ISREG(link.stat().st_mode)
        except (OSError, IndexError):  # closed meanwhile
            continue
        if regular and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
            yield f"{target} is still open"
        if target in listening:
            yield f"{listening[target]} is still listened on"


def _listening() -> dict[str, str]:
    """Returns the TCP ports and Unix sockets that are listened on in this network namespace, by the name of their socket under
    /proc."""
    found = {}
    for line in (*_table("tcp"), *_table("tcp6")):
        with contextlib.suppress(ValueError):
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                found[f"socket:[{inode}]"] = f"port {int(local.rpartition(':')[2], 16)}"
    for line in _table("unix"):
        with contextlib.suppress(ValueError):
            _, _, _, flags, _, _, inode, *name = line.split(maxsplit=7)
            if int(flags, 16) & ACCEPTS:
                found[f"socket:[{inode}]"] = f"socket {''.join(name)}"
    return found


def _table(name: str) -> list[str]:
    """Returns the sockets of a kind, a line each; none where the kernel does not tell, or not as Linux does."""
    try:
        return Path(f"/proc/self/net/{name}").read_text(errors="replace").splitlines()[1:]
    except OSError:
        return []


def _kept() -> Iterator[str]:
    """Yields what libraries set up once, when they are first used; more of it after each attempt is not theirs."""
    threads = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    yield from (f"thread {name} is still there" for name in threads)
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            yield from (
                f"handler {i + 1} of log {name}, {each!r}, is still there" for i, each in enumerate(logger.handlers)
            )
    yield from (f"function {i + 1} for the end of the process is still there" for i in range(atexit._ncallbacks()))


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
