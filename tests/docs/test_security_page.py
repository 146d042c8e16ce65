"""The page on security lists every door of the package."""

from __future__ import annotations

import re

import pytest

from tests.helpers.calls import package_with, places
from tests.helpers.golden import ROOT

PAGE = ROOT / "docs" / "explanation" / "security.md"
DOORS = (
    r"subprocess\.\w+|os\.(system|popen|fork|exec\w*|spawn\w*|posix_spawn\w*)|pty\.\w+",
    r"multiprocessing\.(Process|Pool|get_context)|concurrent\.futures\.ProcessPoolExecutor|torch\.multiprocessing\.\w+",
    r"torch\.utils\.data\.DataLoader",
    r"socket\.\w+|ssl\.\w+|asyncio\.\w+|http\.\w+|urllib\.request\.\w+|requests\.\w+|httpx\.\w+|webbrowser\.\w+",
    r"torch\.distributed\.(init_process_group|TCPStore)|torch\.hub\.(load|download\w*)",
    r"huggingface_hub\.(hf_hub_download|snapshot_download|upload\w*|HfApi)|fsspec\.(open\w*|core\.url_to_fs)",
    r"tempfile\.\w+",
    r".*\.chmod|.*\.symlink_to|os\.(umask|chmod|chown|symlink|link|mkfifo)",
    r"eval|exec|compile|__import__|runpy\.\w+|importlib\.import_module|ctypes\.(CDLL|PyDLL|cdll\.\w+)|torch\.ops\.load_library",
)
"""Functions that start processes, connect, make temporary files, set permissions or load code."""

OWN_CODE = {
    "__init__.py": "its public names, imported when they are asked for",
    "export/__init__.py": "the same",
}


def listed():
    """Modules of the page's table."""
    text = PAGE.read_text(encoding="utf8")
    table = text.partition("<!-- doors")[2].partition("<!-- end of doors -->")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_door_is_listed_once():
    pages = listed()
    assert len(pages) == len(set(pages)) > 25
    doors = places(DOORS).keys()
    assert doors - set(pages) - OWN_CODE.keys() == set(), "describe these in docs/explanation/security.md"
    # Pickles are read by a subclass, and private folders made by mkdir: they are listed without a call.
    assert set(pages) - doors == {"checkpoints/unpickler.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "import os\nos.system('true')",
        "from subprocess import run as go\ngo(['true'])",
        "from urllib.request import urlopen\nurlopen('http://x')",
        "import socket as s\ns.create_connection(('x', 1))",
        "import tempfile\ntempfile.mktemp()",
        "eval('1')",
    ],
)
def test_a_new_door_is_found(tmp_path, statement):
    assert places(DOORS, package_with(statement, tmp_path)).keys() - places(DOORS) == {"data/audio.py"}


def test_the_policy_refers_to_the_page():
    assert "(docs/explanation/security.md)" in (ROOT / "SECURITY.md").read_text(encoding="utf8")
    assert "`SECURITY.md`" in PAGE.read_text(encoding="utf8")
