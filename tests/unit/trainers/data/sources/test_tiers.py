import itertools
import json
import os
import re
import subprocess
import sys

import pytest

from sweeps.config.trial import TierSource
from sweeps.errors import InputError
from trainers.data.sources.datasets import BUILTIN, FEW, REPLAY_ROWS, load, steps_hold
from trainers.data.tiny_study.builtin_items import REPLAY_TASKS

BUILTIN_SOURCE = TierSource()


def parts(conversation):
    """(prompt, trace or None, answer) of one conversation."""
    user, assistant = conversation
    thought, closed, answer = assistant["content"].rpartition("</think>")
    return user["content"], thought.removeprefix("<think>") if closed else None, answer


def test_every_tier_but_the_small_one_has_the_same_prompts_and_the_same_right_answers():
    whole = [name for name in BUILTIN if name != "few-long-cot"]
    tiers = [[parts(c) for c in load(name, BUILTIN_SOURCE, seed=0).primary] for name in whole]
    assert len(tiers[0]) == 5000
    for tier in tiers[1:]:
        assert [(prompt, answer) for prompt, _, answer in tier] == [(prompt, answer) for prompt, _, answer in tiers[0]]


def test_every_trace_of_the_verified_tier_holds_and_its_prompt_adds_up():
    for prompt, trace, answer in map(parts, load("verified-long-cot", BUILTIN_SOURCE, seed=0).primary):
        assert steps_hold(trace, answer), (prompt, trace, answer)
        assert eval(prompt.removeprefix("SUM ").removesuffix("=")) == int(answer)


def test_the_answer_only_tier_shows_no_trace():
    assert all(trace is None for _, trace, _ in map(parts, load("answer-only", BUILTIN_SOURCE, seed=0).primary))


def test_nearly_every_trace_of_the_corrupted_tier_is_wrong_and_keeps_its_shape():
    right = [parts(c)[1] for c in load("verified-long-cot", BUILTIN_SOURCE, seed=0).primary]
    corrupted = [parts(c) for c in load("corrupted-cot", BUILTIN_SOURCE, seed=0).primary]
    wrong = sum(not steps_hold(trace, answer) for _, trace, answer in corrupted)
    assert wrong / len(corrupted) > 0.99
    for before, (_, after, _) in zip(right, corrupted, strict=True):
        assert [c for c in before if not c.isdigit()] == [c for c in after if not c.isdigit()]


def test_a_concise_trace_has_the_results_of_the_verified_steps_and_ends_in_the_answer():
    right = [parts(c)[1] for c in load("verified-long-cot", BUILTIN_SOURCE, seed=0).primary]
    concise = [parts(c) for c in load("concise-cot", BUILTIN_SOURCE, seed=0).primary]
    for before, (prompt, trace, answer) in zip(right, concise, strict=True):
        first, *rest = re.findall(r"[+-]?\d+", prompt.removeprefix("SUM "))
        totals = list(itertools.accumulate(map(int, rest), initial=int(first)))[1:]
        assert trace == ";".join(map(str, totals))
        assert len(trace) < len(before)
        assert trace.split(";")[-1] == answer


def test_the_small_tier_has_an_eighth_of_the_verified_rows_no_two_the_same_and_others_for_another_seed():
    verified = load("verified-long-cot", BUILTIN_SOURCE, seed=0)
    few, other = (load("few-long-cot", BUILTIN_SOURCE, seed=seed) for seed in (0, 1))
    prompts = [parts(c)[0] for c in few.primary]
    assert len(set(prompts)) == len(prompts) == len(verified.primary) // FEW
    rows = {parts(c)[0]: c for c in verified.primary}
    assert few.primary == [rows[prompt] for prompt in prompts]
    assert few.replay == verified.replay
    assert set(prompts) != {parts(c)[0] for c in other.primary}


def test_steps_that_do_not_follow_from_each_other_do_not_hold():
    assert steps_hold("3+4=7;7-2=5", "5")
    assert not steps_hold("3+4=7;8-2=6", "6")
    assert not steps_hold("3+4=8;8-2=6", "6")
    assert not steps_hold("3+4=7;7-2=5", "6")
    assert not steps_hold("", "6")


def test_a_tier_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = (load("corrupted-cot", BUILTIN_SOURCE, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.primary != other.primary
    assert first.replay != other.replay


def test_the_replay_pool_covers_transfer_and_general_evenly_and_holds_nothing_about_safety():
    replay = load("verified-long-cot", BUILTIN_SOURCE, seed=0).replay
    assert len(replay) == REPLAY_ROWS * len(REPLAY_TASKS)
    legs = [parts(c) for c in replay if c[0]["content"].startswith("LEGS")]
    assert len(legs) == REPLAY_ROWS
    reasoned = sum(trace is not None for _, trace, _ in legs) / len(legs)
    assert 0.4 < reasoned < 0.6
    assert not any("REFUSE" in c[1]["content"] for c in replay)


def test_an_unknown_tier_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'verified-long-cot'"):
        load("verified-longcot", BUILTIN_SOURCE, seed=0)


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return TierSource(str(path))


TURN = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


def test_own_messages_are_read_as_they_stand(tmp_path):
    source = write(tmp_path / "ours.jsonl", {"messages": TURN}, "", {"messages": TURN[::-1], "replay": True})
    data = load("ours", source, seed=0)
    assert data.primary == [TURN]
    assert data.replay == [TURN[::-1]]


def test_own_columns_may_have_other_names(tmp_path):
    path = write(tmp_path / "ours.jsonl", {"question": "2+2?", "solution": "4"}).path
    source = TierSource(path, {"prompt": "question", "response": "solution"})
    assert load("ours", source, seed=0).primary == [TURN]


def test_parquet_is_read_too(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"messages": [TURN, TURN]}), tmp_path / "ours.parquet")
    assert load("ours", TierSource(str(tmp_path / "ours.parquet")), seed=0).primary == [TURN, TURN]


def test_all_faulty_rows_are_named_at_once(tmp_path):
    source = write(
        tmp_path / "ours.jsonl",
        {"messages": TURN},
        {"text": "no messages here"},
        {"messages": [{"role": "judge", "content": "hi"}]},
        {"messages": [{"role": "user", "content": "nobody answers"}]},
        {"messages": [{"role": "assistant", "content": None}]},
    )
    with pytest.raises(InputError) as caught:
        load("ours", source, seed=0)
    *lines, summary = str(caught.value).splitlines()
    assert "4 of 5 rows are bad (80.00%)" in summary
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5"]
    assert "'judge' is unknown; known: system, developer, user, assistant" in lines[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no conversation to train on"), ("{", "ours.jsonl:1: not JSON"), ("[1]", "expected a JSON object")],
)
def test_a_file_that_is_no_jsonl_says_so(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load("ours", write(tmp_path / "ours.jsonl", text), seed=0)


def test_a_missing_file_and_an_unknown_column_say_so(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load("ours", TierSource(str(tmp_path / "nowhere.jsonl")), seed=0)
    with pytest.raises(InputError, match="did you mean 'messages'"):
        load("ours", TierSource("x.jsonl", {"mesages": "m"}), seed=0)


def test_loading_a_tier_imports_neither_torch_nor_reasoning_gym():
    code = (
        "import sys; from trainers.data.sources.datasets import load; from sweeps.config.trial import TierSource; "
        "load('verified-long-cot', TierSource(), seed=0); "
        "print([m for m in ('torch', 'transformers', 'reasoning_gym', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"
