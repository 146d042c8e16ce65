"""Generated parts of the documentation are those of today's code."""

from __future__ import annotations

import re

import pytest

import s3prl_dphubert
from docs import generate
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.superb.tasks import all_tasks
from tests.helpers.golden import ROOT
from tests.helpers.imports import PACKAGE

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def made():
    return generate.pages()


def test_committed_pages_are_todays(made):
    assert len(made) == len(generate.PARTS) + 3 + len(all_tasks())
    stale = [str(path) for path, text in made.items() if path.read_text(encoding="utf8") != text]
    assert stale == [], "run `make pages`"


def test_every_argument_has_a_help_text():
    assert [words for words, text, _ in generate.commands() if not text] == []
    rows = [row for row in generate.cli().splitlines() if row.startswith("| `")]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_field_of_a_run_has_a_default_and_a_meaning():
    rows = [row for row in generate.run_config().splitlines() if row.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []
    assert "| `updates` | `50000` | `25000` | optimizer steps. |" in rows
    assert "| `groups` | `[[0], [4, 8, 12]]` |" in " ".join(rows)
    assert any(row.startswith("| `train` | required |") for row in rows)


def test_a_page_without_markers_is_refused(tmp_path):
    for name in generate.PARTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no"):
        generate.pages(tmp_path)


def test_every_environment_variable_has_a_row():
    page = (DOCS / "reference" / "environment-variables.md").read_text(encoding="utf8")
    read = set()
    for path in PACKAGE.rglob("*.py"):
        read |= set(re.findall(r"\"(S3PRL_DPHUBERT_[A-Z]+)\"", path.read_text(encoding="utf8")))
    assert len(read) >= 3
    assert read == set(re.findall(r"^\| `(S3PRL_DPHUBERT_[A-Z]+)`", page, re.MULTILINE))


def test_every_public_name_is_on_the_page_of_the_api():
    page = (DOCS / "reference" / "python-api.md").read_text(encoding="utf8")
    documented = set(re.findall(r"^\.\. auto(?:function|class):: (\w+)", page, re.MULTILINE))
    assert documented == {name for name in s3prl_dphubert.__all__ if not name.startswith("_")}
