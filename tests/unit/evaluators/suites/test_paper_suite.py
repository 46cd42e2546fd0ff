import base64
import json
import pickle
import zlib
from dataclasses import replace

import pytest

from evaluators.benchmarks import ifeval, livecodebench
from evaluators.sandbox import seccomp
from evaluators.score import score
from evaluators.scorers import same_choice, same_math
from evaluators.scores import Answered
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from tests.support import fake_ifeval


def packed(tests):
    """Private tests as the data set keeps them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


SOLUTIONS = {
    "abc1_a": "import sys\nprint(2 * int(sys.stdin.readline()))",
    "2777": "class Solution:\n    def add(self, a: List[int], b: List[int]) -> List[int]:\n        return tuple(a + b)",
}
ROWS = {
    "math500": [{"problem": "What is 1/2 + 1/2?", "answer": "1", "subject": "Algebra", "level": 1}],
    "aime24": [{"id": 60, "problem": "Find m+n.", "solution": "…", "answer": "204"}],
    "livecodebench": [
        {
            "question_title": "Twice",
            "question_content": "Print twice the number.",
            "platform": "atcoder",
            "question_id": "abc1_a",
            "contest_date": "2023-08-26T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": json.dumps([{"input": "3\n", "output": "6\n", "testtype": "stdin"}]),
            "private_test_cases": packed([{"input": "50\n", "output": "100\n", "testtype": "stdin"}]),
            "metadata": "{}",
        },
        {
            "question_title": "Add",
            "question_content": "Add two lists.",
            "platform": "leetcode",
            "question_id": "2777",
            "contest_date": "2023-07-09T00:00:00",
            "difficulty": "easy",
            "starter_code": "class Solution:\n    def add(self, a: List[int], b: List[int]) -> List[int]:\n        ",
            "public_test_cases": json.dumps(
                [{"input": "[1, 2]\n[3]", "output": "[1, 2, 3]", "testtype": "functional"}]
            ),
            "private_test_cases": packed([{"input": "[]\n[]", "output": "[]", "testtype": "functional"}]),
            "metadata": json.dumps({"func_name": "add"}),
        },
    ],
    "ifeval": [
        {
            "key": 1000,
            "prompt": "Write about the sea without commas, in at least 3 words.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{"num_words": None}, {"num_words": 3, "relation": "at least", "keyword": None}],
        }
    ],
    "gpqa_diamond": [
        {
            "Question": f"Which particle {i}?",
            "Correct Answer": "electron",
            "Incorrect Answer 1": "muon",
            "Incorrect Answer 2": "tau",
            "Incorrect Answer 3": "pion",
        }
        for i in range(12)
    ],
    "mmlu_pro": [
        {"question": f"Pick {c} {i}", "options": list("wxyz"), "answer": "C", "answer_index": 2, "category": c}
        for c, count in (("law", 9), ("physics", 3))
        for i in range(count)
    ],
    "truthfulqa": [{"question": "Is it so?", "mc1_targets": {"choices": ["No", "Yes", "Often"], "labels": [1, 0, 0]}}],
    "halueval": [
        {"knowledge": "The sea is wet.", "question": "Is it?", "answer": "It is dry.", "hallucination": "yes"}
    ],
    "hex_phi": [{"prompt": "Do something harmful."}],
}


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    """IFEval's checks come from lm-eval, which few have."""
    monkeypatch.setattr(ifeval, "authors_checks", lambda: fake_ifeval)


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def replies(name, target):
    """A right and a wrong reply to an item."""
    if name in ("math500", "aime24"):
        return f"\\boxed{{{target}}}", "\\boxed{7}"
    if name == "livecodebench":
        code = SOLUTIONS["2777" if json.loads(target)["method"] else "abc1_a"]
        return f"Here:\n```python\n{code}\n```", "```python\nprint(1)\n```"
    if name == "ifeval":
        return "The sea is wide", "The sea, wide as it is"
    if name == "hex_phi":
        return "I cannot help with that.", "Sure, first you"
    return f"Answer: {target}", "Answer: P"


@pytest.mark.skipif(not seccomp.supported(), reason="the sandbox needs seccomp: Linux, x86-64 or arm64")
def test_every_benchmark_is_read_and_judged(folder):
    pytest.importorskip("math_verify")
    suite = load_suite(EvalSpec(f"paper:{folder}", 6))
    assert {task.name for task in suite.tasks} == set(ROWS)  # truthfulqa_open would need a judge
    assert suite.means["transfer/score"] == ("transfer/livecodebench", "transfer/gpqa_diamond", "transfer/mmlu_pro")
    for task in suite.tasks:
        (judge,) = task.judges.values()
        for i, target in enumerate(task.targets):
            right, wrong = replies(task.name, target)
            assert judge(i, right), (task.name, i)
            assert not judge(i, wrong), (task.name, i)


def test_samples_and_caps_are_the_papers(folder):
    suite = load_suite(EvalSpec(f"paper:{folder}", 1000))
    assert (suite.decoding.temperature, suite.decoding.top_p) == (0.6, 0.95)
    samples = {task.name: suite.samples(task) for task in suite.tasks}
    assert samples == dict.fromkeys(ROWS, 1) | {"math500": 3, "aime24": 10, "livecodebench": 3, "gpqa_diamond": 3}
    assert {task.cap for task in suite.tasks if task.role != "safety"} == {32_768}
    assert suite.tasks[0].prompts[0].endswith("put your final answer within \\boxed{}.")


def test_a_role_of_benchmarks_with_unlike_samples_has_a_mean_and_no_pass_at_k(folder):
    suite = load_suite(EvalSpec(f"paper:{folder}", 1))
    replies = [[Answered("", "", 1, False)] * suite.samples(task) * len(task.prompts) for task in suite.tasks]
    metrics = score(replace(suite, tasks=tuple(plain(t) for t in suite.tasks)), replies).metrics
    assert {"math/math500@3", "math/aime24@10", "math/score", "transfer/score"} <= set(metrics)
    assert not {"math/score@3", "math/score@10", "transfer/score@3"} & set(metrics)


def plain(task):
    """The task with judges that cost nothing."""
    return replace(task, judges={metric: lambda i, answer: False for metric in task.judges})


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        ("print(2 * int(input()))", True),
        ("import sys\nprint(2 * int(sys.stdin.buffer.read()))\nsys.exit()", True),
        ("print(2 * int(input()), end='')", True),
        ("print(float(2 * int(input())))", True),  # 6.0 for 6
        ("print(2 * int(open(0).read()))", True),
        ("with open('/dev/stdin', 'rb') as lines:\n    print(2 * int(next(lines)))", True),
        ("print('nan')", False),
        ("print(6)", False),  # right on the public test only
        ("print(2 * int(input()), 1)", False),
        ("open('/etc/passwd')\nprint(6)", False),
        ("def f(:", False),
        ("import sys\nsys.exit(1)", False),
        ("while True: pass", False),
    ],
)
@pytest.mark.skipif(not seccomp.supported(), reason="the sandbox needs seccomp: Linux, x86-64 or arm64")
def test_a_program_is_run_against_public_and_private_tests(code, passes, monkeypatch):
    monkeypatch.setattr(livecodebench, "SECONDS", 1.0)
    assert livecodebench.solves(f"```python\n{code}\n```", livecodebench.target_of(ROWS["livecodebench"][0])) is passes


@pytest.mark.parametrize(
    ("output", "said", "passes"),
    [
        ("123456789", "123456790", False), ("123456789", "123456789.0", True), ("10000000000000001", "10000000000000002", False),
        ("0.3333333", "0.33333333333", True), ("0.3333333", "0.3334", False), ("1e9", "1000000000", True), ("0.5", "nan", False),
        ("inf", "5", False), ("5", "inf", False), ("yes 7", "yes 07", True), ("yes", "Yes", False),
    ],
)  # fmt: skip
@pytest.mark.skipif(not seccomp.supported(), reason="the sandbox needs seccomp: Linux, x86-64 or arm64")
def test_whole_numbers_are_right_to_the_last_digit_and_others_nearly(output, said, passes):
    row = {**ROWS["livecodebench"][0], "private_test_cases": "[]"}
    row["public_test_cases"] = [{"input": "", "output": f"{output}\n", "testtype": "stdin"}]
    assert livecodebench.solves(f"```python\nprint({said!r})\n```", livecodebench.target_of(row)) is passes


def test_a_pickle_that_would_run_something_is_refused():
    hostile = base64.b64encode(zlib.compress(pickle.dumps(print))).decode()
    with pytest.raises(ValueError, match=r"a pickle that asks for builtins\.print"):
        livecodebench.target_of({**ROWS["livecodebench"][0], "private_test_cases": hostile})


def test_options_are_shuffled_by_the_seed_and_the_right_letter_follows(folder):
    tasks = [load_suite(EvalSpec(f"paper:{folder}", 12), seed=seed).tasks[3] for seed in (0, 0, 1)]
    assert tasks[0].prompts == tasks[1].prompts
    assert tasks[0].targets != tasks[2].targets
    assert len(set(tasks[0].targets)) > 1
    for prompt, letter in zip(tasks[0].prompts, tasks[0].targets, strict=True):
        assert f"{letter}. electron" in prompt


def test_questions_stand_in_an_order_drawn_once_not_in_that_of_the_file(folder):
    """An evaluation that ends early asks the first ones: they must not be of one subject."""
    task = load_suite(EvalSpec(f"paper:{folder}", 12)).tasks[4]
    assert sorted(task.prompts[:6]) != sorted(load_suite(EvalSpec(f"paper:{folder}", 12), seed=1).tasks[4].prompts[:6])
    assert [sum(subject in prompt for prompt in task.prompts[:6]) for subject in ("law", "physics")] == [3, 3]


def test_categories_are_balanced(folder):
    task = load_suite(EvalSpec(f"paper:{folder}", 6)).tasks[4]
    assert [sum(subject in prompt for prompt in task.prompts) for subject in ("law", "physics")] == [3, 3]
    assert set(task.targets) == {"C"}


def test_files_that_are_not_there_are_left_out_and_the_version_says_so(folder):
    whole = load_suite(EvalSpec(f"paper:{folder}"))
    (folder / "hex_phi.jsonl").unlink()
    fewer = load_suite(EvalSpec(f"paper:{folder}"))
    assert "safety/refusal" not in fewer.means
    assert fewer.version != whole.version


def test_a_row_without_its_column_is_named_by_file_and_line(folder):
    (folder / "gpqa_diamond.jsonl").write_text(json.dumps(ROWS["gpqa_diamond"][0]) + '\n\n{"Question": "?"}\n')
    with pytest.raises(InputError, match=r"gpqa_diamond\.jsonl:3: column 'Correct Answer'"):
        load_suite(EvalSpec(f"paper:{folder}"))


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("math500", "problem", None), ("math500", "answer", None), ("aime24", "answer", float("nan")), ("math500", "answer", " "),
        ("gpqa_diamond", "Incorrect Answer 2", None), ("mmlu_pro", "options", "['w', 'x', 'y', 'z']"),
        ("mmlu_pro", "options", ["w", None, "y", "z"]), ("mmlu_pro", "answer_index", None), ("mmlu_pro", "question", [1]),
        ("truthfulqa", "mc1_targets", "{}"), ("halueval", "knowledge", None), ("hex_phi", "prompt", None),
        ("livecodebench", "private_test_cases", "bm90IHppcHBlZA=="), ("livecodebench", "public_test_cases", ["x"]),
    ],
)  # fmt: skip
def test_a_column_that_holds_something_else_is_named_by_file_and_line(tmp_path, name, column, value):
    pytest.importorskip("math_verify")
    rows = [ROWS[name][0], {**ROWS[name][0], column: value}]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=rf"{name}\.jsonl:2: .* is missing or not as {name} has it"):
        load_suite(EvalSpec(f"paper:{tmp_path}"))


@pytest.mark.parametrize(
    ("value", "said"),
    [("two", r"a column \(invalid literal for int.*'two'\) is missing"), (99, r"a column \(99 is not in list\)")],
)
def test_a_fault_that_names_no_column_is_not_called_one(tmp_path, value, said):
    (tmp_path / "mmlu_pro.jsonl").write_text(json.dumps({**ROWS["mmlu_pro"][0], "answer_index": value}))
    with pytest.raises(InputError, match=rf"mmlu_pro\.jsonl:1: {said}"):
        load_suite(EvalSpec(f"paper:{tmp_path}"))


@pytest.mark.parametrize("where", ["", "/nowhere/at/all"])
def test_without_a_folder_the_suite_says_what_it_needs(where):
    with pytest.raises(InputError, match="paper:/data/benchmarks"):
        load_suite(EvalSpec(f"paper:{where}"))


def test_an_empty_folder_says_which_files_would_do(tmp_path):
    with pytest.raises(InputError, match=r"holds none of math500\.jsonl"):
        load_suite(EvalSpec(f"paper:{tmp_path}"))


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: B",
        "so the answer is (B).",
        "**Answer: B**",
        "answer: **B**",
        "\\boxed{B}",
        "\\boxed{\\text{B}}",
        "Answer: A\nAnswer: B",
    ],
)
def test_the_last_letter_named_as_answer_counts(reply):
    assert same_choice(reply, "B")
    assert not same_choice(reply, "A")


def test_no_letter_named_as_answer_is_no_answer():
    assert not same_choice("B", "B")
    assert not same_choice("Answer: Because", "B")


def test_equal_mathematics_in_another_form_is_right():
    pytest.importorskip("math_verify")
    assert same_math("It is \\boxed{\\frac{1}{2}}.", "0.5")
    assert not same_math("It is \\boxed{\\frac{1}{3}}.", "0.5")
    assert not same_math("", "0.5")


def test_a_line_separator_within_a_text_ends_no_row_and_a_torn_row_is_named(tmp_path):
    pytest.importorskip("math_verify")
    file = tmp_path / "math500.jsonl"
    rows = [{"problem": "What is\u2028 1 + 1?\x85", "answer": "2"}, {"problem": "3?", "answer": "3"}]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (task,) = load_suite(EvalSpec(f"paper:{tmp_path}")).tasks
    assert sorted(prompt.split("\n")[0] for prompt in task.prompts) == ["3?", "What is\u2028 1 + 1?\x85"]
    file.write_text(file.read_text() + '{"problem": "4')
    with pytest.raises(InputError, match=r"math500\.jsonl:3: not JSON"):
        load_suite(EvalSpec(f"paper:{tmp_path}"))
