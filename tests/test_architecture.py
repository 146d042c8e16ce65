"""Imports follow the order of packages in CONTRIBUTING.md, and no files need each other in a circle."""

from __future__ import annotations

import ast
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.helpers.imports import PACKAGE, graph, layers, modules, unit

SAME_NAME = {
    "expert": "s3prl's word for it; files that `link` put into checkouts import both",
    "librispeech": "the corpora of s3prl's ctc keep s3prl's names in compat/ctc_corpus",
    "common_voice": "the same",
    "snips": "the same",
}


def against(package: Path) -> list[str]:
    """Imports that no row of the table allows."""
    order = layers()
    return sorted(
        f"{module} -> {other}"
        for module, others in graph(package).items()
        for other in others
        if unit(module) != unit(other) and order[unit(other)] >= order[unit(module)]
    )


def circles(package: Path) -> list[list[str]]:
    """Sets of modules that need each other (Tarjan's strongly connected components)."""
    edges = graph(package)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in edges[module]:
            if other not in index:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            component = [stack.pop()]
            while component[-1] != module:
                component.append(stack.pop())
            if len(component) > 1:
                groups.append(sorted(component))

    for module in edges:
        if module not in index:
            visit(module)
    return groups


def test_the_table_names_every_unit():
    assert set(layers()) == {unit(name) for name in modules(PACKAGE)}


def test_imports_follow_the_table():
    assert against(PACKAGE) == []


def test_no_files_need_each_other():
    assert circles(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("utils/files.py", "from ..data import audio"),
        ("training/trainer.py", "def lazy():\n    from ..compression.pipeline import compress\n"),
        ("data/__init__.py", "import s3prl_dphubert.upstream.entries"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, module, statement):
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    path = copy / module
    path.write_text(f"{path.read_text()}\n{statement}\n")
    (wrong,) = against(copy)
    assert wrong.startswith(module.removesuffix(".py").removesuffix("/__init__").replace("/", ".") + " -> ")


def test_a_circle_of_files_is_found(tmp_path):
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    path = copy / "data" / "audio.py"
    path.write_text(f"{path.read_text()}\nfrom . import batches\n")
    (circle,) = circles(copy)
    assert {"data.audio", "data.batches"} <= set(circle)


def test_few_modules_lie_in_the_root():
    assert len([name for name in modules(PACKAGE) if (PACKAGE / f"{name or '__init__'}.py").is_file()]) <= 8


def test_names_of_files_are_unique():
    stems = (path.stem for path in modules(PACKAGE).values())
    names = Counter(stem for stem in stems if stem not in ("__init__", "__main__"))
    assert {name for name, count in names.items() if count > 1} == set(SAME_NAME)


def test_names_of_classes_are_unique():
    homes = defaultdict(set)
    for name, path in modules(PACKAGE).items():
        for node in ast.parse(path.read_text(encoding="utf8")).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].add(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_docstrings_begin_with_a_verb_or_a_noun_phrase():
    asking = re.compile(r"(What|Where|How|Whether|Who|Whose|Which|When|Why)\b")
    questions = []
    for name, path in modules(PACKAGE).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if asking.match(text):
                    questions.append(f"{name}: {text.splitlines()[0]}")
    assert questions == []
