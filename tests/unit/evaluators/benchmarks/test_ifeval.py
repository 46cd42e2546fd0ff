"""IFEval's instructions: for each a reply that follows and one that does not."""

import sys

import pytest

from evaluators.benchmarks import ifeval
from evaluators.benchmarks.ifeval import INSTRUCTIONS, LANGUAGE, follows, target_of
from sweeps.errors import InputError

CASES = [
    ("keywords:existence", {"keywords": ["sea", "Blue"]}, "The sea is blue.", "The seaside is blue."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "at least"}, "Sea, sea!", "The sea."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "less than"}, "The sea.", "Sea, sea!"),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "The seaside.", "The Sea."),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 3, "let_relation": "at least"},
        "Three bEes",
        "Bees",
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One, two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n\nTwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "Two words", "Now three words"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen, second.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nP. S. Hello", "Bye, ps"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S hello", "Bye. P.S. hello"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<The sea>>\nIt is blue.", "<< >>"),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. I did.", "I did. Say it."),
    ("startend:end_checker", {"end_phrase": "That is all."}, 'Well. "That is all."', "That is all. Bye."),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "THE SEA is",
        "THE sea",
    ),
    ("change_case:english_capital", {}, "THE SEA, 1.", "The SEA"),
    ("change_case:english_lowercase", {}, "the sea, 1.", "The sea"),
    ("punctuation:no_comma", {}, "The sea.", "The sea, the sky."),
    ("startend:quotation", {}, ' "The sea." ', '"The sea.'),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES)
def test_an_instruction_is_followed_or_not(name, arguments, right, wrong):
    target = target_of({"instruction_id_list": [name], "kwargs": [{**arguments, "unused": None}]})
    assert follows(right, target)
    assert not follows(wrong, target)
    assert not follows("", target)


def test_all_kinds_of_the_data_set_are_here_and_tried():
    assert len(INSTRUCTIONS) == 25
    assert {case[0] for case in CASES} == set(INSTRUCTIONS) - {LANGUAGE}


def test_every_instruction_of_a_prompt_has_to_be_followed():
    row = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    assert follows('"Yes."', target_of(row))
    assert not follows('"Yes, no."', target_of(row))


def test_a_language_is_told_by_langdetect_and_without_it_the_row_says_how_to_get_it(monkeypatch):
    row = {"instruction_id_list": [LANGUAGE], "kwargs": [{"language": "de"}]}
    monkeypatch.setattr(ifeval, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install langdetect"):
        target_of(row)

    class Known:
        """langdetect's two names, for two sentences."""

        class DetectorFactory:
            seed = None

        LangDetectException = ValueError
        detect = staticmethod(lambda text: "de" if "Meer" in text else "en")

    monkeypatch.setattr(ifeval, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "langdetect", Known)
    assert follows("Das Meer ist blau.", target_of(row))
    assert not follows("The sea is blue.", target_of(row))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"instruction_id_list": ["keywords:unheard_of"], "kwargs": [{}]}, "keywords:unheard_of"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "kwargs"),
    ],
)
def test_rows_of_another_shape_are_refused(row, fault):
    with pytest.raises(ValueError, match=fault):
        target_of(row)
