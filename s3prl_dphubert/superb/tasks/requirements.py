"""What keeps a task from running that ``pip install NAME`` does not mend."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec

from ... import compat
from .spec import Task

PAGE = "downstream_recipes/st/README.md"
FAIRSEQ = (
    "pip install --no-deps --no-build-isolation git+https://github.com/facebookresearch/fairseq, "
    f"with a C++ compiler; {PAGE} says what it needs beside it"
)
COMPILED = "fairseq.data.data_utils_fast"  # what the batches of ST are made by


def reason(task: Task) -> str:
    """Why a task cannot run here and what to do about it; nothing where it can."""
    check = _CHECKS.get(task.downstream)
    return check() if check else ""


def _fairseq() -> str:
    if "fairseq" not in sys.modules and find_spec("fairseq") is None:
        return f"fairseq is missing, and its release has wheels up to Python 3.8 only: {FAIRSEQ}"
    compat.apply()  # it does not import on Python 3.11 by itself
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import_module(COMPILED)
    except Exception as error:  # it imports half of what is installed; anything may be wrong
        text = f"{type(error).__name__}: {error}".replace("\n", " ")
        return f"fairseq cannot be imported on Python {sys.version.split()[0]} ({text}): {FAIRSEQ}"
    return ""


_CHECKS: dict[str, Callable[[], str]] = {"speech_translation": _fairseq}


INSTALL = {  # modules that have another name on the package index
    "dtw": "dtw-python",
    "sklearn": "scikit-learn",
}


NEEDS = {  # what s3prl 0.4.18 imports for a task beside its own requirements
    "PR": "editdistance",
    "ASR": "editdistance pandas",
    "KS": "",
    "QbE": "dtw lxml scipy",
    "SID": "librosa",
    "ASV": "librosa joblib scipy sklearn",
    "SD": "h5py pandas scipy soundfile",
    "ER": "librosa",
    "IC": "pandas",
    "SF": "editdistance",
    "SE": "h5py librosa scipy pesq pystoi",
    "SS": "h5py librosa scipy pesq pystoi",
    "ST": "sacrebleu sentencepiece editdistance",
    "VC": "h5py librosa scipy sklearn pyworld fastdtw",
    "OOD-ASR": "editdistance",
}


RUNNER = ("tensorboardX",)


def _absent(module: str) -> bool:
    return module not in sys.modules and find_spec(module) is None
