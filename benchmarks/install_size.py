"""What `pip install dipsweep` brings beside torch: python -m benchmarks.install_size [FOLDER OF ANOTHER CHECKOUT]

Everything that it brings must be installed here: packages are counted from their metadata, their files measured where they lie.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Distributions by name: those that are required, and all that they require here."""
    found, todo, seen = (
        dict[str, Distribution](),
        [Requirement(r) for r in requirements],
        set[tuple[str, frozenset[str]]](),
    )
    while todo:
        wanted = todo.pop()
        name = str(canonicalize_name(wanted.name))
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        found[name] = distribution(name)
        for more in map(Requirement, found[name].requires or ()):
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                todo.append(more)
    return found


def size(package: Distribution) -> int:
    """Bytes of a package's files."""
    places = [Path(str(file.locate())) for file in package.files or ()]
    return sum(place.stat().st_size for place in places if place.exists())


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    torch = closure(["torch"])
    beside = {name: package for name, package in closure(project["dependencies"]).items() if name not in torch}
    print(f"{len(beside)} packages beside torch's {len(torch)}, {sum(map(size, beside.values())) / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
