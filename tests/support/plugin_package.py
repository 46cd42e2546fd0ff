"""A package with entry points, as pip would install it: modules and a .dist-info in a folder of the path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path, modules: Mapping[str, str], entry_points: str, name: str = "my-package", version: str = "0.1"
) -> None:
    """Puts modules, by file name, and the entry points (as in entry_points.txt) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, code in modules.items():
        (folder / file).write_text(code)
    facts = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (facts / "entry_points.txt").write_text(entry_points)
