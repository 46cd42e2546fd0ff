"""HumanEval (Chen et al. 2021) from the package that its authors publish, executed in the sandbox."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

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
    code = code_of(answer)
    whole = re.search(rf"^def {re.escape(row['entry_point'])}\b", code, flags=re.MULTILINE) is not None
    head = row["prompt"].split(f"def {row['entry_point']}")[0] if whole else row["prompt"]
    return f"{head}{code}\n{row['test']}\ncheck({row['entry_point']})\n"


def code_of(answer: str) -> str:
    """Returns the last fenced block, or the whole answer where there is none."""
    blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", answer, flags=re.DOTALL)
    return str(blocks[-1]) if blocks else answer
