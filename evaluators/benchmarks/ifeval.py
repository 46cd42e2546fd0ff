"""IFEval (Zhou et al. 2023): the authors' own checks of verifiable instructions, as lm-evaluation-harness keeps them.

A row of google/IFEval names its instructions (`instruction_id_list`) and their arguments (`kwargs`, one object each, with
null for what an instruction does not take). A reply counts when it follows all of them, as it stands ("strict").

    pip install 'dipsweep[ifeval]'
    python -m nltk.downloader punkt_tab      once on each machine: how the checks count sentences and words
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from sweeps.errors import InputError

CHECKS: Final = "lm_eval.tasks.ifeval.utils"
NEEDED: Final = ("lm_eval", "langdetect", "nltk", "immutabledict")


@cache
def authors_checks() -> Any:
    """Returns lm-eval's module of checks.

    Raises:
        InputError: it, what it needs, or NLTK's data is not on this machine.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"IFEval's checks need {', '.join(missing)}: pip install 'dipsweep[ifeval]'")
    try:  # looked for here, since lm-eval would fetch it on import
        import_module("nltk").data.find("tokenizers/punkt_tab")
    except LookupError:
        raise InputError("IFEval's checks need NLTK's data: python -m nltk.downloader punkt_tab") from None
    import_module("langdetect").DetectorFactory.seed = 0  # its guess is random otherwise
    return import_module(CHECKS)


def target_of(row: Mapping[str, Any]) -> str:
    """Returns a row's prompt, instructions and arguments as JSON, without the nulls.

    Raises:
        ValueError: the row names an instruction that the authors do not check, or not as many arguments.
        InputError: see `authors_checks`.
    """
    known = authors_checks().instructions_registry.INSTRUCTION_DICT
    names, given = list(row["instruction_id_list"]), list(row["kwargs"])
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"instruction_id_list: {unknown[0]}")
    if len(names) != len(given):
        raise ValueError("kwargs")
    arguments = [{name: value for name, value in one.items() if value is not None} for one in given]
    return json.dumps({"prompt": row["prompt"], "instruction_id_list": names, "kwargs": arguments}, sort_keys=True)


def follows(answer: str, target: str) -> bool:
    """True when a reply follows all instructions of `target_of`."""
    checks = authors_checks()
    asked = checks.InputExample(key=0, **json.loads(target))
    return bool(checks.test_instruction_following_strict(asked, answer).follow_all_instructions)
