import json

import pytest

from evaluators.paper import BENCHMARKS, DECODING, same_choice, same_math
from evaluators.suites import load_suite
from sweeps.errors import InputError

ROWS = {
    "math500": [{"problem": "What is 1/2 + 1/2?", "answer": "1", "subject": "Algebra", "level": 1}],
    "aime24": [{"id": 60, "problem": "Find m+n.", "solution": "…", "answer": "204"}],
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


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_every_benchmark_is_read_and_judged(folder):
    pytest.importorskip("math_verify")
    suite = load_suite(f"paper:{folder}", items=6)
    assert [task.name for task in suite.tasks] == list(BENCHMARKS)
    assert suite.decoding == DECODING
    assert suite.means["transfer/score"] == ("transfer/gpqa_diamond", "transfer/mmlu_pro")
    for task in suite.tasks:
        (judge,) = task.judges.values()
        for i, target in enumerate(task.targets):
            boxed = task.role == "math"
            right = "I cannot help with that." if task.name == "hex_phi" else "Answer: " + target
            assert judge(i, f"\\boxed{{{target}}}" if boxed else right)
            assert not judge(i, "\\boxed{7}" if boxed else "Answer: P")


def test_options_are_shuffled_by_the_seed_and_the_right_letter_follows(folder):
    tasks = [load_suite(f"paper:{folder}", items=12, seed=seed).tasks[2] for seed in (0, 0, 1)]
    assert tasks[0].prompts == tasks[1].prompts
    assert tasks[0].targets != tasks[2].targets
    assert len(set(tasks[0].targets)) > 1
    for prompt, letter in zip(tasks[0].prompts, tasks[0].targets, strict=True):
        assert f"{letter}. electron" in prompt


def test_categories_are_balanced(folder):
    task = load_suite(f"paper:{folder}", items=6).tasks[3]
    assert [sum(subject in prompt for prompt in task.prompts) for subject in ("law", "physics")] == [3, 3]
    assert set(task.targets) == {"C"}


def test_files_that_are_not_there_are_left_out_and_the_version_says_so(folder):
    whole = load_suite(f"paper:{folder}")
    (folder / "hex_phi.jsonl").unlink()
    fewer = load_suite(f"paper:{folder}")
    assert "safety/refusal" not in fewer.means
    assert fewer.version != whole.version


def test_a_row_without_its_column_is_named_by_file_and_line(folder):
    (folder / "gpqa_diamond.jsonl").write_text(json.dumps(ROWS["gpqa_diamond"][0]) + '\n\n{"Question": "?"}\n')
    with pytest.raises(InputError, match=r"gpqa_diamond\.jsonl:3: column 'Correct Answer'"):
        load_suite(f"paper:{folder}")


@pytest.mark.parametrize("where", ["", "/nowhere/at/all"])
def test_without_a_folder_the_suite_says_what_it_needs(where):
    with pytest.raises(InputError, match="paper:/data/benchmarks"):
        load_suite(f"paper:{where}")


def test_an_empty_folder_says_which_files_would_do(tmp_path):
    with pytest.raises(InputError, match=r"holds none of math500\.jsonl"):
        load_suite(f"paper:{tmp_path}")


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
