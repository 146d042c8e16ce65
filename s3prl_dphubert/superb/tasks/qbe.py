"""Query by example on QUESST 2014; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..metrics.parsers import TermDetection
from ..submission import prediction_formats
from .spec import HIGHER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the English documents and queries."""
    root = Path(config["downstream_expert"]["datarc"]["dataset_root"])
    for name in ("utterances", "dev", "eval"):
        for line in (root / "scoring" / f"language_key_{name}.lst").read_text(encoding="utf8").splitlines():
            path, language = line.split()
            if language == "nnenglish":
                yield root / path.partition("/")[2]


TASK = SuperbTask(
    name="QbE",
    title="query by example",
    track=SUPERB,
    position=4,
    downstream="quesst14_dtw",
    metrics=(Metric("mtwv", "MTWV", "x100", HIGHER, TermDetection(), fbank=0.58, sota=7.36),),
    checkpoint="",
    packages=("dtw=dtw-python", "lxml", "scipy"),
    reuse=FeatureReuse(reason="whole files; every layer that is tried evaluates the same"),
    audio=audio,
    predictions=(
        Prediction(
            entry="qbe_public/benchmark.stdlist.xml",
            source="benchmark.stdlist.xml",
            format=prediction_formats.detections,
        ),
    ),
)
