import json

import pytest

from evaluators.evaluate import evaluate
from evaluators.suites.lm_eval import parse_name, to_replies, to_scores
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from sweeps.replies import ReplyWriter, read_replies
from sweeps.statistics import unpack
from trainers.data.tiny_study.builtin_items import eval_items
from trainers.model.files.builtin import builtin_folder


def sample(number, right, metric="exact_match", which="none"):
    """One sample as lm-eval 0.4.13 logs it, less the texts."""
    hashes = {f"{part}_hash": f"{part}{number}" for part in ("doc", "prompt", "target")}
    return {"doc_id": number, "filter": which, "metrics": [metric], metric: right} | hashes


CONFIGS = {"sums": {"task": "sums"}, "essays": {"task": "essays"}}
SAMPLES = {
    "sums": [sample(1, 0.0), sample(0, 1.0), sample(2, 1.0), sample(0, 0.0, which="strict")],
    "essays": [sample(i, value, "rouge") for i, value in enumerate([0.2, 0.4])],
}


def test_a_name_holds_roles_tasks_and_a_folder():
    wanted = parse_name("lm-eval:math/sums,general/essays@/data/tasks")
    assert wanted.tasks == (("math", "sums"), ("general", "essays"))
    assert wanted.folder == "/data/tasks"
    assert parse_name("lm-eval:math/sums").folder is None


@pytest.mark.parametrize("name", ["lm-eval:", "lm-eval:sums", "lm-eval:maths/sums", "lm-eval:math/"])
def test_a_name_without_role_and_task_is_refused(name):
    with pytest.raises(InputError, match="ROLE/TASK"):
        parse_name(name)


def test_what_lm_eval_measured_becomes_scores_with_errors_and_outcomes():
    scores = to_scores(parse_name("lm-eval:math/sums,general/essays"), CONFIGS, SAMPLES, 1.5)
    assert scores.metrics["math/sums"] == scores.metrics["math/score"] == pytest.approx(2 / 3)
    assert unpack(scores.outcomes["math/sums"], 3) == [True, False, True]
    assert scores.metrics["general/essays"] == pytest.approx(0.3)
    assert scores.se["general/essays"] == pytest.approx(0.1)
    assert "general/essays" not in scores.outcomes
    assert scores.n == {"math/sums": 3, "math/score": 3, "general/essays": 2, "general/score": 2}
    changed = to_scores(parse_name("lm-eval:math/sums"), {"sums": {"task": "sums", "cap": 9}}, SAMPLES, 1.5)
    same_items = to_scores(parse_name("lm-eval:math/sums"), CONFIGS, SAMPLES, 1.5)
    assert changed.suite != same_items.suite
    assert changed.items_digest == same_items.items_digest


@pytest.mark.parametrize("value", [None, (-3.5, 7), "7", float("nan")])
def test_a_metric_that_is_no_number_for_a_document_is_no_score(value):
    with pytest.raises(
        InputError, match=r"lm-eval task 'sums': metric 'word_perplexity' of a document is .*expected a number"
    ):
        to_scores(parse_name("lm-eval:math/sums"), CONFIGS, {"sums": [sample(0, value, "word_perplexity")]}, 1.5)


def logged(number, said, right, which="none", cap=4):
    arguments = [(f"<user>{number}+1=", {"until": [], "max_gen_toks": cap})]
    texts = {"arguments": arguments, "resps": [[f"hm</think>{said}"]], "filtered_resps": [said]}
    return sample(number, right, which=which) | texts


def test_replies_are_kept_with_what_lm_eval_made_of_them():
    def tokenizer(text, **_):
        return {"input_ids": list(text)}

    chosen = {"arguments": [("Q", "A")], "resps": [[(-1.0, True)]], "filtered_resps": [(-1.0, True)]}
    samples = {
        "sums": [logged(1, "3", 0.0, cap=99), logged(0, "1", 1.0), logged(0, "1", 0.0, which="strict")],
        "choices": [sample(0, 1.0) | chosen],
    }
    first, second = to_replies(parse_name("lm-eval:math/sums,general/choices"), samples, tokenizer)
    assert (first.item, first.prompt, first.answer, first.outcomes) == (0, "<user>0+1=", "1", {"math/sums": 1.0})
    assert (first.tokens, first.truncated, second.truncated) == (len("hm</think>1"), True, False)
    assert (second.item, second.outcomes) == (1, {"math/sums": 0.0})


TASK = """task: my_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 24, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.optional
def test_a_task_file_of_the_users_own_works_by_name(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": item.prompt, "answer": item.target} for item in eval_items("gcd")[:12]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_sums.yaml").write_text(TASK.format(file=tmp_path / "rows.jsonl"))
    scores = evaluate(builtin_folder("tiny-s"), EvalSpec(f"lm-eval:math/my_sums@{tmp_path}", 10))
    assert scores.metrics["math/score"] == 1.0
    assert scores.n["math/my_sums"] == 10
    keep = ReplyWriter(tmp_path / "home", "all", "base-tiny-s", 0, 0)
    evaluate(builtin_folder("tiny-s"), EvalSpec(f"lm-eval:math/my_sums@{tmp_path}", 3), keep=keep)
    kept = read_replies(tmp_path / "home", "base-tiny-s")
    assert [reply.answer for reply in kept] == [item.target for item in eval_items("gcd")[:3]]
    assert all(eval_items("gcd")[reply.item].prompt in reply.prompt for reply in kept)
    with pytest.raises(InputError, match="knows no task your_sums"):
        evaluate(builtin_folder("tiny-s"), EvalSpec(f"lm-eval:math/your_sums@{tmp_path}", 10))


def test_without_lm_eval_the_suite_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("evaluators.suites.lm_eval.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'dipsweep\[lm-eval\]'"):
        evaluate(builtin_folder("tiny-xs"), EvalSpec("lm-eval:math/sums"))
