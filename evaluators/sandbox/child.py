"""The inside of the sandbox: reads a program, drops all privileges, runs it, reports how it ended. Run as a file, alone.

python -I -S -B child.py MEMORY_MB SECONDS  < WORD, newline, program

The program is a module named `answer`: what it would do as a script, under `if __name__ == "__main__"`, is not asked.

It says BEGUN before it looks at the program, LOCKED when the doors are closed, and then how the program ended.
"""

import ast
import contextlib
import importlib.util
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterable, Iterator

USUAL = (
    "_strptime abc array base64 bisect calendar cmath collections.abc contextlib copy csv dataclasses datetime decimal "
    "enum fractions functools hashlib heapq inspect io itertools json keyword math numbers operator pprint queue random "
    "re secrets socket statistics string struct textwrap threading time traceback types typing unicodedata zlib"
)
ON_REQUEST = (
    "argparse ast asyncio binascii cProfile codecs colorsys concurrent configparser contextvars difflib dis doctest email "
    "fileinput gc getopt getpass glob graphlib gzip hmac html http ipaddress linecache locale logging marshal mmap "
    "multiprocessing optparse pathlib pickle pkgutil platform posixpath profile pstats sched select selectors shelve shlex "
    "shutil signal sqlite3 stat subprocess symtable tempfile textwrap timeit tracemalloc unittest urllib uuid weakref xml "
    "zipfile zoneinfo"
)
"""Imported beforehand where the program names them, since nothing can be opened afterwards."""


ASKS_TO_END = "SIGHUP SIGINT SIGQUIT SIGTERM SIGUSR1 SIGUSR2 SIGPWR"
"""What batch systems and service managers send to all processes of a job; the program cannot send them, and has not failed."""

BEGUN, LOCKED = b"begun\n", b"locked\n"


def main() -> None:
    _import(USUAL.split())
    lock = _lock_down()
    word, _, program = sys.stdin.read().partition("\n")
    answer = os.dup(1)
    for name in ASKS_TO_END.split():
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    os.write(answer, BEGUN)  # whoever is ended before this is begun anew
    _import(_named(program))
    memory, seconds = int(sys.argv[1]) << 20, int(float(sys.argv[2])) + 1
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    # SIGXCPU comes first: by SIGKILL the parent knows a machine that ran out of memory.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 60))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the program prints is nobody's business
    lock()
    os.write(answer, LOCKED)
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
        module = sys.modules["answer"] = types.ModuleType("answer")
        exec(code, module.__dict__)
        said = word
    except BaseException as error:
        said = f"\n{type(error).__name__}: {error}"
    os.write(answer, said[:2000].encode())
    os._exit(0)


def _import(names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):  # the program will miss it itself
            __import__(name)


def _named(program: str, depth: int = 0) -> Iterator[str]:
    """Yields the modules of ON_REQUEST that a program imports, or a program in one of its strings."""
    try:
        nodes = list(ast.walk(ast.parse(program)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            names = []
        yield from (name for name in names if name.partition(".")[0] in ON_REQUEST.split() and "__main__" not in name)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value and not depth:
            yield from _named(node.value, 1)


def _lock_down() -> Callable[[], None]:
    """Loads the neighbouring module by path: an isolated interpreter does not know the package."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp.py")
    spec = importlib.util.spec_from_file_location("seccomp", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lock: Callable[[], None] = module.lock_down
    return lock


if __name__ == "__main__":
    main()
