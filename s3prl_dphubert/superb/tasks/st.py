"""Speech translation on CoVoST 2, with fairseq."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec

from ..metrics.parsers import Printed
from ..submission import prediction_formats
from .spec import HIGHER, SUPERB_SG, Metric, Prediction, SuperbTask

INSTALL = (
    "pip install --no-deps --no-build-isolation git+https://github.com/facebookresearch/fairseq, "
    "with a C++ compiler; downstream_recipes/st/README.md says what it needs beside it"
)
COMPILED = "fairseq.data.data_utils_fast"  # makes the batches


def blocked() -> str:
    """Return why fairseq cannot be used here and how to install it; empty if it can."""
    if "fairseq" not in sys.modules and find_spec("fairseq") is None:
        return f"fairseq is missing, and its release has wheels up to Python 3.8 only: {INSTALL}"
    from ... import compat

    compat.apply()  # it does not import on Python 3.11 by itself
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import_module(COMPILED)
    except Exception as error:  # it imports half of what is installed; anything may be wrong
        text = f"{type(error).__name__}: {error}".replace("\n", " ")
        return f"fairseq cannot be imported on Python {sys.version.split()[0]} ({text}): {INSTALL}"
    return ""


TASK = SuperbTask(
    name="ST",
    title="speech translation",
    track=SUPERB_SG,
    position=13,
    downstream="speech_translation",
    metrics=(Metric("bleu", "BLEU", "", HIGHER, Printed("BLEU = {}"), fbank=2.32, sota=20.01),),
    packages=("sacrebleu", "sentencepiece"),
    blocked=blocked,
    predictions=(  # no audio list: its tables are fairseq's
        Prediction("st_public/predict.tsv", "output-st-test.tsv", prediction_formats.translations),
    ),
)
