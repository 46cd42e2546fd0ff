"""Writes two tiers of word problems and items to score them by, made with reasoning-gym: for a first sweep on a real model.

python examples/word_problems.py [FOLDER]

worked.jsonl     each step in the thought, then the answer      answers.jsonl    the same questions, the answer alone
items.jsonl      other questions (math), and sums (transfer), for evaluation.files
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reasoning_gym import create_dataset

ROWS, ITEMS, RUN = 1200, 40, 6


def runs(question: str) -> set[tuple[str, ...]]:
    """Returns every RUN words in a row, by which two problems of one template are known."""
    words = question.partition(" Give the result")[0].lower().split()
    return {tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))}


def row(question: str, thought: str, answer: str) -> dict[str, Any]:
    reply = {"role": "assistant", "content": answer} | ({"reasoning_content": thought} if thought else {})
    return {"messages": [{"role": "user", "content": question}, reply]}


def write(folder: Path, files: dict[str, list[dict[str, Any]]]) -> None:
    """Writes each list as NAME.jsonl, and says how many lines it has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
        print(folder / f"{name}.jsonl", len(rows))


def main(folder: Path) -> None:
    problems = list(create_dataset("gsm_symbolic", size=3 * ROWS + ITEMS, seed=0))
    held_out = set().union(*(runs(p["question"]) for p in problems[:ITEMS]))
    taught = [
        (p["question"], p["metadata"]["answer_cot"].partition("\n####")[0], p["answer"])
        for p in problems[ITEMS:]
        if not runs(p["question"]) & held_out  # problems of the same templates would be practised, not solved
    ][:ROWS]
    asked = [{"prompt": p["question"], "answer": p["answer"], "role": "math", "task": "word_problems"}
             for p in problems[:ITEMS]]  # fmt: skip
    asked += [{"prompt": p["question"], "answer": p["answer"], "role": "transfer", "task": "sums"}
              for p in create_dataset("chain_sum", size=ITEMS, seed=1)]  # fmt: skip
    files = {
        "worked": [row(*each) for each in taught],
        "answers": [row(question, "", answer) for question, _, answer in taught],
        "items": asked,
    }
    write(folder, files)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
