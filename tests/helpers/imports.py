"""Read the package's imports, and the order of its packages from CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.golden import ROOT

PACKAGE = ROOT / "s3prl_dphubert"
TABLE = re.compile(r"<!-- order of the packages -->\n+```\n(.*?)```", re.DOTALL)


def layers() -> dict[str, int]:
    """Unit at the top of the package -> its row in CONTRIBUTING's table, the ground first."""
    (table,) = TABLE.findall((ROOT / "CONTRIBUTING.md").read_text())
    rows = [line.split("  ")[0].split() for line in table.strip().splitlines()]
    return {unit: number for number, row in enumerate(rows) for unit in row}


def modules(package: Path) -> dict[str, Path]:
    """Dotted name below the package -> file; a package's ``__init__`` has the package's name.

    Files in ``assets`` are data, also the generated code that lies beside a model's weights.
    """
    names = {path: path.relative_to(package).with_suffix("").parts for path in package.rglob("*.py")}
    return {
        ".".join(n for n in parts if n != "__init__"): path
        for path, parts in names.items()
        if parts[0] != "assets"
    }


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a module imports, anywhere in it, also where types alone are meant."""
    here = name.split(".") if name else []
    home = here if path.name == "__init__.py" else here[:-1]
    tree = ast.parse(path.read_text(encoding="utf8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [
                alias.name.split(".")[1:] for alias in node.names if alias.name.split(".")[0] == PACKAGE.name
            ]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                base = home[: len(home) - node.level + 1] + module
            elif module[0] == PACKAGE.name:
                base = module[1:]
            else:
                continue
            imported = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES":
            imported = [[*home, *text.split(".")] for text in ast.literal_eval(node.value).values()]
        else:
            continue
        for parts in imported:
            while ".".join(parts) not in known:
                parts = parts[:-1]
            if ".".join(parts) != name:
                yield ".".join(parts)


def graph(package: Path) -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    known = modules(package)
    return {name: set(imports(name, path, known)) for name, path in known.items()}


def unit(module: str) -> str:
    """The file or folder at the top of the package that a module belongs to."""
    return module.partition(".")[0] or "__init__"
