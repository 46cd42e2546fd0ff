"""Fetches the data of the suite `paper:DIR` from the Hugging Face hub, where that can be reached.

    pip install datasets
    python -m evaluators.suites.paper_data DIR [NAME …]

Writes one JSONL file a benchmark with the public rows as they are; a file that is there already stays. Sweeps themselves
never fetch anything. GPQA and HEx-PHI ask for an account and for consent to their terms; HEx-PHI has no files that could
be read without it, so its prompts are to be put into `hex_phi.jsonl` ({"prompt": …} a line) by hand. The names of data
sets are from their cards; this was tried against a stand-in of the hub only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeps.errors import DipsweepError, InputError, nearest


class Source(NamedTuple):
    """Where a benchmark lies on the hub: rows of a split, or JSONL files as they are."""

    name: str
    config: str | None = None
    split: str = "test"
    files: tuple[str, ...] = ()


SOURCES: Final[Mapping[str, Source]] = {
    "math500": Source("HuggingFaceH4/MATH-500"),
    "aime24": Source("HuggingFaceH4/aime_2024", split="train"),
    "livecodebench": Source("livecodebench/code_generation_lite", files=("test.jsonl", "test2.jsonl")),  # release v2
    "gpqa_diamond": Source("Idavidrein/gpqa", "gpqa_diamond", "train"),
    "mmlu_pro": Source("TIGER-Lab/MMLU-Pro"),
    "ifeval": Source("google/IFEval", split="train"),
    "truthfulqa": Source("truthfulqa/truthful_qa", "multiple_choice", "validation"),
    "truthfulqa_open": Source("truthfulqa/truthful_qa", "generation", "validation"),
    "halueval": Source("pminervini/HaluEval", "qa_samples", "data"),
}


def fetch(folder: Path, names: Sequence[str] = tuple(SOURCES)) -> dict[str, str]:
    """Fetches benchmarks into a folder; returns per name what came of it. One that fails leaves no file.

    Raises:
        InputError: a name is unknown, or `datasets` is not installed.
    """
    if unknown := [name for name in names if name not in SOURCES]:
        raise InputError(
            f"benchmark {unknown[0]!r} is unknown{nearest(unknown[0], SOURCES)}; known: {', '.join(SOURCES)}"
        )
    if find_spec("datasets") is None:
        raise InputError("fetching benchmarks needs the package datasets: pip install datasets")
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _fetch(SOURCES[name], folder / f"{name}.jsonl") for name in names}


def _fetch(source: Source, file: Path) -> str:
    if file.exists():
        return "is there already"
    aside = file.with_suffix(".aside")
    try:
        with aside.open("w", encoding="utf-8") as out:
            count = sum(
                1 for row in _rows(source) if out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            )
    except Exception as error:  # the hub's errors are many: no network, no account, no such file
        aside.unlink()
        return f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    aside.replace(file)
    return f"{count} rows"


def _rows(source: Source) -> Iterable[Mapping[str, Any]]:
    if not source.files:
        yield from import_module("datasets").load_dataset(source.name, source.config, split=source.split)
    for file in source.files:
        place = import_module("huggingface_hub").hf_hub_download(source.name, file, repo_type="dataset")
        with open(place, encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(SOURCES), metavar="NAME", help=", ".join(SOURCES))
    options = parser.parse_args()
    try:
        found = fetch(options.folder, options.names)
    except DipsweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, what in found.items():
        print(f"{name}: {what}")
    return int(any(what.startswith("failed") for what in found.values()))


if __name__ == "__main__":
    sys.exit(main())
