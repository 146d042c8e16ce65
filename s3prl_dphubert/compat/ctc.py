"""The corpora of s3prl.downstream.ctc, which the package on PyPI forgot."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from .patch import Patch

CORPORA = "s3prl_dphubert.compat.ctc_corpus"
NAMES = ("librispeech", "libriphone", "snips", "common_voice")


def _forgotten(ctc: Any) -> bool:
    return not any(Path(place, "corpus", "libriphone.py").is_file() for place in ctc.__path__)


def _supply(ctc: Any) -> None:
    package = f"{ctc.__name__}.corpus"
    sys.modules[package] = importlib.import_module(CORPORA)
    for name in NAMES:
        sys.modules[f"{package}.{name}"] = importlib.import_module(f"{CORPORA}.{name}")


PATCHES = (
    Patch(
        name="ctc corpora",
        module="s3prl.downstream.ctc",
        reason="PR and SF import s3prl.downstream.ctc.corpus, which is not in the package on PyPI",
        versions="s3prl 0.4.18 from PyPI; until the package ships that folder",
        needed=_forgotten,
        apply=_supply,
    ),
)
