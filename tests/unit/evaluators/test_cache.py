import shutil
from dataclasses import replace

import pytest

from cluster.train.functions import score_job
from evaluators.cache import ScoreCache
from evaluators.decoding import Decoding
from evaluators.digest import folder_digest
from evaluators.evaluate import evaluate
from evaluators.scores import Scores
from sweeps.checkpoints.manifest import seal
from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import EvalSpec
from sweeps.errors import DamagedCheckpoint, InputError
from sweeps.journal.lines import unsealed
from sweeps.replies import ReplyWriter, kept_files, read_replies
from trainers.model.files.builtin import builtin_folder

SCORES = Scores(
    {"math/score": 0.5}, {"math/score": 0.05}, {"math/score": 4}, "mini@1", "ff", {"math/a": "c"}, {"cpu_s": 1.0}
)
GREEDY = {"engine": "transformers", "dtype": "float32"}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(builtin_folder("tiny-s"), tmp_path / "model")
    return tmp_path / "model"


def test_what_is_put_comes_back(tmp_path):
    cache = ScoreCache(tmp_path)
    assert cache.get("d", "mini@1", GREEDY) is None
    cache.put("d", "mini@1", GREEDY, SCORES)
    assert cache.get("d", "mini@1", GREEDY) == SCORES


@pytest.mark.parametrize(
    "key", [("e", "mini@1", GREEDY), ("d", "mini@2", GREEDY), ("d", "mini@1", {**GREEDY, "dtype": "bfloat16"})]
)
def test_another_checkpoint_suite_or_setting_is_another_entry(tmp_path, key):
    cache = ScoreCache(tmp_path)
    cache.put("d", "mini@1", GREEDY, SCORES)
    assert cache.get(*key) is None


def test_an_entry_with_a_changed_digit_counts_as_absent_and_one_without_checksum_is_read(tmp_path):
    cache = ScoreCache(tmp_path)
    cache.put("d", "mini@1", GREEDY, SCORES)
    (entry,) = tmp_path.glob("*/*.json")
    line = entry.read_bytes()
    entry.write_bytes(line.replace(b'"math/score": 0.5', b'"math/score": 0.9', 1))
    assert cache.get("d", "mini@1", GREEDY) is None
    entry.write_bytes(unsealed(line.strip()))  # of an earlier version
    assert cache.get("d", "mini@1", GREEDY) == SCORES


def test_a_damaged_entry_counts_as_absent_and_is_written_again(tmp_path):
    cache = ScoreCache(tmp_path)
    cache.put("d", "mini@1", GREEDY, SCORES)
    (entry,) = tmp_path.glob("*/*.json")
    entry.write_text('{"metrics": ')
    assert cache.get("d", "mini@1", GREEDY) is None
    cache.put("d", "mini@1", GREEDY, SCORES)
    assert cache.get("d", "mini@1", GREEDY) == SCORES
    assert not list(tmp_path.glob("*/*.aside"))


def test_a_checkpoint_is_known_by_its_bytes_not_by_its_place(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert folder_digest(folder) == folder_digest(tmp_path / "copy") == folder_digest(builtin_folder("tiny-s"))
    (folder / "training.json").write_text("{}")
    (folder / "trainer.safetensors").write_bytes(b"moments")
    assert folder_digest(folder) == folder_digest(tmp_path / "copy")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert folder_digest(folder) != folder_digest(tmp_path / "copy")


def test_a_checkpoint_is_scored_once(folder, tmp_path):
    cache = ScoreCache(tmp_path / "scores")
    first = evaluate(folder, EvalSpec(items=5), cache=cache)
    for file in folder.glob("*.safetensors"):
        file.unlink()  # nothing could load this any more
    again = evaluate(folder, EvalSpec(items=5), cache=cache, digest=folder_digest(builtin_folder("tiny-s")))
    assert (again.metrics, again.outcomes) == (first.metrics, first.outcomes)
    assert again.cost["cpu_s"] < first.cost["cpu_s"]
    with pytest.raises(InputError, match="no weights"):
        evaluate(folder, EvalSpec(items=5), decoding=Decoding(think_cap=4), cache=cache)


@pytest.mark.parametrize("mode", ["sample", "all", "none"])
def test_replies_come_with_cached_scores_too(tmp_path, mode):
    cache, how = ScoreCache(tmp_path / "scores"), EvalSpec(items=3)
    for trial in ("first", "second"):
        writer = ReplyWriter(tmp_path / "sweep", mode, trial, 0, 0)
        scores = evaluate(builtin_folder("tiny-xs"), how, cache=cache, keep=writer)
        assert scores.cached == (trial == "second")
    if mode == "none":
        assert kept_files(tmp_path / "sweep") == {}
        return
    first, second = (read_replies(tmp_path / "sweep", trial) for trial in ("first", "second"))
    assert [replace(r, trial="") for r in first] == [replace(r, trial="") for r in second] != []
    assert {r.role for r in first} == {"math", "transfer", "general", "safety"}
    assert all(r.outcomes for r in first)


def test_cached_scores_without_the_replies_that_are_wanted_are_measured_again(tmp_path):
    cache, how = ScoreCache(tmp_path / "scores"), EvalSpec(items=2)
    before = evaluate(builtin_folder("tiny-xs"), how, cache=cache)
    writer = ReplyWriter(tmp_path / "sweep", "all", "base-tiny-xs", 0, 0)
    after = evaluate(builtin_folder("tiny-xs"), how, cache=cache, keep=writer)
    assert not after.cached
    assert after.outcomes == before.outcomes
    replies = read_replies(tmp_path / "sweep", "base-tiny-xs")
    right = [r.outcomes[m] for r in replies for m in r.outcomes if m == "safety/harm"]
    assert sum(right) / len(right) == after.metrics["safety/harm"]


def test_a_cache_that_cannot_be_written_costs_no_scores(folder, tmp_path, caplog):
    """That of another user, say; here a file stands in its place."""
    (tmp_path / "scores").write_text("")
    cache = ScoreCache(tmp_path / "scores")
    assert evaluate(folder, EvalSpec(suite="mini", items=2), cache=cache).metrics
    assert "not cached: " in caplog.text


def test_a_checkpoint_that_is_not_what_its_sweep_wrote_gets_no_score(folder, tmp_path):
    saved = seal(folder, 4)
    job = EvalJob("t-1", 1, 4, str(folder), "tiny-s", EvalSpec(suite="mini", items=2), digest=saved.digest)
    scores = score_job(job, scores=tmp_path / "scores")
    assert score_job(job, scores=tmp_path / "scores").cached
    assert evaluate(folder, job.evaluation, cache=ScoreCache(tmp_path / "scores")).metrics == scores.metrics
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match=r"model\.safetensors has changed since it was written"):
        score_job(job, scores=tmp_path / "scores")
    seal(folder, 4)  # as of another trial, whose folder was copied over this one's
    with pytest.raises(DamagedCheckpoint, match="holds other weights than its sweep wrote there"):
        score_job(job, scores=tmp_path / "scores")


def test_weights_count_by_whatever_name_and_a_trainer_s_state_does_not(tmp_path):
    """An index may place weights in files of any name; with those left out, two bases of one shape shared their scores."""
    before = folder_digest(tmp_path)
    (tmp_path / "trainer.safetensors").write_bytes(b"moments")
    assert folder_digest(tmp_path) == before
    (tmp_path / "weights-a.safetensors").write_bytes(b"one")
    first = folder_digest(tmp_path)
    (tmp_path / "weights-a.safetensors").write_bytes(b"two")
    assert before != first != folder_digest(tmp_path) != before
