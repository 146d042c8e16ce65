"""The page in a real browser: drawn whole, at any width, without requests, scripts or complaints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from matplotlib.image import imread

from tests.helpers.golden import ROOT
from tests.helpers.reported_runs import HOSTILE, write_run, write_scores

pytestmark = pytest.mark.slow
PYTHON = ROOT / ".venv-browser" / "bin" / "python"
BROWSER = ROOT / "tests" / "helpers" / "browser.py"
TEAL = (0x1F, 0x6F, 0x8B)
WIDE, NARROW = 1200, 400


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Page about two runs and three models, of which one has a hostile name."""
    place = tmp_path_factory.mktemp("browser")
    runs = [write_run(place / name) for name in ("first", "second")]
    scores = write_scores(place / "scores", "teacher", HOSTILE, "fbank")
    target = place / "report.html"
    arguments = [*map(str, runs), "--scores", str(scores), "--title", HOSTILE, "--out", str(target)]
    command = [sys.executable, "-m", "s3prl_dphubert.cli", "report", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    return target


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_is_drawn_whole_and_asks_for_nothing(page, width):
    if not PYTHON.exists():
        pytest.skip("no browser here; make test-browser installs one")
    picture = page.with_name(f"{width}.png")
    command = [str(PYTHON), str(BROWSER), str(page), str(width), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    state = json.loads(done.stdout.splitlines()[-1])
    assert state["loaded"] and state["title"] == HOSTILE
    assert state["headings"][1:4] == ["Cost", "What was kept", "Training"]
    assert len(state["images"]) == 9 and min(state["images"]) > 300
    assert state["requests"] == [page.as_uri()]
    assert state["messages"] == []
    assert (state["scripts"], state["hostile"]) == (0, False)
    assert state["overflow"] == 0
    assert HOSTILE in state["text"]
    drawn = (255 * imread(picture)[..., :3]).round().astype(int)
    assert drawn.shape[:2] == (state["height"], width)
    below = drawn[len(drawn) // 4 :]
    assert (abs(below - TEAL).max(-1) < 3).sum() > 5_000  # bars and curves, beyond the head of the page
