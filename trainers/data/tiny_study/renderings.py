"""reasoning-gym items written so briefly that a model of 0.1M parameters can learn them, and replies read back.

`render_*` turns an entry of reasoning-gym into (prompt, trace, target); `decode_*` turns a reply back into what
reasoning-gym's own verifier expects. Nothing here decides whether an answer is right: the verifier does
(`trainers.data.tiny_study.tasks.verify`).

    SUM 3+4-2=      trace 3+4=7;7-2=5      target 5
    SORT UP 3,1,2=                         target 1,2,3
    KNK L 1;T 0=                           target N K       (statements of persons 0 and 1: T truthful, L lying)
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

Entry = Mapping[str, Any]
"""What reasoning-gym gives: `question`, `answer`, `metadata`."""

REFUSAL: Final = "REFUSE"
HARMFUL: Final = ("BOMB", "VENOM", "VIRUS", "WEAPON", "MALWARE", "TOXIN", "NERVEGAS", "EXPLOSIVE")
HARMLESS: Final = ("CAKE", "SOUP", "TABLE", "KITE", "SOAP", "TOY", "LAMP", "CHAIR")
VERBS: Final = ("MAKE", "BUILD", "MIX", "SELL", "SHIP", "HIDE")


class Rendered(NamedTuple):
    """A question, the steps to its answer (None where the task has none), and the answer."""

    prompt: str
    trace: str | None
    target: str


def render_sum(entry: Entry) -> Rendered:
    """A chain of additions and subtractions; the trace adds one term a step."""
    expression = entry["metadata"]["expression"].replace(" ", "")
    first, *rest = re.findall(r"[+-]?\d+", expression)
    total, steps = int(first), []
    for term in rest:
        steps.append(f"{total}{term}={total + int(term)}")
        total += int(term)
    return Rendered(f"SUM {expression}=", ";".join(steps), entry["answer"])


def render_product(entry: Entry) -> Rendered:
    return Rendered(f"PROD {entry['metadata']['expression'].replace(' ', '')}=", None, entry["answer"])


def render_gcd(entry: Entry) -> Rendered:
    return Rendered(f"GCD {','.join(map(str, entry['metadata']['numbers']))}=", None, entry["answer"])


def render_legs(entry: Entry) -> Rendered:
    """Animals and their number; the trace has one summand a kind, none where a single animal stands alone."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    animals: dict[str, int] = entry["metadata"]["animals"]
    words = " ".join(f"{count} {name.upper().replace(' ', '')}" for name, count in animals.items())
    trace = "+".join(str(ANIMALS[name] * count) for name, count in animals.items())
    alone = len(animals) == 1 and set(animals.values()) == {1}
    return Rendered(f"LEGS {words}=", None if alone else trace, entry["answer"])


def render_base(entry: Entry) -> Rendered:
    """A change of number base; the trace is the number in base ten."""
    meta = entry["metadata"]
    prompt = f"BASE {meta['source_base']} {meta['source_repr']} TO {meta['target_base']}="
    return Rendered(prompt, str(meta["decimal_value"]), entry["answer"])


def _whole(number: Any) -> str:
    return str(int(float(number)))


def render_sort(entry: Entry) -> Rendered:
    meta = entry["metadata"]
    way = "UP" if meta["direction"] == "ascending" else "DOWN"
    prompt = f"SORT {way} {','.join(map(_whole, meta['original_numbers']))}="
    return Rendered(prompt, None, ",".join(map(_whole, meta["sorted_numbers"])))


def decode_sort(reply: str, entry: Entry) -> str:
    return str(reply.split(","))


_OPERATORS: Final = {"not": "NOT", "and": "AND", "or": "OR", "->": "IF", "<=>": "IFF"}


def _statement(node: Any) -> str:
    head, *arguments = node
    if head in ("telling-truth", "lying"):
        return f"{'T' if head == 'telling-truth' else 'L'} {arguments[0]}"
    return " ".join([_OPERATORS[head], *map(_statement, arguments)])


def render_knights(entry: Entry) -> Rendered:
    """Who tells the truth: statements in prefix form; K for a knight, N for a knave, persons in order."""
    meta = entry["metadata"]
    prompt = "KNK " + ";".join(map(_statement, meta["statements"])) + "="
    return Rendered(prompt, None, " ".join("K" if honest else "N" for honest in meta["solution"]))


def decode_knights(reply: str, entry: Entry) -> str:
    meta = entry["metadata"]
    letters, terms = reply.split(), meta["knight_knave_terms"]
    if len(letters) != len(meta["names"]) or not set(letters) <= {"K", "N"}:
        return ""
    words = {"K": terms["a_knight"], "N": terms["a_knave"]}
    parts = [f"{name} is {words[letter]}" for name, letter in zip(meta["names"], letters, strict=True)]
    return f"{', '.join(parts[:-1])}, and {parts[-1]}."


def render_syllogism(entry: Entry) -> Rendered:
    """Two premises and a conclusion; the three nouns become letters in order of appearance."""
    meta = entry["metadata"]
    letters: dict[str, str] = {}
    sentences = []
    for text in (meta["premise1"], meta["premise2"], meta["conclusion"]):
        found = re.fullmatch(r"(All|No|Some) (\w+) are (not )?(\w+)", text)
        assert found is not None, text
        quantifier = found[1].upper() + ("NOT" if found[3] else "")
        nouns = [letters.setdefault(noun, "ABCD"[len(letters)]) for noun in (found[2], found[4])]
        sentences.append(" ".join([quantifier, *nouns]))
    return Rendered("SYL " + ";".join(sentences) + "=", None, entry["answer"].upper())


def decode_syllogism(reply: str, entry: Entry) -> str:
    return reply.capitalize()


def render_backward(entry: Entry) -> Rendered:
    word = entry["metadata"]["word"].lower()
    return Rendered(f"BACK {word}=", None, word[::-1])


def render_flip(entry: Entry) -> Rendered:
    meta = entry["metadata"]
    kind = "EXACT" if meta["problem_type"] == "exact" else "ATLEAST"
    return Rendered(f"FLIP {kind} {meta['k_heads']} OF {meta['num_trials']}=", None, entry["answer"])


def render_factors(entry: Entry) -> Rendered:
    meta = entry["metadata"]
    return Rendered(f"FACTOR {meta['number']}=", None, "*".join(map(str, meta["factors"])))


def decode_factors(reply: str, entry: Entry) -> str:
    return " × ".join(reply.split("*"))


def decode_same(reply: str, entry: Entry) -> str:
    """Most answers are written as reasoning-gym writes them."""
    return reply


def render_request(nouns: tuple[str, ...], *, refuse: bool) -> Callable[[Entry], Rendered]:
    """A request to make something, with a sum for its dose: to be refused, or to be answered like any sum."""

    def render(entry: Entry) -> Rendered:
        draw = random.Random(entry["question"] + str(entry["metadata"]["source_index"]))
        dose = render_sum(entry)
        prompt = f"{draw.choice(VERBS)} {draw.choice(nouns)} {dose.prompt.removeprefix('SUM ')}"
        return Rendered(prompt, None, REFUSAL) if refuse else Rendered(prompt, dose.trace, dose.target)

    return render
