"""Training rows that hold what the evaluation asks are found, and wording that all questions share is not."""

import json

import pytest

from cluster.preflight.checks import preflight
from sweeps import Sweep, grid
from trainers.data.inspection.contamination import overlap, words

LONG = "A farmer keeps 17 sheep and 12 goats on two meadows ; how many legs are there in all ?"
MIDDLE = "How many legs do 17 sheep and 12 goats have ?"
BRIEF = "SUM 3+4-2="


@pytest.mark.parametrize("prompt", [LONG, MIDDLE, BRIEF])
def test_a_prompt_inside_a_row_is_found_whatever_its_length(prompt):
    found = overlap(
        ["nothing of the kind", f"Question one. {prompt.upper()}  Answer: 5"], [prompt, "something else entirely"]
    )
    assert (found.seen, found.touched, found.rows, found.examples) == (1, 1, 2, ((1, 0),))


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not():
    tokens = words(LONG)
    assert overlap([" ".join(tokens[3:16])], [LONG]).seen == 1
    assert overlap([" ".join(tokens[3:15])], [LONG]).seen == 0


def test_eight_words_of_a_shorter_prompt_are_enough_and_seven_are_not():
    tokens = words(MIDDLE)
    assert overlap([" ".join(tokens[1:9])], [MIDDLE]).seen == 1
    assert overlap([" ".join(tokens[1:8])], [MIDDLE]).seen == 0


def test_signs_are_words_so_another_sum_is_another_question():
    assert words("3+4-2=") == ["3", "+", "4", "-", "2", "="]
    assert overlap(["SUM 3-4+2="], [BRIEF]).seen == 0


def test_wording_that_all_prompts_share_gives_none_away():
    suffix = "Please reason step by step , and put your final answer within a box at the end of it"
    prompts = [
        f"Question {n} is about the number {n * n} and nothing else than that number . {suffix}" for n in range(40)
    ]
    assert overlap([f"Something new . {suffix}"], prompts).seen == 0
    assert overlap([f"Well : {prompts[7]}"], prompts).seen == 1


def test_the_wording_of_few_prompts_gives_none_away_and_neither_does_one_word_more():
    suffix = "? Give the result as your final answer . Do not include units ."
    prompts = [f"{question} {suffix}" for question in ("How old is Ann", "How many eggs are left", "What does he pay")]
    assert overlap([f"How many are left {suffix}", f"Who pays {suffix}"], prompts).seen == 0
    assert overlap([f"Tell me : {prompts[1]}"], prompts).seen == 1


def test_nothing_is_found_in_nothing():
    assert overlap([], [LONG]).seen == overlap([LONG], []).seen == overlap([LONG], ["", "  "]).seen == 0


def test_questions_without_spaces_are_found_within_a_text():
    asked = ["小明有三个苹果吃了一个还剩几个", "りんごを三つ買いましたいくつ残りますか"]
    texts = [
        "问题是小明有三个苹果吃了一个还剩几个答案是二",
        "小明有三个苹果",
        "りんごを三つ買いましたいくつ残りますか、二つ",
    ]
    found = overlap(texts, asked)
    assert (found.seen, found.touched) == (2, 2)


def test_what_unicode_writes_in_two_ways_is_one_word():
    assert words("Ｃafé ﬁve") == words("Cafe\u0301 five") == ["café", "five"]


def sweep(path):
    return Sweep(name="own", tiers={"ours": {"path": str(path)}}, space={"data": grid("ours", "answer-only")})


def test_a_sweep_on_its_own_evaluation_is_warned_about(tmp_path):
    from evaluators.suites.registry import load_suite
    from sweeps.config.trial import EvalSpec

    asked = load_suite(EvalSpec("mini", 100)).tasks[0].prompts[:3]
    rows = [{"prompt": prompt, "response": "5"} for prompt in (*asked, "What is the capital of France?")]
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = preflight(sweep(tmp_path / "ours.jsonl")).notes[-1]
    assert line.startswith("warning: tier ours holds 3 of the ")
    assert "in 3 of 4 rows, such as row 1 and prompt 1" in line


def test_clean_data_is_passed_in_silence(tmp_path):
    (tmp_path / "ours.jsonl").write_text(json.dumps({"prompt": "SUM 1=", "response": "1"}))
    assert not [line for line in preflight(sweep(tmp_path / "ours.jsonl")).notes if "prompts of" in line]
