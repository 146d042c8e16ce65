"""Find the functions that the package calls, by their full names."""

from __future__ import annotations

import ast
import functools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.imports import PACKAGE


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Calls in a module, with names such as ``json.loads`` however they were imported."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            first, dot, rest = name.partition(".")
            yield names.get(first, first) + dot + rest, node


@functools.cache
def places(patterns: tuple[str, ...], package: Path = PACKAGE) -> dict[str, set[str]]:
    """Module, as a path below the package -> the functions that it calls whose full names match a pattern."""
    pattern = re.compile("|".join(f"(?:{each})" for each in patterns))
    by_module: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        if called := {name for name, _ in calls(path) if pattern.fullmatch(name)}:
            by_module[path.relative_to(package).as_posix()] = called
    return by_module


def package_with(statement: str, folder: Path) -> Path:
    """Return a copy of the package with one more statement, in ``data/audio.py``."""
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    with (copy / "data" / "audio.py").open("a", encoding="utf8") as file:
        file.write(f"\n{statement}\n")
    return copy
