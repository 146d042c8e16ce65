"""``make test-gpu`` runs every file with tests for a GPU."""

from __future__ import annotations

import re

from tests.helpers.golden import ROOT


def test_all_files_with_tests_for_a_gpu_are_named():
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    named = set(re.search(r"^GPU_TESTS := (.*)$", text, re.MULTILINE)[1].split())
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"pytest\.mark\.cuda\b|\bDEVICES\b", path.read_text())
    }
    assert named == marked - {"tests/test_makefile.py"}
    assert len(named) == 4
