"""The notebook of the first tutorial is made from its page, and runs from top to bottom."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from docs.notebook import INSTALL, notebook
from tests.helpers.golden import ROOT

NOTEBOOK = ROOT / "examples" / "first_model.ipynb"
PAGE = ROOT / "docs" / "tutorials" / "first-model.md"
SHORTER = {
    "updates: 300, warmup: 40": "updates: 12, warmup: 4",
    "updates: 200, warmup: 20": "updates: 8, warmup: 2",
}
"""Text of the configuration -> what takes its place here; a budget of other warm-up goes with it."""


def test_the_notebook_is_todays_page():
    assert NOTEBOOK.read_text(encoding="utf8") == notebook(PAGE, NOTEBOOK), "run `make pages`"


def test_its_links_lead_somewhere():
    targets = [link for link in re.findall(r"\]\(([^)#\s]+)", NOTEBOOK.read_text()) if ":" not in link]
    assert len(targets) >= 3
    assert [link for link in targets if not (NOTEBOOK.parent / link).exists()] == []


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """With fewer updates, and without installing what is installed."""
    nbformat = pytest.importorskip("nbformat", reason="the extra dev")
    client = pytest.importorskip("nbclient", reason="the extra dev")
    book = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(book)
    book.cells = [cell for cell in book.cells if INSTALL not in cell.metadata.get("tags", [])]
    for cell in book.cells:
        if cell.source.startswith("%%writefile"):
            for before, after in {**SHORTER, "warmup: 60": "warmup: 6"}.items():
                assert before in cell.source
                cell.source = cell.source.replace(before, after)
            cell.source = cell.source.replace(
                "constraint: projection", "constraint: projection, tolerance: 1.0"
            )
    (tmp_path / "s3prl_dphubert").symlink_to(ROOT / "s3prl_dphubert")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    client.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "data/speech.tsv  260 files, 10.9 min" in text
    parameters = re.search(r"parameters +([\d,]+)\r?\n", text)
    assert parameters and 0.9 < int(parameters[1].replace(",", "")) / (5_922_816 / 4) <= 1, text
    assert "13 torch.Size([1, 49, 192])" in text
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    assert (tmp_path / "runs" / "first" / "model" / "model.safetensors").is_file()
