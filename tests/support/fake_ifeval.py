"""A stand-in for lm-eval's module of IFEval's checks, with two of its instructions."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace


@dataclass
class InputExample:
    key: int
    instruction_id_list: list
    prompt: str
    kwargs: list


def no_comma(reply):
    return "," not in reply


def number_words(reply, num_words, relation):
    count = len(reply.split())
    return count >= num_words if relation == "at least" else count < num_words


INSTRUCTION_DICT = {"punctuation:no_comma": no_comma, "length_constraints:number_words": number_words}
instructions_registry = SimpleNamespace(INSTRUCTION_DICT=INSTRUCTION_DICT)


def test_instruction_following_strict(inp, response):
    pairs = zip(inp.instruction_id_list, inp.kwargs, strict=True)
    each = [bool(response.strip()) and INSTRUCTION_DICT[name](response, **given) for name, given in pairs]
    return SimpleNamespace(follow_all_instructions=all(each))


test_instruction_following_strict.__test__ = False
