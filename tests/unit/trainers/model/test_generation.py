"""Generation settings of a base, as its checkpoints have them."""

import json
from pathlib import Path

import pytest

from tests.support.models.tiny_sft import run, write_base


@pytest.mark.parametrize(
    ("base", "saved"),
    [
        (
            {"temperature": 0.9, "top_p": 0.6},
            {"do_sample": True, "temperature": 0.9, "top_p": 0.6, "eos_token_id": [1]},
        ),
        ({"do_sample": True, "top_k": 20, "eos_token_id": 1}, {"do_sample": True, "top_k": 20, "eos_token_id": [1]}),
        ({"length_penalty": 2.0, "pad_token_id": 0}, {"pad_token_id": 0, "eos_token_id": [1]}),
        ({"eos_token_id": [1, 5]}, {"eos_token_id": [1, 5]}),
    ],
)
def test_settings_that_transformers_does_not_save_fail_no_trial(tmp_path, base, saved):
    folder = write_base(tmp_path / "base")
    (folder / "generation_config.json").write_text(json.dumps(base))
    checkpoint = Path(run(folder, tmp_path / "run", (1,)).checkpoints[-1].path)
    found = json.loads((checkpoint / "generation_config.json").read_text())
    del found["transformers_version"]
    assert found == saved
