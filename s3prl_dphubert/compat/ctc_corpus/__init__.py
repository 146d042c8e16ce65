"""The corpora of ``s3prl.downstream.ctc``, which s3prl's package on PyPI lacks: one module and class each."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ..patch import Patch

NAMES = ("librispeech", "libriphone", "snips", "common_voice")


def _missing(ctc: Any) -> bool:
    return not any(Path(folder, "corpus", "libriphone.py").is_file() for folder in ctc.__path__)


def _supply(ctc: Any) -> None:
    package = f"{ctc.__name__}.corpus"
    sys.modules[package] = sys.modules[__name__]
    for name in NAMES:
        sys.modules[f"{package}.{name}"] = importlib.import_module(f"{__name__}.{name}")


PATCHES = (
    Patch(
        name="ctc corpora",
        module="s3prl.downstream.ctc",
        reason="PR and SF import s3prl.downstream.ctc.corpus, which is not in the package on PyPI",
        versions="s3prl 0.4.18 from PyPI; until the package ships that folder",
        needed=_missing,
        apply=_supply,
    ),
)
