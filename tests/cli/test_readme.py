"""The README says what the program does."""

from __future__ import annotations

import pytest

from s3prl_dphubert.cli.readme import commands, fill, markdown
from s3prl_dphubert.errors import ConfigError
from tests.helpers.golden import ROOT

README = ROOT / "README.md"


def test_commands_in_the_readme_are_todays():
    text = README.read_text(encoding="utf8")
    assert fill(text) == text, "run `make readme`"


def test_every_argument_has_a_help_text():
    rows = [row for row in markdown().splitlines() if row.startswith("| `")]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("|  |")] == []
    assert [words for words, text, _ in commands() if not text] == []


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ConfigError, match="README: holds no"):
        fill("# nothing\n")
