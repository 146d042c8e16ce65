"""Find the functions that the package calls, by their full names."""

from __future__ import annotations

import ast
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


def places(functions: set[str], package: Path = PACKAGE) -> dict[str, set[str]]:
    """Module, as a path below the package -> those of the functions that it calls."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        called = {name for name, _ in calls(path)} & functions
        if called:
            found[path.relative_to(package).as_posix()] = called
    return found
