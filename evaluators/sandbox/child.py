"""The inside of the sandbox: reads a program, drops all privileges, runs it, reports how it ended. Run as a file, alone.

python -I -S -B child.py MEMORY_MB SECONDS  < WORD, newline, program
"""

import importlib.util
import os
import resource
import sys
from collections.abc import Callable

USUAL = (
    "_strptime abc array base64 bisect calendar cmath collections.abc contextlib copy csv dataclasses datetime decimal "
    "enum fractions functools hashlib heapq inspect io itertools json keyword math numbers operator pprint queue random "
    "re secrets socket statistics string struct textwrap threading time traceback types typing unicodedata zlib"
)


def main() -> None:
    word, _, program = sys.stdin.read().partition("\n")
    for name in USUAL.split():
        __import__(name)
    lock = _lock_down()
    memory, seconds = int(sys.argv[1]) << 20, int(float(sys.argv[2])) + 1
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the program prints is nobody's business
    lock()
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
        exec(code, {"__name__": "__main__"})
        said = word
    except BaseException as error:
        said = f"\n{type(error).__name__}: {error}"
    os.write(answer, said[:2000].encode())
    os._exit(0)


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
