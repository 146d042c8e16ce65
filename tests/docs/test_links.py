"""Links of the README and the documentation: files and headings exist, commands and options as well."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from docs.generate import commands
from tests.helpers.golden import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "models" not in path.parts),
    *sorted((ROOT / "downstream_recipes").rglob("README.md")),
    ROOT / "upstream_configs" / "README.md",
]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
GITHUB_PUNCTUATION = re.compile(r"[^\w\- ]")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    text = FENCE.sub("", page.read_text(encoding="utf8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    names = {GITHUB_PUNCTUATION.sub("", title.lower()).replace(" ", "-") for title in titles}
    return names | {re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf8"))
    for target in (first or second for first, second in LINK.findall(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page):
    """In shell blocks; what stands for other words (…, NAME) is not looked at."""
    parsers = {
        words: {option for action in parser._actions for option in action.option_strings}
        for words, _, parser in commands()
    }
    text = page.read_text(encoding="utf8").replace("\\\n", " ")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if "s3prl-dphubert" not in words[:1]:
                continue
            name = next((n for n in (" ".join(words[1:3]), words[1]) if n in parsers), None)
            if words[1].startswith("--"):
                continue
            assert name is not None, f"unknown command: {line}"
            if name not in ("run_downstream", "run_pretrain"):  # s3prl's own options
                unknown = {word for word in words[2:] if word.startswith("--")} - parsers[name]
                assert not unknown, f"{sorted(unknown)}: {line}"


def test_the_readme_is_short_and_offers_no_release():
    text = (ROOT / "README.md").read_text(encoding="utf8")
    assert len(text.splitlines()) <= 150
    for page in PAGES:
        lines = page.read_text(encoding="utf8").splitlines()
        wrong = [line for line in lines if re.search(r"pip install '?s3prl-dphubert", line)]
        assert wrong == [], page
