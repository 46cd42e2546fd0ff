import random

import pytest

from trainers.data.tiny_study.builtin_items import EVAL_ITEMS, REPLAY_TASKS, eval_items, training_items
from trainers.data.tiny_study.renderings import HARMFUL, HARMLESS, REFUSAL
from trainers.data.tiny_study.tasks import IN_DOMAIN, ROLES, TASKS, dataset, held_out, verifier_score, verify


def item(task):
    return eval_items(task)[0]


def test_every_role_has_tasks_and_every_task_has_items():
    assert {task.role for task in TASKS.values()} == set(ROLES)
    for name in TASKS:
        items = eval_items(name)
        assert 40 <= len(items) <= EVAL_ITEMS
        assert len({i.prompt for i in items}) == len(items), f"{name} asks the same question twice"


@pytest.mark.parametrize("name", TASKS)
def test_shipped_items_are_what_reasoning_gym_generates_and_its_verifier_accepts_their_answers(name):
    for shipped in eval_items(name)[::40]:
        entry = dataset(name, "eval")[shipped.index]
        assert (shipped.prompt, shipped.trace, shipped.target) == tuple(TASKS[name].render(entry))
        assert verifier_score(shipped, shipped.target) == 1.0


@pytest.mark.parametrize("name", [IN_DOMAIN, *REPLAY_TASKS])
def test_shipped_training_rows_are_what_reasoning_gym_generates(name):
    source = dataset(name, "sft" if name == IN_DOMAIN else "base")
    shipped = {(i.prompt, i.trace, i.target) for i, _ in training_items(name)}
    for index in range(0, 60, 3):
        text = TASKS[name].render(source[index])
        kept = TASKS[name].whole or not held_out(text.prompt)
        assert (tuple(text) in shipped) == kept


def test_no_evaluation_prompt_is_trained_on_unless_the_task_is_a_learned_table():
    for name in (IN_DOMAIN, *REPLAY_TASKS):
        trained = {i.prompt for i, _ in training_items(name)}
        shared = [i.prompt for i in eval_items(name) if i.prompt in trained]
        assert TASKS[name].whole or not shared


def test_only_a_verifier_score_of_exactly_one_counts():
    sum_item = next(i for i in eval_items("chain_sum") if i.target == "10")
    assert verify(sum_item, "10")
    assert verify(sum_item, " +10 ")  # reasoning-gym gives 1.0 to another spelling of the number
    assert verifier_score(sum_item, "10 or 11") > 0  # partial credit …
    assert not verify(sum_item, "10 or 11")  # … is none
    assert not verify(sum_item, "")
    assert not verify(item("prime_factorization"), "1*" + item("prime_factorization").target)


def test_answers_are_read_in_the_compact_form_and_judged_by_the_verifier():
    knights = item("knights_knaves")
    flipped = knights.target.translate(str.maketrans("KN", "NK"))
    assert verify(knights, knights.target)
    assert not verify(knights, flipped)
    assert not verify(knights, "K")
    factors = next(i for i in eval_items("prime_factorization") if i.target.count("*") and len(set(i.target)) > 2)
    assert verify(factors, "*".join(reversed(factors.target.split("*"))))


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"coin_flip"}))
def test_every_answer_that_the_verifier_accepts_is_accepted(name):
    draw = random.Random(0)
    for shipped in eval_items(name)[:: max(1, len(eval_items(name)) // 12)]:
        for answer in map(str.strip, _variants(shipped.target, draw)):
            assert verify(shipped, answer) == (verifier_score(shipped, answer) == 1.0), (shipped, answer)


def test_a_prefix_of_a_probability_is_wrong_though_its_verifier_accepts_it():
    flip = next(i for i in eval_items("coin_flip") if i.target == "0.109375")
    assert verifier_score(flip, "0") == 1.0
    assert not verify(flip, "0")
    assert verify(flip, "7/64")


def _variants(target: str, draw: random.Random) -> list[str]:
    """Other spellings, near misses, and nonsense made of the target's own characters."""
    spellings = [
        "+" + target,
        "0" + target,
        target + ".0",
        target + "0",
        target.lower(),
        target.upper(),
        target.title(),
    ]
    parts = [separator.join(reversed(target.split(separator))) for separator in ",* "]
    shuffled = ["".join(draw.sample(target, len(target))) for _ in range(3)]
    return [*spellings, *parts, *shuffled, f" {target}", f"{target},", f"{target};{target}", "", "-", "1/0"]


def test_refusal_is_one_exact_word():
    harm = item("harm")
    assert harm.target == REFUSAL
    assert any(noun in harm.prompt for noun in HARMFUL)
    assert verify(harm, REFUSAL)
    assert not verify(harm, "refuse")
    assert not verify(harm, "5")


def test_harmless_requests_are_solved_not_refused():
    benign = item("benign")
    assert any(noun in benign.prompt for noun in HARMLESS)
    assert not verify(benign, REFUSAL)
    assert verify(benign, benign.target)
