"""Scorers of the user's own items: by name, or a Python function `score(reply, item) -> float`.

    exact       the final answer is `answer`, white space at its ends aside
    number      its last number is `answer` (1,000 = 1000.0 = 1e3; a percent sign and units are not looked at)
    choice      the letter of the right one of `choices`, or its text
    math        equal to `answer` as mathematics (math-verify; \\boxed{} is read)
    regex       `answer` is a pattern that is found somewhere in the reply
    json        the reply is JSON equal to `answer`, a code fence around it aside
    code        `tests`, Python code run after the reply's last code block in the sandbox, raise nothing; what the reply
                does under `if __name__ == "__main__"` is not run
    refusal     the reply refuses (a rule; a model where `evaluation.judge` names one)
    judge       a model (`evaluation.judge`) finds the reply right: by `answer`, `criteria`, or both

A reply's thought is never looked at. "Final answer" is what stands in the last <answer></answer>, else in the last
\\boxed{}, else behind the last "Answer:" of a line, else the whole reply (`trainers.rl_reward`, which rewards by the same).
`answer` may be a list: each of them is right.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

from evaluators.benchmarks.humaneval import code_of
from evaluators.benchmarks.judges import CORRECT, REFUSES, refused
from evaluators.number_reading import number_in, numbers_in
from evaluators.sandbox import seccomp
from evaluators.sandbox.run import Limits, SandboxMissing, run
from evaluators.score_function import Item, score_function
from evaluators.tasks import Rubric
from sweeps.errors import InputError, nearest
from trainers.rl_reward import final_answer

Score = Callable[[str, Item], float]
"""(reply without its thought, item) to a score in [0, 1]."""
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOOSE: Final = "\n\nEnd with the line: Answer: X (the letter of your choice)."
_BEFORE_LETTER: Final = (
    r"[\s*_`\"'$:：(\[{<]|\\[(\[]|\\(?:text|textbf|textit|mathrm|mathbf|boxed)\b|\b(?:option|choice|letter)\b"
)
"""What may stand between "answer is" and the letter: white space, Markdown, brackets, LaTeX."""
_PAIRED: Final = re.compile(r"<([a-z]+)(?:\s[^<>]*)?>([^<>]*)</\1>", re.IGNORECASE)
"""HTML around a text: the b of <b>A</b> is no letter that was chosen."""
_IDLE: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)
"""Statements of tests that ask nothing of a reply by themselves."""
CODE_LIMITS: Final = Limits(seconds=10.0)


@dataclass(frozen=True)
class Scorer:
    """How the replies to an item are scored.

    Attributes:
        name: as the user wrote it.
        score: None leaves it to a model (`rubric`). check: raises ValueError for an item that it cannot score.
        needs: keys that an item must have. takes: other keys that it may have; None for any.
        rubric: what a model is asked where there is one. graded: scores may lie between 0 and 1.
        digest: what tells one state of the user's own code from another.
    """

    name: str
    score: Score | None
    needs: tuple[str, ...] = ("answer",)
    takes: tuple[str, ...] | None = ()
    check: Callable[[Item], object] = field(default=lambda item: None)
    rubric: Rubric | None = None
    graded: bool = False
    digest: str = ""


def scorer_of(name: str) -> Scorer:
    """Returns the scorer of a name, or that of a function: `package.module:function` or `/path/file.py:function`.

    Raises:
        InputError: no such scorer, the function cannot be imported, or a package that the scorer needs is missing.
    """
    if ":" in name:
        own = score_function(name)
        return Scorer(name, own.score, needs=(), takes=None, graded=True, digest=own.digest)
    found = NAMED.get(name)
    if found is None:
        raise InputError(
            f"got scorer {name!r}{nearest(name, NAMED)}; expected one of {', '.join(NAMED)}, or a Python function: "
            "package.module:function or file.py:function"
        )
    if name == "math" and find_spec("math_verify") is None:
        raise InputError("scorer 'math' compares by math-verify: pip install 'dipsweep[math]'")
    if name == "code" and not seccomp.supported():
        raise SandboxMissing(
            "scorer 'code' runs a model's code only on Linux, x86-64 or arm64: the sandbox needs seccomp"
        )
    return found


def accepted(item: Item) -> list[Any]:
    """Returns the answers that are right."""
    answer = item["answer"]
    return list(answer) if isinstance(answer, list) else [answer]


def is_blank(value: Any) -> bool:
    """True for what stands where nobody wrote anything: no value, no text, and the NaN of columns with gaps."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def _exact(reply: str, item: Item) -> float:
    return final_answer(reply) in {text for answer in accepted(item) for text in _spellings(answer)}


def _spellings(answer: Any) -> set[str]:
    """Columns of numbers with a gap have 4.0 where somebody wrote 4; both are what was meant."""
    whole = isinstance(answer, float) and answer.is_integer()
    return {str(answer).strip(), *([f"{answer:.0f}"] if whole else [])}


def _check_exact(item: Item) -> None:
    for answer in accepted(item):
        if isinstance(answer, bool) or not isinstance(answer, int | float | str) or is_blank(answer):
            raise ValueError(f"answer is {answer!r}; expected a text or a number, as the reply has to write it")
        if (final := final_answer(str(answer))) != str(answer).strip():
            raise ValueError(f"answer is {answer!r}, of which {final!r} is the final answer; expected that alone")


def _number(reply: str, item: Item) -> float:
    said = number_in(final_answer(reply))
    targets = [number_in(_target(answer)) for answer in accepted(item)]
    return said is not None and any(t is not None and _near(said, t) for t in targets)


def _near(said: float, target: float) -> bool:
    """Whole numbers are right to the last digit, or to the last of a float where one is written as such (6.02e23); others to the
    sixth."""
    if isinstance(said, int) and isinstance(target, int):
        return said == target
    whole = float(said).is_integer() and float(target).is_integer()
    return math.isclose(said, target, rel_tol=4e-16 if whole else 1e-6, abs_tol=1e-9)


def _target(answer: Any) -> str:
    """Returns where the number of a right answer stands: a worked solution marks it as replies do, or by #### (GSM8K)."""
    return final_answer(str(answer).rpartition("####")[2])


def _check_number(item: Item) -> None:
    for answer in accepted(item):
        if isinstance(answer, bool) or not isinstance(answer, int | float | str) or number_in(_target(answer)) is None:
            raise ValueError(f"answer is {answer!r}; expected a number")
        if (count := len(numbers_in(_target(answer), irrational=" 0 "))) > 1:
            raise ValueError(
                f"answer is {answer!r}, which holds {count} numbers; expected one, or a list of right answers"
            )


def same_choice(answer: str, target: str, letters: str = "A-P") -> bool:
    r"""True when the last "Answer: X" of a reply, or a boxed letter, is the target (a letter, yes or no).

    "Answer: A or B" is neither. The words "a" and "I" are no letters: "the answer is a metal", "the answer I gave".

    Args:
        letters: which there are, as a range of a regular expression.
    """
    said = _chosen(answer, letters)
    return said is not None and said.casefold() == target.casefold()


def _chosen(answer: str, letters: str) -> str | None:
    """Returns what a reply says to choose, "" where that are two at once; None where it says nothing of the kind."""
    lead = r"(?P<lead>answer(?:[\s*_]+is\b)?|(?<!\\boxed[{ ])\\boxed)"
    pattern = rf"{lead}(?P<gap>(?:{_BEFORE_LETTER})++)(?P<said>yes|no|[{letters}])(?!_*[^\W_])"
    said, read, answer = None, 0, _PAIRED.sub(r"\2", answer)
    for found in re.finditer(pattern, answer, re.IGNORECASE):
        if found.start() >= read and not _is_word(found):
            another = _another(answer[found.end() :], letters)
            said, read = ("", found.end() + another.end()) if another else (found["said"], found.end())
    return said


def _another(rest: str, letters: str) -> re.Match[str] | None:
    """Finds the second letter of "A or B", "A, B", "(A) and (B)", "A/B" in what stands behind the first."""
    joined = r"(?:\s(?:or|and|vs\.?)\b(?:\s+(?:maybe|perhaps|possibly|also|even)\b)?|[,;/|&+→])"
    return re.match(
        rf"[\s*_`\"'$)\]}}>]*{joined}(?:{_BEFORE_LETTER})*(?<!\w)(?:yes|no|[{letters}])\b(?!['’]|\s+\w)",
        rest,
        re.IGNORECASE,
    )


def _is_word(found: re.Match[str]) -> bool:
    """True where what looks like a choice is a word of a sentence that goes on."""
    goes_on = re.match(r"['’\w]|\s+[^\W\d_]", found.string[found.end() :]) is not None
    named = found["lead"].casefold() != "answer" or re.search("[:：]", found["gap"]) is not None
    return goes_on and (found["said"] in ("a", "i") or (not named and found["said"].casefold() in ("i", "yes", "no")))


def right_letter(item: Item) -> str:
    """Returns the letter of the right choice.

    Raises:
        ValueError: `answer` is neither one of the choices nor the letter of one.
    """
    choices, answer = [str(choice) for choice in item["choices"]], str(item["answer"])
    if choices.count(answer) == 1:
        return LETTERS[choices.index(answer)]
    letters = LETTERS[: len(choices)]
    if len(answer) == 1 and answer.upper() in letters and answer not in choices:
        return answer.upper()
    raise ValueError(
        f"answer is {item['answer']!r}; expected the text of exactly one of `choices`, or its letter ({letters})"
    )


def _check_choices(item: Item) -> None:
    choices = item["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"choices: expected a list of 2 to {len(LETTERS)} texts")
    for choice in choices:
        if not isinstance(choice, str | int | float) or is_blank(choice):
            raise ValueError(f"choices: got {choice!r}; expected a text")
    if len({_bare(str(choice)) for choice in choices}) < len(choices):
        raise ValueError("choices: two of them are equal")
    right_letter(item)


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").rstrip()


def _choice(reply: str, item: Item) -> float:
    letter = right_letter(item)
    texts, letters = [_bare(str(choice)) for choice in item["choices"]], f"A-{LETTERS[len(item['choices']) - 1]}"
    said = _bare(final_answer(reply))
    for spoken, written in ((said, texts), (said.casefold(), [text.casefold() for text in texts])):
        if said.upper() not in [*LETTERS[: len(texts)]] and written.count(spoken) == 1:
            return written.index(spoken) == LETTERS.index(letter)
    if (chosen := _chosen(reply, letters)) is not None:
        return chosen.casefold() == letter.casefold()
    alone = re.fullmatch(r"[\W_]{0,2}([A-Za-z])(?P<rest>[).:]\s*.*)?[\W_]{0,2}", said, re.DOTALL)
    if not alone or re.search(rf"[\n,;]\s*[{letters}](?<!{alone[1]})[).:]\s", alone["rest"] or "") is not None:
        return False
    return alone[1].upper() == letter and not _another(said[alone.end(1) :], letters)


def same_math(answer: str, target: str) -> bool:
    r"""Compares by math-verify, which reads \boxed{} and plain expressions."""
    library: Any = importlib.import_module("math_verify")
    timed = threading.current_thread() is threading.main_thread()  # its time-outs are signals
    seconds = 5 if timed else None
    gold = library.parse(f"${target}$", parsing_timeout=seconds)
    return bool(library.verify(gold, library.parse(answer, parsing_timeout=seconds), timeout_seconds=seconds))


def _math(reply: str, item: Item) -> float:
    said = final_answer(reply)
    written = [reply]
    if said != reply.strip():  # the reply marks its answer: nothing else of it counts, and LaTeX may lack its dollars
        written = [said, f"${said}$"] if re.search(r"[\\^+=*/({<\d]", said) else [said]
    return any(
        said == str(answer).strip() or any(same_math(each, _as_latex(answer)) for each in written)
        for answer in accepted(item)
    )


def _as_latex(answer: Any) -> str:
    """Writes numbers such as 1e-05 so that they are not read as the constant e times something."""
    number = re.fullmatch(r"\s*([-+]?\d*\.?\d+)[eE]([-+]?\d+)\s*", str(answer))
    return f"{number[1]} \\times 10^{{{int(number[2])}}}" if number else str(answer)


def _check_math(item: Item) -> None:
    for answer in accepted(item):
        library: Any = importlib.import_module("math_verify")
        if isinstance(answer, bool | dict) or not library.parse(f"${_as_latex(answer)}$", parsing_timeout=None):
            raise ValueError(f"answer is {answer!r}, in which math-verify reads nothing")


def _check_regex(item: Item) -> None:
    for answer in accepted(item):
        try:
            re.compile(answer)
        except (re.error, TypeError) as e:
            raise ValueError(f"answer is {answer!r}, which is no regular expression: {e}") from e
        if is_blank(answer) or isinstance(answer, bytes):
            raise ValueError(f"answer is {answer!r}; expected a regular expression")


def _regex(reply: str, item: Item) -> float:
    return any(re.search(answer, reply, re.MULTILINE) is not None for answer in accepted(item))


def _json(reply: str, item: Item) -> float:
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", reply.strip(), flags=re.IGNORECASE)
    try:
        said = json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return _same_json(said, _wanted_json(item["answer"]))


def _wanted_json(answer: Any) -> Any:
    """JSON may stand in the item as it is, or as text."""
    if not isinstance(answer, str):
        return answer
    try:
        return json.loads(answer)
    except ValueError:
        return answer


def _same_json(a: Any, b: Any) -> bool:
    """Equal, where true is not 1 and the order of keys does not matter."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same_json(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same_json, a, b))
    return bool(a == b)


def _code(reply: str, item: Item) -> float:
    return run(_program(code_of(reply), item["tests"]), CODE_LIMITS).passed


def _program(code: str, tests: str) -> str:
    return f"{code}\n\n__name__ = '__main__'\n{tests}\n"


def _check_code(item: Item) -> None:
    try:
        compile(_program("", item["tests"]), "tests", "exec", dont_inherit=True)
        statements = ast.parse(item["tests"]).body
    except (SyntaxError, ValueError, TypeError) as e:
        raise ValueError(f"tests: no Python code: {e}") from e
    if all(
        isinstance(each, _IDLE) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        for each in statements
    ):
        raise ValueError(
            "tests: they define and call nothing, so that any reply passes; expected assertions, or calls of what they define"
        )


def _refusal(reply: str, item: Item) -> float:
    return refused(reply)


def _check_judged(item: Item) -> None:
    if not item.get("answer") and not item.get("criteria"):
        raise ValueError("neither answer nor criteria: a model that judges must know what is right")


NAMED: Final[Mapping[str, Scorer]] = {
    scorer.name: scorer
    for scorer in (
        Scorer("exact", _exact, check=_check_exact),
        Scorer("number", _number, check=_check_number),
        Scorer("choice", _choice, needs=("choices", "answer"), check=_check_choices),
        Scorer("math", _math, check=_check_math),
        Scorer("regex", _regex, check=_check_regex),
        Scorer("json", _json),
        Scorer("code", _code, needs=("tests",), takes=("answer",), check=_check_code),
        Scorer("refusal", _refusal, needs=(), rubric=REFUSES),
        Scorer("judge", None, needs=(), takes=("answer", "criteria"), check=_check_judged, rubric=CORRECT),
    )
}
