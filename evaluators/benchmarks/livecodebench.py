"""LiveCodeBench (Jain et al. 2024): programs for contest problems, run in the sandbox against public and private tests.

Two kinds of tests: `stdin` hands a whole program its input and compares what it prints, `functional` calls the method
of a class `Solution` and compares what it returns. All tests of a reply run one after another in one sandboxed process,
up to `SECONDS` each in sum and `LONGEST` in all (the authors: six seconds a test, every test apart).
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from evaluators.benchmarks.humaneval import code_of
from evaluators.sandbox.run import Limits, run

SECONDS: Final = 6.0
LONGEST: Final = 60.0
MEMORY_MB: Final = 1024
REQUEST: Final = "\n\nSolve this problem in Python. Answer with the whole program in one ```python block."
STDIN: Final = " It reads from standard input and writes to standard output."
STARTER: Final = " Use this code to begin with:\n\n```python\n{code}\n```"

_HARNESS: Final = """
import decimal, io, json, math, sys
_CODE = compile({code!r}, "<answer>", "exec", dont_inherit=True)
_TESTS = json.loads({tests!r})
_METHOD = {method!r}

def _same_text(said, wanted):
    a, b = ([line.rstrip() for line in text.rstrip().split("\\n")] for text in (said, wanted))
    if a == b:
        return True
    if len(a) != len(b):
        return False
    return all(_same_line(x.split(), y.split()) for x, y in zip(a, b))

def _same_line(x, y):
    return len(x) == len(y) and all(p == q or _same_number(p, q) for p, q in zip(x, y))

def _same_number(p, q):
    try:
        if "." in q or "e" in q.lower():
            return math.isclose(float(p), float(q), rel_tol=1e-6, abs_tol=1e-6)
        return decimal.Decimal(p) == decimal.Decimal(q)  # whole numbers are right to the last digit
    except (ValueError, ArithmeticError):
        return False

def _plain(value):
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value

def _open(file, mode="r", *rest, **more):
    if file not in (0, "/dev/stdin"):
        return open(file, mode, *rest, **more)
    return sys.stdin.buffer if "b" in mode else sys.stdin

def _stdin(test):
    sys.stdin = io.TextIOWrapper(io.BytesIO(test["input"].encode()))
    sys.stdout = io.TextIOWrapper(io.BytesIO())
    try:
        exec(_CODE, {{"__name__": "__main__", "open": _open}})
    except SystemExit as end:
        assert not end.code, f"exit code {{end.code}}"
    sys.stdout.flush()
    said = sys.stdout.buffer.getvalue().decode()
    assert _same_text(said, test["output"]), "wrong output"

def _functional(test):
    names = {{"__name__": "answer"}}
    exec("from typing import *\\nfrom collections import *\\nfrom math import *", names)
    exec("import bisect, functools, heapq, itertools, math", names)
    exec(_CODE, names)
    arguments = [json.loads(line) for line in test["input"].split("\\n") if line.strip()]
    found = getattr(names["Solution"](), _METHOD) if "Solution" in names else names[_METHOD]
    assert _plain(found(*arguments)) == json.loads(test["output"]), "wrong result"

for _test in _TESTS:
    (_functional if _test["testtype"] == "functional" else _stdin)(_test)
"""


def prompt_of(row: Mapping[str, Any]) -> str:
    """Writes a row as a question."""
    starter = str(row.get("starter_code") or "").strip()
    return str(row["question_content"]) + REQUEST + (STARTER.format(code=starter) if starter else STDIN)


def target_of(row: Mapping[str, Any]) -> str:
    """Returns what a reply is run against, as JSON: {method, tests}.

    Raises:
        ValueError: the tests cannot be read, or there are none.
    """
    tests = [*_tests(row["public_test_cases"]), *_tests(row.get("private_test_cases") or "[]")]
    if not tests:
        raise ValueError("public_test_cases")
    metadata = row.get("metadata") or "{}"
    facts = json.loads(metadata) if isinstance(metadata, str) else metadata
    cases = [{key: str(test[key]) for key in ("input", "output", "testtype")} for test in tests]
    return json.dumps({"method": facts.get("func_name", ""), "tests": cases}, sort_keys=True)


def _tests(packed: str | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Reads test cases: a list, JSON text, or as the private ones are kept: base64 of zlib of a pickled JSON text."""
    if not isinstance(packed, str):
        return list(packed)
    try:
        return list(json.loads(packed))
    except json.JSONDecodeError:
        text = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(packed)))).load()
        return list(json.loads(text))


class _TextOnly(pickle.Unpickler):
    """Reads pickled text and nothing that could run: a pickle that names any class is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"private_test_cases: a pickle that asks for {module}.{name}")


def solves(answer: str, target: str) -> bool:
    """True when the program in a reply passes all tests of `target_of`."""
    wanted = json.loads(target)
    program = _HARNESS.format(code=code_of(answer), tests=json.dumps(wanted["tests"]), method=wanted["method"])
    seconds = min(LONGEST, SECONDS * len(wanted["tests"]))
    return run(program, Limits(seconds=seconds, memory_mb=MEMORY_MB)).passed
