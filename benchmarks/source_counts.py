"""Counts that docs/architecture.md states: python -m benchmarks.source_counts [FOLDER OF ANOTHER CHECKOUT]"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("sweeps", "trainers", "evaluators", "cluster")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    files = {
        path: path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    trees = {path: ast.parse(text) for path, text in files.items()}
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, Function)]
    lines = [line for text in files.values() for line in text.splitlines()]
    folders = Counter(path.parent.relative_to(root) for path in files if path.name != "__init__.py")
    folder, most = folders.most_common(1)[0]
    longest = max(files, key=lambda path: files[path].count("\n"))
    many = [f for f in functions if parameters(f) > 6]
    long = {limit: sum(len(line) > limit for line in lines) for limit in (110, 120)}
    for what, count in (
        ("files in the largest folder", f"{most} ({folder})"),
        ("lines of the largest file", f"{len(files[longest].splitlines())} ({longest.relative_to(root)})"),
        ("`.extra[`", sum(text.count(".extra[") for text in files.values())),
        ("functions of > 6 parameters", f"{len(many)}, of them > 6 by place {sum(by_place(f) > 6 for f in many)}"),
        ("`fmt: skip`", sum("fmt: skip" in line for line in lines)),
        ("lines above 110, above 120", f"{long[110]}, {long[120]} of {len(lines)}"),
        ("own imports inside functions", sum(len(list(own_imports(tree))) for tree in trees.values())),
    ):
        print(f"{what:30} {count}")


def parameters(function: Function) -> int:
    """Parameters without self and cls, `*` and `**`."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def by_place(function: Function) -> int:
    """Those that a call may give without their names."""
    return len([a for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls")])


def own_imports(tree: ast.Module) -> Iterator[str]:
    """Imports of the four packages that run when a function is called."""
    inside = {id(node): node for f in ast.walk(tree) if isinstance(f, Function) for node in ast.walk(f)}
    for node in inside.values():
        if isinstance(node, ast.ImportFrom) and re.match(rf"({'|'.join(PACKAGES)})(\.|$)", node.module or ""):
            yield str(node.module)


if __name__ == "__main__":
    main()
