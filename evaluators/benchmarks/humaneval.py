"""HumanEval (Chen et al. 2021) from the package that its authors publish, executed in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from evaluators.benchmarks.rows import benchmark_rows
from evaluators.sandbox.run import Limits, run
from evaluators.tasks import EvalTask

CAP: Final = 1024
LIMITS: Final = Limits(seconds=10.0)
"""The slowest of the 164 reference solutions takes 1.2 s of wall time on a busy core."""
REQUEST: Final = "Complete this Python function. Answer with the whole function in one ```python block.\n\n```python\n"


def problems(package: Path) -> list[dict[str, Any]]:
    """Reads the 164 problems: task_id, prompt, entry_point, canonical_solution, test."""
    return [dict(row) for row in benchmark_rows(package / "data" / "HumanEval.jsonl.gz").values()]


def task(rows: list[dict[str, Any]]) -> EvalTask:
    """Returns HumanEval as a transfer task; each answer runs against the problem's own tests."""

    def right(i: int, answer: str) -> bool:
        return run(program(rows[i], answer), LIMITS).passed

    prompts = tuple(f"{REQUEST}{row['prompt']}```" for row in rows)
    targets = tuple(f"{row['task_id']} {row['test']}" for row in rows)
    return EvalTask("humaneval", "transfer", prompts, targets, CAP, {"transfer/humaneval": right})


def program(row: dict[str, Any], answer: str) -> str:
    """Puts an answer and the problem's tests together.

    An answer that does not define the function is taken for its body, as base models write it.
    """
    code = code_of(answer, row["entry_point"])
    whole = _defines(code, row["entry_point"])
    head = row["prompt"].split(f"def {row['entry_point']}")[0] if whole else row["prompt"]
    if not whole and not code[:1].isspace():
        code = f"    {code}"  # a reply begins without white space, its other lines keep theirs
    return f"{head}{code}\n{row['test']}\ncheck({row['entry_point']})\n"


def _defines(code: str, name: str) -> bool:
    return re.search(rf"^def {re.escape(name)}\b", code, flags=re.MULTILINE) is not None


class _Block(NamedTuple):
    language: str
    code: str


def code_of(answer: str, name: str = "") -> str:
    """Returns the last fenced block of Python, else the last without a language, else the last; the whole answer where there
    is no block: examples and output that follow the program have blocks of their own.

    Args:
        name: of a function; where blocks define it, one of those.
    """
    blocks = list(_blocks(answer))
    if name:
        blocks = [block for block in blocks if _defines(block.code, name)] or blocks
    for wanted in (r"py(?:thon)?[\d.]*", "", ".*"):  # pycon is a session, not a program
        if found := [block.code for block in blocks if re.fullmatch(wanted, block.language)]:
            return found[-1]
    return answer


def _blocks(answer: str) -> Iterator[_Block]:
    """Yields the fenced blocks of a reply; the last one may have been cut off."""
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for line in answer.replace("\r\n", "\n").split("\n"):
        if opened is None:
            opened, lines = _opening(line), []
            continue
        before, fence, behind = line.rpartition(opened["fence"])
        if fence and not behind.strip("`~ \t"):
            lines += [before] if before.strip() else []
            yield _block(opened, lines)
            opened = None
        else:
            lines.append(line)
    if opened is not None:
        yield _block(opened, lines)


def _opening(line: str) -> re.Match[str] | None:
    if line.count("```") > 1:  # code within a sentence
        return None
    return re.search(r"(?P<fence>(?<!`)`{3,}+|(?<!~)~{3,}+)[ \t]*+\{?\.?(?P<language>[\w+#-]*+)[^`]*+$", line)


def _block(opened: re.Match[str], lines: list[str]) -> _Block:
    """A fence that is indented, as within a list, indents its block."""
    before = opened.string[: opened.start()]
    indent = before if not before.strip() else ""
    code = "".join(f"{line.removeprefix(indent)}\n" for line in lines)
    return _Block(opened["language"].lower(), code)
