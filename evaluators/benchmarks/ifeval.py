"""IFEval's 25 kinds of verifiable instructions (Zhou et al. 2023), checked by code of our own on the public rows.

A row of google/IFEval names its instructions (`instruction_id_list`) and their arguments (`kwargs`, one object each, with
null for what an instruction does not take). A reply counts when it follows all of them, as it stands ("strict").

Known to differ from the authors' checks: sentences end at . ! ? before a space (theirs: NLTK's Punkt), and all-capital or
all-lower-case replies are not asked to be English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from evaluators.benchmarks.instructions import bullets, paragraphs, sentences, words
from sweeps.errors import InputError

Arguments = Mapping[str, Any]
LANGUAGE: Final = "language:response_language"
CONSTRAINED: Final = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def compared(count: int, relation: str, bound: int) -> bool:
    """`at least` or `less than`, the two relations of the data set."""
    return count >= bound if relation == "at least" else count < bound


def mentions(reply: str, word: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE))


def starred_paragraphs(reply: str) -> list[str]:
    return [part for part in re.split(r"\s?\*\*\*\s?", reply) if part.strip()]


def first_word(paragraph: str) -> str:
    found = words(paragraph)
    return found[0].lower() if found else ""


def begins_paragraph(reply: str, a: Arguments) -> bool:
    parts = paragraphs(reply)
    if len(parts) != a["num_paragraphs"] or not 1 <= a["nth_paragraph"] <= len(parts):
        return False
    return first_word(parts[a["nth_paragraph"] - 1]) == str(a["first_word"]).lower()


def is_json(reply: str, a: Arguments) -> bool:
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", reply.strip(), flags=re.IGNORECASE)
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True


def highlights(reply: str) -> int:
    return sum(bool(part.strip("*").strip()) for part in re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", reply))


def has_postscript(reply: str, marker: str) -> bool:
    forms = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return re.search(forms.get(marker.strip(), re.escape(marker.strip())), reply, re.IGNORECASE) is not None


def two_responses(reply: str, a: Arguments) -> bool:
    parts = [part.strip() for part in reply.split("******")]
    if parts and not parts[0]:
        parts = parts[1:]
    if parts and not parts[-1]:
        parts = parts[:-1]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def in_language(reply: str, language: str) -> bool:
    library: Any = import_module("langdetect")
    library.DetectorFactory.seed = 0  # its guess is random otherwise
    try:
        return bool(library.detect(reply) == language)
    except library.LangDetectException:
        return False


def capital_words(reply: str) -> int:
    return sum(word.isupper() for word in words(reply))


INSTRUCTIONS: Final[Mapping[str, Callable[[str, Arguments], bool]]] = {
    "keywords:existence": lambda r, a: all(mentions(r, k) for k in a["keywords"]),
    "keywords:frequency": lambda r, a: compared(mentions(r, a["keyword"]), a["relation"], a["frequency"]),
    "keywords:forbidden_words": lambda r, a: not any(mentions(r, k) for k in a["forbidden_words"]),
    "keywords:letter_frequency": lambda r, a: compared(
        r.lower().count(str(a["letter"]).lower()), a["let_relation"], a["let_frequency"]
    ),
    LANGUAGE: lambda r, a: in_language(r, a["language"]),
    "length_constraints:number_sentences": lambda r, a: compared(len(sentences(r)), a["relation"], a["num_sentences"]),
    "length_constraints:number_paragraphs": lambda r, a: len(starred_paragraphs(r)) == a["num_paragraphs"],
    "length_constraints:number_words": lambda r, a: compared(len(words(r)), a["relation"], a["num_words"]),
    "length_constraints:nth_paragraph_first_word": begins_paragraph,
    "detectable_content:number_placeholders": lambda r, a: len(re.findall(r"\[[^\]]*\]", r)) >= a["num_placeholders"],
    "detectable_content:postscript": lambda r, a: has_postscript(r, a["postscript_marker"]),
    "detectable_format:number_bullet_lists": lambda r, a: bullets(r) == a["num_bullets"],
    "detectable_format:constrained_response": lambda r, a: any(option in r for option in CONSTRAINED),
    "detectable_format:number_highlighted_sections": lambda r, a: highlights(r) >= a["num_highlights"],
    "detectable_format:multiple_sections": lambda r, a: (
        len(re.findall(rf"\s?{re.escape(a['section_spliter'])}\s?\d+\s?", r)) >= a["num_sections"]
    ),
    "detectable_format:json_format": is_json,
    "detectable_format:title": lambda r, a: any(found.strip() for found in re.findall(r"<<([^\n]+?)>>", r)),
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": lambda r, a: r.strip().lower().startswith(str(a["prompt_to_repeat"]).strip().lower()),
    "startend:end_checker": lambda r, a: r.strip().strip('"').lower().endswith(str(a["end_phrase"]).strip().lower()),
    "change_case:capital_word_frequency": lambda r, a: compared(
        capital_words(r), a["capital_relation"], a["capital_frequency"]
    ),
    "change_case:english_capital": lambda r, a: r.isupper(),
    "change_case:english_lowercase": lambda r, a: r.islower(),
    "punctuation:no_comma": lambda r, a: "," not in r,
    "startend:quotation": lambda r, a: len(r.strip()) > 1 and r.strip()[0] == r.strip()[-1] == '"',
}


def target_of(row: Mapping[str, Any]) -> str:
    """Returns a row's instructions and arguments as JSON, without the nulls.

    Raises:
        ValueError: the row names an instruction that is not among the 25, or not as many arguments.
        InputError: a row asks for a language, and langdetect is not installed.
    """
    names, given = list(row["instruction_id_list"]), list(row["kwargs"])
    if unknown := [name for name in names if name not in INSTRUCTIONS]:
        raise ValueError(f"instruction_id_list: {unknown[0]}")
    if len(names) != len(given):
        raise ValueError("kwargs")
    if LANGUAGE in names and find_spec("langdetect") is None:
        raise InputError("IFEval asks for languages: pip install langdetect")
    arguments = [{name: value for name, value in one.items() if value is not None} for one in given]
    return json.dumps(list(zip(names, arguments, strict=True)), sort_keys=True)


def follows(answer: str, target: str) -> bool:
    """True when a reply follows all instructions of `target_of`."""
    return bool(answer.strip()) and all(INSTRUCTIONS[name](answer, given) for name, given in json.loads(target))
