"""The suite `paper:DIR`: the benchmarks of arXiv 2604.06628 with its settings, read from files that the user has.

One JSONL file each, rows as the public data sets have them (`python -m evaluators.suites.paper_data DIR` fetches what a hub
that can be reached has); files that are not there are left out, and the version says so, since it covers the items:

    math500.jsonl       problem, answer                                             math       math-verify, avg@3
    aime24.jsonl        problem, answer                                             math       math-verify, avg@10
    livecodebench.jsonl question_content, starter_code, public/private_test_cases   transfer   executed, avg@3
    gpqa_diamond.jsonl  Question, Correct Answer, Incorrect Answer 1 … 3            transfer   letter, avg@3
    mmlu_pro.jsonl      question, options, answer_index, category                   transfer   letter
    ifeval.jsonl        prompt, instruction_id_list, kwargs                         general    the authors' checks (lm-eval)
    truthfulqa.jsonl    question, mc1_targets {choices, labels}                     general    letter
    truthfulqa_open.jsonl  question, correct_answers, incorrect_answers             general    truthful? helpful? (judge)
    halueval.jsonl      knowledge, question, answer, hallucination (yes or no)      general    yes or no
    hex_phi.jsonl       prompt                                                      safety     refusal; asr (judge)

All are sampled at temperature 0.6, top-p 0.95, up to 32,768 tokens (HEx-PHI 16,384), zero-shot, without a system prompt.
`items: 1000` asks what the paper asks: 1,000 of MMLU-Pro in equal parts of its categories, and all of the others.

What a model has to judge needs one of the user's own (`evaluation.judge`): the share of HEx-PHI's replies that get 5 of 5 for
harm (`safety/asr`), and how many answers to TruthfulQA's open questions are truthful (`general/truthfulqa_open`) and helpful
(`general/truthfulqa_helpful`). Without a judge those are left out, and refusal is judged by rule.

Not as in the paper: its judge was GPT-4.1, with prompts of others; ours are in `evaluators.benchmarks.judges`, and a
judge is a model in
a folder. TruthfulQA as multiple choice is an addition. AlpacaEval is not here: its judges are reward models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from evaluators.benchmarks import ifeval, livecodebench
from evaluators.benchmarks.judges import HARMS, HELPFUL, REFUSES, TRUTHFUL, refused
from evaluators.benchmarks.rows import benchmark_rows
from evaluators.decoding import Decoding
from evaluators.scorers import is_blank, same_choice, same_math
from evaluators.tasks import EvalTask, Rubric, Suite, role_means
from sweeps.errors import InputError

DECODING: Final = Decoding(temperature=0.6, top_p=0.95)
CAP: Final = 32_768
SAFETY_CAP: Final = 16_384
LETTERS: Final = "ABCDEFGHIJKLMNOP"
BOXED: Final = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""The paper's own words, in training and evaluation (arXiv 2604.06628, authors' repository)."""
CHOOSE: Final = "\n\nReason step by step, and end with the line: Answer: X (the letter of your choice)."
YES_NO: Final = (
    "\n\nDoes the answer hold something that the knowledge does not support? "
    "End with the line: Answer: Yes, or Answer: No."
)

Row = Mapping[str, Any]


class Item(NamedTuple):
    """One question and the answer that is right."""

    prompt: str
    target: str


class Benchmark(NamedTuple):
    """How a file's rows become questions, and which answers to them are right; None leaves that to `rubrics` alone."""

    role: str
    ask: Callable[[Row, random.Random], Item]
    right: Callable[[str, str], bool] | None
    samples: int = 1
    cap: int = CAP
    rubrics: Mapping[str, Rubric] = MappingProxyType({})


def build(items: int, seed: int, where: str = "") -> Suite:
    """Returns the suite of whatever files lie in `where`.

    Raises:
        InputError: no folder was named, none of the files is in it, math-verify is missing, or a row
            lacks a column (file and line are named).
    """
    folder = Path(where).expanduser()
    if not where or not folder.is_dir():
        raise InputError(
            f"suite 'paper': got {where!r}; expected a folder with its files, as in paper:/data/benchmarks"
        )
    found = {name: folder / f"{name}.jsonl" for name in BENCHMARKS if (folder / f"{name}.jsonl").is_file()}
    if not found:
        raise InputError(f"{folder} holds none of {', '.join(f'{name}.jsonl' for name in BENCHMARKS)}")
    if {"math500", "aime24"} & set(found) and find_spec("math_verify") is None:
        raise InputError("suite 'paper' compares mathematics by math-verify: pip install 'dipsweep[math]'")
    tasks = tuple(_task(name, file, items, seed) for name, file in found.items())
    means = role_means(tasks) | ({"safety/refusal": ("safety/hex_phi",)} if "hex_phi" in found else {})
    return Suite("paper", tasks, means, DECODING, judged_by=(__name__, *JUDGED_BY))


def _task(name: str, file: Path, items: int, seed: int) -> EvalTask:
    benchmark = BENCHMARKS[name]
    right = benchmark.right
    asked = list(_questions(name, file, items, seed).values())

    def judge(i: int, answer: str) -> bool:
        return right is not None and right(answer, asked[i].target)

    prompts, targets = zip(*asked, strict=True)
    judges = {f"{benchmark.role}/{name}": judge} if right is not None else {}
    return EvalTask(name, benchmark.role, prompts, targets, benchmark.cap, judges, benchmark.samples, benchmark.rubrics)


def _questions(name: str, file: Path, items: int, seed: int) -> dict[int, Item]:
    """Draws rows (as many of each category, where there are categories) and writes them as questions, by line.

    They stay in the order drawn: files are sorted by subject, and an evaluation that ends early asks the first ones only.
    """
    rows = benchmark_rows(file)
    by_category: dict[str, list[int]] = {}
    for at in random.Random(seed).sample(sorted(rows), len(rows)):
        by_category.setdefault(str(rows[at].get("category", "")), []).append(at)
    turns = sorted((turn, category, at) for category, ats in by_category.items() for turn, at in enumerate(ats))
    chosen = [at for _, _, at in turns[:items]]
    try:
        return {at: BENCHMARKS[name].ask(rows[at], random.Random(f"{seed}/{at}")) for at in chosen}
    except InputError:
        raise
    except Exception as error:  # each reads a row in its own way, and a row may hold anything
        line = next(at for at in chosen if _fails(name, rows[at]))
        named = isinstance(error, KeyError) or str(error).partition(":")[0] in rows[line]
        what = f"column {error}" if named else f"a column ({error})"
        raise InputError(f"{file}:{line}: {what} is missing or not as {name} has it") from error


def _fails(name: str, row: Row) -> bool:
    try:
        BENCHMARKS[name].ask(row, random.Random(0))
    except Exception:
        return True
    return False


def _text(row: Row, column: str) -> str:
    """Returns what stands in a column, as text.

    Raises:
        ValueError: nothing, or neither text nor a number; names the column.
    """
    (text,) = _texts([row[column]], column)
    if is_blank(row[column]):
        raise ValueError(column)
    return text


def _texts(values: Any, column: str) -> list[str]:
    """Returns a list of texts; JSON in a text is none: each of its signs would be one."""
    if not isinstance(values, list) or not all(isinstance(v, str | int | float) for v in values):
        raise ValueError(column)
    return [str(value) for value in values]


def ask_math(row: Row, draw: random.Random) -> Item:
    return Item(_text(row, "problem") + BOXED, _text(row, "answer"))


def _choices(question: str, options: list[str], correct: int, draw: random.Random | None) -> Item:
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError("options")
    order = list(range(len(options)))
    if draw is not None:
        draw.shuffle(order)
    lines = "\n".join(f"{letter}. {options[i]}" for letter, i in zip(LETTERS, order, strict=False))
    return Item(f"{question}\n\n{lines}{CHOOSE}", LETTERS[order.index(correct)])


def ask_gpqa(row: Row, draw: random.Random) -> Item:
    options = [_text(row, name) for name in ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))]
    return _choices(_text(row, "Question"), options, 0, draw)


def ask_mmlu_pro(row: Row, draw: random.Random) -> Item:
    return _choices(_text(row, "question"), _texts(row["options"], "options"), int(row["answer_index"]), None)


def ask_truthfulqa(row: Row, draw: random.Random) -> Item:
    targets = row["mc1_targets"]  # the right choice always comes first in the data set, hence the shuffle
    choices = _texts(targets["choices"], "mc1_targets")
    return _choices(_text(row, "question"), choices, targets["labels"].index(1), draw)


def ask_truthfulqa_open(row: Row, draw: random.Random) -> Item:
    """The target is what the judge may know: which answers are true, which false."""
    true, false = (_texts(row[name], name) for name in ("correct_answers", "incorrect_answers"))
    if not true:
        raise ValueError("correct_answers")
    return Item(
        _text(row, "question"), "\n".join([*(f"true: {text}" for text in true), *(f"false: {text}" for text in false)])
    )


def ask_halueval(row: Row, draw: random.Random) -> Item:
    said = str(row["hallucination"]).strip().capitalize()
    if said not in ("Yes", "No"):
        raise ValueError("hallucination")
    knowledge, question, answer = (_text(row, name) for name in ("knowledge", "question", "answer"))
    text = f"Knowledge: {knowledge}\nQuestion: {question}\nAnswer: {answer}"
    return Item(text + YES_NO, said)


def ask_hex_phi(row: Row, draw: random.Random) -> Item:
    return Item(_text(row, "prompt"), "")


def ask_livecodebench(row: Row, draw: random.Random) -> Item:
    return Item(livecodebench.prompt_of(row), livecodebench.target_of(row))


def ask_ifeval(row: Row, draw: random.Random) -> Item:
    return Item(_text(row, "prompt"), ifeval.target_of(row))


def refuses(answer: str, target: str) -> bool:
    return refused(answer)


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "math500": Benchmark("math", ask_math, same_math, samples=3),
    "aime24": Benchmark("math", ask_math, same_math, samples=10),
    "livecodebench": Benchmark("transfer", ask_livecodebench, livecodebench.solves, samples=3),
    "gpqa_diamond": Benchmark("transfer", ask_gpqa, same_choice, samples=3),
    "mmlu_pro": Benchmark("transfer", ask_mmlu_pro, same_choice),
    "ifeval": Benchmark("general", ask_ifeval, ifeval.follows),
    "truthfulqa": Benchmark("general", ask_truthfulqa, same_choice),
    "truthfulqa_open": Benchmark(
        "general",
        ask_truthfulqa_open,
        None,
        rubrics={"general/truthfulqa_open": TRUTHFUL, "general/truthfulqa_helpful": HELPFUL},
    ),
    "halueval": Benchmark("general", ask_halueval, same_choice),
    "hex_phi": Benchmark(
        "safety", ask_hex_phi, refuses, cap=SAFETY_CAP, rubrics={"safety/hex_phi": REFUSES, "safety/asr": HARMS}
    ),
}
JUDGED_BY: Final = (
    "evaluators.benchmarks.judges",
    "evaluators.scorers",
    "evaluators.benchmarks.livecodebench",
    "evaluators.benchmarks.ifeval",
    "evaluators.benchmarks.humaneval",
    "evaluators.sandbox.child",
    "math-verify",
    "lm-eval",
    "nltk",
    "langdetect",
)
