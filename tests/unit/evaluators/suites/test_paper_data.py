"""The paper's data from the hub, against a stand-in of it."""

import json
import sys
from types import SimpleNamespace

import pytest

from evaluators.suites import paper_data
from evaluators.suites.paper import BENCHMARKS
from evaluators.suites.paper_data import SOURCES, fetch
from sweeps.errors import InputError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Two data sets and a file; everything else is refused, as without network."""

    def load_dataset(name, config, split):
        if (name, config, split) == ("HuggingFaceH4/MATH-500", None, "test"):
            return [{"problem": "1+1?", "answer": "2"}, {"problem": "é?", "answer": "3"}]
        raise ConnectionError("cannot reach the hub\nat all")

    def hf_hub_download(name, file, repo_type):
        (tmp_path / file).write_text(json.dumps({"question_content": file}) + "\n")
        return str(tmp_path / file)

    monkeypatch.setattr(paper_data, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))


def test_what_the_hub_has_is_written_and_what_fails_leaves_no_file(hub, tmp_path):
    folder = tmp_path / "data"
    found = fetch(folder, ["math500", "livecodebench", "ifeval"])
    assert found == {
        "math500": "2 rows",
        "livecodebench": "2 rows",
        "ifeval": "failed: ConnectionError: cannot reach the hub",
    }
    assert {file.name for file in folder.iterdir()} == {"math500.jsonl", "livecodebench.jsonl"}
    assert json.loads((folder / "math500.jsonl").read_text("utf-8").splitlines()[1])["problem"] == "é?"
    assert fetch(folder, ["math500"]) == {"math500": "is there already"}


def test_every_benchmark_but_the_one_to_be_filled_by_hand_has_a_source():
    assert set(SOURCES) == set(BENCHMARKS) - {"hex_phi"}


def test_an_unknown_name_and_a_missing_package_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'math500'"):
        fetch(tmp_path, ["math50"])
    monkeypatch.setattr(paper_data, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install datasets"):
        fetch(tmp_path)
