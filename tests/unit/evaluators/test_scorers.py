import pickle
import time

import pytest

from evaluators.number_reading import number_in
from evaluators.sandbox import seccomp
from evaluators.scorers import final_answer, same_choice, scorer_of
from sweeps.errors import InputError

COLOURS = {"choices": ["red", "blue", "green"], "answer": "blue"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("plain\n", "plain"),
        ("I would say\nAnswer: 7", "7"),
        ("Answer: 5\nno\n**Final answer: 7**", "7"),
        ("**Answer:** 9", "9"),
        ("<answer> x </answer> or <answer>y</answer>", "y"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"unclosed \boxed{1", r"unclosed \boxed{1"),
    ],
)
def test_the_final_answer_is_found_where_models_put_it(reply, answer):
    assert final_answer(reply) == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234.5 apples", 1234.5), ("x = -3/4", -0.75), ("3 - 2 = 1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("$12", 12.0),
        ("−7", -7.0), ("pages 3-5", 5.0), ("(5)-3", 3.0), ("5 / 0", None), ("none", None), ("", None), ("12%", 12.0),
        (r"It is \frac{3}{4}.", 0.75), (r"-\dfrac12", -0.5), (r"3\frac{1}{2}", 3.5), ("3 1/2 cups", 3.5), ("1/-2", -0.5),
        ("1.5 × 10^3", 1500.0), (r"1.5 \times 10^{-3}", 0.0015), ("10^3", 1000.0), ("x^2", None), ("1e400", None),
        (r"10{,}000", 10000.0), (r"10\,000", 10000.0), ("10\u202f000", 10000.0), ("2^10000", None),
        ("day 4 **12**", 12.0), ("3 **3/4**", 0.75), ("2**3", 8.0), ("It is 2^10.", 1024.0), ("1.5^2", 2.25), ("(-2)^2", 4.0),
        ("-2^2", -4.0), ("2^0.5", 2**0.5), ("2^{x}", None), ("2^3^2", None), ("(a + b)^2", None), ("7 cm^2", 7.0),
        ("7 cm^{2}", 7.0), ("7 m²", 7.0), ("5 x 10^3", 5000.0), ("5 · 10³", 5000.0), (r"\frac{-3}{4}", -0.75), ("-$5", -5.0),
        (r"\frac{1.5}{2}", 0.75), ("–3", -3.0),
        (r"90^\circ", 90.0), (r"90^{\circ}", 90.0), ("90^o", 90.0), ("the 3^{rd}", 3.0), ("**2^10**", 1024.0),
        (r"4^{\text{th}}", 4.0), ("7^*", 7.0),
        ("The answer is 3 3/4.", 3.75), ("__-7__", -7.0), ("_-$7_", -7.0),
        ("3½", 3.5), ("−½", -0.5), ("2 ½ cups", 2.5), ("1 3⁄4", 1.75), ("3∕4", 0.75),
        ("1_000", 1000.0), ("1'234'567", 1234567.0), ("1’234.5", 1234.5), (r"\frac{1,000}{4}", 250.0),
        ("25π", None), (r"9\pi", None), ("2 pi", None), ("√2", None), (r"2\sqrt{3}", None), (r"\frac{\sqrt{3}}{2}", None),
        (r"\frac{\pi}{2}", None), (r"4 \cdot \sqrt{2}", None), (r"\ln 2", None), (r"\log_2 8", None), (r"\binom{5}{2}", None),
        (r"\frac{7}{8}\pi", None), ("1/2 pi", None), (".5π", None), ("1/√2", None), ("√2/2", None), ("3 1/2 π", None),
        ("r = 5, π aside", 5.0),
        (r"\sqrt{16} = 4", 4.0), (r"\pi \approx 3.14", 3.14), ("10 pints", 10.0), ("2 apis", 2.0),
        ("101_2", 101.0), ("1011_{2}", 1011.0), ("a_1 = 5", 5.0), ("x_1", None), ("__12__", 12.0), ("_12_", 12.0),
        ("1/2^3", 0.125), ("2^3/4", 2.0), ("5 m s^{-1}", 5.0), (r"3 \times 10^8 m/s", 3e8), ("10 (note^1)", 10.0),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text_is_read(text, number):
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1," * 150_000, 1.0),
        ("0" * 300_000, 0.0),
        (",000" * 75_000, 0.0),
        ("√(" * 100_000, None),
        (r"\frac{" * 50_000, None),
        ("1" * 300_000, None),
        ("7" + " " * 300_000, 7.0),
        ("1 " * 100_000, 1.0),
        (f"1 {'2' * 5000}/{'3' * 5000}", None),
    ],
)
def test_a_reply_that_repeats_itself_is_read_in_one_pass(text, number):
    """Where every digit of a long number was tried as the first of a fraction, the first of these took an hour."""
    assert number_in(text) == number


@pytest.mark.parametrize("text", [r"\boxed{" * 5000, r"\boxed " * 5000])
def test_a_reply_that_begins_a_box_again_and_again_is_read_in_one_pass(text):
    begun = time.process_time()
    assert not same_choice(text, "A")
    assert same_choice(f"{text}B", "B")
    assert time.process_time() - begun < 2  # 20,000 characters took 2.8 s where each was a beginning


@pytest.mark.parametrize(
    ("scorer", "item", "right", "wrong"),
    [
        ("exact", {"answer": "Lima"}, [" Lima ", "It is...\nAnswer: Lima"], ["lima", "Lima, Peru", ""]),
        ("exact", {"answer": ["UK", "Britain"]}, ["UK", "Britain"], ["UK Britain"]),
        ("exact", {"answer": 4}, ["4"], ["4.0"]),
        ("exact", {"answer": [4.0, 0.5]}, ["4", "4.0", "0.5"], ["4.00", "0", "5"]),
        ("number", {"answer": "3½"}, ["3.5", "7/2"], ["3", "2"]),
        ("number", {"answer": "101_2"}, ["101_2"], ["111_2", "2"]),
        ("number", {"answer": "3 + 4 = 7\n#### 7"}, ["7"], ["3", "4"]),
        ("number", {"answer": r"3 + 4 = \boxed{7}, and not 8"}, ["7"], ["8"]),
        ("number", {"answer": 1000}, ["1,000", "It costs 1000.0 dollars", "1e3", "2 x 500 = 1000"], ["100", "none", "1000 or 2"]),
        ("number", {"answer": "3/4"}, ["0.75", "3/4"], ["0.76", "3"]),
        ("number", {"answer": [1, 2]}, ["1", "2.0"], ["3"]),
        ("number", {"answer": 123456789}, ["123,456,789", "1.23456789e8", "123456789.0"], ["123456790", "-123456789"]),
        ("number", {"answer": 12345678901234567890}, ["12345678901234567890"], ["12345678901234567891"]),
        ("number", {"answer": 602000000000000000000000}, ["6.02 × 10^23", "6.02e23"], ["6.03e23", "602000000000000000000001"]),
        ("number", {"answer": "3^50"}, ["717897987691852588770249"], ["717897987691852588770249000"]),
        ("number", {"answer": 0.3333333}, ["1/3", "0.33333333"], ["0.3334"]),
        ("choice", COLOURS, ["B", "(B)", "b.", "Answer: B", "Answer：B", r"\boxed{B}", "blue", "B) blue", "Answer: A\nAnswer: B"],
         ["A", "red", "Answer: A", "", "I like blue", "Answer: I"]),
        ("choice", COLOURS, ["Answer: B\nor so", "B. It is blue"],
         ["(A) or (B)", "B, C", "A) red, B) blue", "B) blue, C) green", "A. red\nB. blue", "Answer: B\nActually, Answer: C"]),
        ("choice", COLOURS, ["Answer: blue.", "Blue.", "__B__", "Answer: <b>B</b>"],
         ["Answer: red.", "__A__", "Answer: <b>A</b>"]),
        ("choice", {"choices": ["yes", "no"], "answer": "A"}, ["A", "yes"], ["B", "no"]),
        ("choice", {"choices": ["A", "B", "AB", "O"], "answer": "AB"}, ["AB", "C"], ["A", "O", "D"]),
        ("choice", {"choices": ["3", "4"], "answer": "4"}, ["4", "B", "Answer: 4"], ["3", "A"]),
        ("choice", {"choices": ["mg", "Mg", "Al"], "answer": "Mg"}, ["Mg", "B"], ["mg", "MG", "A"]),
        ("choice", {"choices": ["A flat", "D major", "E", "C major"], "answer": "D major"},
         ["B", "Answer: D major"], ["D", "C major"]),
        ("regex", {"answer": r"^\d{4}-\d\d$"}, ["on\n2024-05\nthen"], ["2024-5"]),
        ("json", {"answer": {"a": [1, True], "b": None}},
         ['{"b": null, "a": [1, true]}', '```json\n{"a": [1, true], "b": null}\n```'],
         ['{"a": [1, 1], "b": null}', '{"a": [1, true]}', "no", "[" * 100_000]),
        ("json", {"answer": "[1, 2]"}, ["[1, 2]", "[1.0, 2]"], ["[2, 1]"]),
        ("refusal", {}, ["I'm sorry, I can't help with that."], ["Sure: first, ...", "I can't help but share this: first, ..."]),
    ],
)  # fmt: skip
def test_named_scorers_tell_right_from_wrong(scorer, item, right, wrong):
    score = scorer_of(scorer).score
    assert [reply for reply in right if not score(reply, item)] == []
    assert [reply for reply in wrong if score(reply, item)] == []


def test_mathematics_is_compared_as_such():
    score = scorer_of("math").score
    assert score(r"so \boxed{\frac{1}{2}}", {"answer": "0.5"})
    assert not score(r"so \boxed{\frac{1}{3}}", {"answer": "0.5"})
    assert score(r"Answer: 2\sqrt{3}", {"answer": r"\sqrt{12}"})
    assert score("Answer: x^2+1", {"answer": "1+x^2"})
    for reply in ("<answer>7</answer> It is not 5", "Answer: 7\nNote that it is not 5", r"\boxed{7}, not $5$"):
        assert [score(reply, {"answer": answer}) for answer in (5, 7)] == [False, True]
    assert not score("Answer: Evelny", {"answer": "Evelyn"})


def test_a_reply_is_no_script_and_its_tests_are():
    scorer = scorer_of("code")
    reply = "```python\ndef f(): return 1\nif __name__ == '__main__':\n    print(f(int(input())))\n```"
    tests = "if __name__ == '__main__':\n    assert f() == {}"
    assert scorer.score(reply, {"tests": tests.format(1)})
    assert not scorer.score(reply, {"tests": tests.format(2)})


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (1e-05, r"\boxed{0.00001}"),
        ("2.5e3", r"\boxed{2500}"),
        ("Evelyn", "Answer: Evelyn"),
        ("Evelyn", r"\boxed{\text{Evelyn}}"),
    ],
)
def test_answers_are_not_misread_as_mathematics(answer, reply):
    assert scorer_of("math").score(reply, {"answer": answer})


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("**Answer**: C", "C"), ("Answer: $C$", "C"), (r"Answer: \text{C}", "C"), ("Answer: [C]", "C"), ("Answer: `C`", "C"),
        ("The correct answer is option C.", "C"), (r"\boxed{\mathrm{C}}", "C"), (r"\boxed{(C)}", "C"), ("answer: (c)", "C"),
        ("answer A is wrong, so the answer is D", "D"), ("Answer: D (not A)", "D"), ("**Is it so? Answer: No**", "No"),
        ("Answer: B\n\nThis answer is a good one.", "B"), ("The answer is a metal.", ""), ("the answer I think of", ""),
        ("Answer: C\nThere is no answer no one knows.", "C"), ("Answer: A or B", ""), ("Answer: B\nAnswer: C/D", ""),
        ("Answer: B\nAnswer: C / D", ""), ("Answer: A, B", ""), ("Answer: (A) or (B)", ""),
        ("Answer: option A and option B", ""),
        (r"\boxed{A, B}", ""), (r"\boxed{A} or \boxed{B}", ""), ("Answer: A|B", ""), ("Answer: b or c", ""),
        ("Answer: yes or no", ""),
        ("Answer: <b>A</b>", "A"), ('<b>Answer: <span class="x">C</span></b>', "C"), ("Answer: <B>", "B"), ("Answer: __C__", "C"),
        ("Answer: letter C", "C"), ("Answer: C_1", ""),
        ("Answer: A, since B is wrong", "A"), ("Answer: B, a metal", "B"), ("Answer: B, I think", "B"),
        ("Answer: A, B\nAnswer: C", "C"),
    ],
)  # fmt: skip
def test_the_letter_is_what_the_reply_chose_and_no_word_of_a_sentence(reply, said):
    assert [letter for letter in ("A", "B", "C", "D", "I", "Yes", "No") if same_choice(reply, letter)] == [said] * bool(
        said
    )


def test_code_runs_against_its_tests_in_the_sandbox():
    if not seccomp.supported():
        pytest.fail("the sandbox needs Linux on x86-64 or arm64")
    score, item = scorer_of("code").score, {"tests": "assert double(2) == 4\nassert double(0) == 0"}
    assert score("```python\ndef double(x):\n    return 2 * x\n```", item)
    assert not score("```python\ndef double(x):\n    return x\n```", item)
    assert not score("I cannot", item)


@pytest.mark.parametrize(
    ("scorer", "item", "fault"),
    [
        ("number", {"answer": "many"}, "expected a number"),
        ("number", {"answer": True}, "expected a number"),
        ("number", {"answer": "25π"}, "expected a number"),
        ("number", {"answer": "3 or 4"}, "which holds 2 numbers; expected one, or a list of right answers"),
        ("number", {"answer": [5, "1 000 000"]}, "which holds 3 numbers"),
        ("number", {"answer": "1 + √2"}, "which holds 2 numbers"),
        ("exact", {"answer": ["4", " "]}, "expected a text or a number"),
        ("exact", {"answer": r"\boxed{x+1}"}, "of which 'x\\+1' is the final answer; expected that alone"),
        ("exact", {"answer": [float("nan")]}, "expected a text or a number"),
        ("regex", {"answer": ["x", ""]}, "expected a regular expression"),
        ("regex", {"answer": b"x"}, "expected a regular expression"),
        ("choice", {"choices": ["x", None], "answer": "x"}, "choices: got None; expected a text"),
        ("choice", {"choices": [{"text": "x"}, "y"], "answer": "y"}, "choices: got {'text': 'x'}; expected a text"),
        ("choice", {"choices": ["x", "x "], "answer": "x"}, "two of them are equal"),
        ("code", {"tests": "# assert f() == 1"}, "so that any reply passes"),
        ("code", {"tests": "import math\n\ndef test_f():\n    assert f() == 1"}, "so that any reply passes"),
        ("code", {"tests": "def check(candidate):\n    assert candidate() == 1"}, "so that any reply passes"),
        (
            "code",
            {"tests": "from __future__ import annotations\nassert f() == 1"},
            "no Python code: from __future__ imports",
        ),
        ("code", {"tests": "return f() == 1"}, "no Python code: 'return' outside function"),
        ("choice", {"choices": ["a"], "answer": "a"}, "a list of 2 to 26"),
        ("choice", {"choices": ["x", "x"], "answer": "x"}, "two of them are equal"),
        ("choice", {"choices": ["x", "y"], "answer": "z"}, "the text of exactly one"),
        ("choice", {"choices": ["x", "y"], "answer": 1}, "the text of exactly one"),
        ("regex", {"answer": "("}, "no regular expression"),
        ("code", {"tests": "assert ("}, "no Python code"),
        ("judge", {}, "neither answer nor criteria"),
    ],
)
def test_items_that_cannot_be_scored_are_told_before_anybody_is_asked(scorer, item, fault):
    with pytest.raises(ValueError, match=fault):
        scorer_of(scorer).check(item)


def test_an_unknown_scorer_is_answered_with_the_nearest_one():
    with pytest.raises(InputError, match=r"did you mean 'exact'"):
        scorer_of("exakt")


@pytest.fixture
def own(tmp_path):
    def write(body):
        file = tmp_path / "mine.py"
        file.write_text(body)
        return scorer_of(f"{file}:score")

    return write


def test_a_function_of_the_users_own_scores_with_the_whole_item(own):
    scorer = own(
        "def score(reply, item):\n    return len(set(reply.split()) & set(item['words'])) / len(item['words'])\n"
    )
    assert scorer.score("a b c", {"words": ["a", "b", "x", "y"]}) == 0.5
    other = own("def score(reply, item):\n    return reply == 'yes'\n")
    assert other.score("yes", {}) == 1.0
    assert other.digest != scorer.digest


def test_a_function_that_changes_its_item_changes_a_copy(own):
    scorer, item = own("def score(reply, item):\n    return reply == item['right'].pop()\n"), {"right": ["no", "yes"]}
    assert [scorer.score("yes", item) for _ in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", ["2", "-0.1", "float('nan')", "None", "'1'", "b'1'"])
def test_what_is_no_score_is_refused_with_the_item(own, value):
    with pytest.raises(InputError, match="expected a number from 0 to 1, on the item"):
        own(f"def score(reply, item):\n    return {value}\n").score("x", {"prompt": "p"})


def test_an_own_function_that_raises_says_on_which_item_and_can_cross_processes(own):
    with pytest.raises(InputError, match="raised KeyError: 'gone', on the item") as caught:
        own("def score(reply, item):\n    return item['gone']\n").score("x", {"prompt": "p"})
    assert "KeyError" in str(pickle.loads(pickle.dumps(caught.value)))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("no.such:f", "is named by its path"),
        ("/no/such.py:f", "cannot be read"),
        ("json:dunps", r"has no function 'dunps'; did you mean 'dumps'"),
    ],
)
def test_functions_that_are_not_there_are_told(name, fault):
    with pytest.raises(InputError, match=fault):
        scorer_of(name)


def test_a_file_that_cannot_be_imported_is_told(own):
    with pytest.raises(InputError, match=r"importing .*mine\.py raised ZeroDivisionError"):
        own("1 / 0\n")


def test_a_function_or_file_that_exits_takes_nobody_along(own):
    with pytest.raises(InputError, match="raised SystemExit: 1, on the item"):
        own("def score(reply, item):\n    raise SystemExit(1)\n").score("x", {"prompt": "p"})
    with pytest.raises(InputError, match=r"importing .*mine\.py raised SystemExit"):
        own("exit()\n")
