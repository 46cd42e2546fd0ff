"""IFEval through lm-eval's checks: a stand-in here, the real ones where they are installed."""

import sys
from types import SimpleNamespace

import pytest

from evaluators.benchmarks import ifeval
from evaluators.benchmarks.ifeval import authors_checks, follows, target_of
from sweeps.errors import InputError
from tests.support import fake_ifeval

ROW = {
    "prompt": "Write about the sea.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"num_words": None}, {"num_words": 3, "relation": "at least", "keyword": None}],
}


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.setattr(ifeval, "authors_checks", lambda: fake_ifeval)


@pytest.mark.usefixtures("checks")
def test_every_instruction_of_a_prompt_has_to_be_followed():
    target = target_of(ROW)
    assert follows("The sea is wide", target)
    assert not follows("The sea, wide as it is", target)
    assert not follows("The sea", target)
    assert not follows("", target)


@pytest.mark.usefixtures("checks")
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"instruction_id_list": ["keywords:unheard_of"], "kwargs": [{}]}, "keywords:unheard_of"),
        ({"kwargs": []}, "kwargs"),
    ],
)
def test_rows_of_another_shape_are_refused(change, fault):
    with pytest.raises(ValueError, match=fault):
        target_of(ROW | change)


def test_what_the_checks_need_is_named_with_the_command_that_gets_it(monkeypatch):
    monkeypatch.setattr(ifeval, "find_spec", lambda name: None if name == "langdetect" else name)
    with pytest.raises(InputError, match=r"need langdetect: pip install 'dipsweep\[ifeval\]'"):
        authors_checks.__wrapped__()

    def find(place):
        raise LookupError(place)

    monkeypatch.setattr(ifeval, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(data=SimpleNamespace(find=find)))
    with pytest.raises(InputError, match=r"python -m nltk\.downloader punkt_tab"):
        authors_checks.__wrapped__()


@pytest.mark.optional
def test_the_authors_own_checks_tell_the_same():
    try:
        authors_checks()
    except InputError as e:
        pytest.skip(str(e))
    assert follows("The sea is wide", target_of(ROW))
    assert not follows("The sea, wide as it is", target_of(ROW))
    german = {"prompt": "p", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]}
    assert follows("Das Meer ist heute sehr blau und ruhig.", target_of(german))
    assert not follows("The sea is very blue and calm today.", target_of(german))
