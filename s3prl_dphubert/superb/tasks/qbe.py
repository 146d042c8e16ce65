"""Query by example on QUESST 2014; nothing is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.readers import read_words
from ..metrics.by_voice import TermWeights
from ..metrics.parsers import TermDetection
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules, PredictedItem
from .spec import HIGHER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the English documents and queries."""
    root, files = Path(config["downstream_expert"]["datarc"]["dataset_root"]), {}
    for name in ("utterances", "dev", "eval"):
        table = root / "scoring" / f"language_key_{name}.lst"
        rows = read_words(table, least=2)
        files[name] = [root / path.partition("/")[2] for path, language, *_ in rows if language == LANGUAGE]
    return files


LANGUAGE = "nnenglish"  # the only one that SUPERB searches
FEWEST_DOCUMENTS, MOST_DOCUMENTS = 2000, 12_492  # of these in English; and all


def listed(data: Path | None, name: str) -> frozenset[str] | None:
    """Return the English recordings of one of QUESST's lists below the data; ``None`` if it is not there.

    Args:
        data: folder of the corpora.
        name: ``utterances``, ``dev`` or ``eval``.
    """
    table = data / "quesst14Database" / "scoring" / f"language_key_{name}.lst" if data else None
    if table is None or not table.is_file():
        return None
    rows = read_words(table, least=2)
    return frozenset(Path(path).stem for path, language, *_ in rows if language == LANGUAGE)


def _documents(items: Sequence[PredictedItem], data: Path | None) -> Iterable[str]:
    """Check the documents that each query was searched in."""
    known = listed(data, "utterances")
    for item in items:
        documents = item.value.split()
        strange = next((name for name in documents if not re.fullmatch(r"quesst14_\d{5}", name)), None)
        if strange is not None:
            yield f"{item.place}: document is {strange[:60]!r}, allowed: quesst14_NUMBER"
        elif known is not None and known != frozenset(documents):
            yield f"{item.place}: has {len(documents)} documents, allowed: the {len(known)} in English"
        elif not FEWEST_DOCUMENTS <= len(documents) <= MOST_DOCUMENTS:
            allowed = f"{FEWEST_DOCUMENTS} to {MOST_DOCUMENTS}"
            yield f"{item.place}: has {len(documents)} documents, allowed: {allowed}, all in English"
        else:
            continue
        return


TASK = SuperbTask(
    name="QbE",
    title="query by example",
    track=SUPERB,
    position=4,
    downstream="quesst14_dtw",
    metrics=(
        Metric(
            *("mtwv", "MTWV", "x100", HIGHER, TermDetection()), fbank=0.58, sota=7.36, statistic=TermWeights()
        ),
    ),
    checkpoint="",
    packages=("dtw=dtw-python", "lxml", "scipy"),
    reuse=FeatureReuse(reason="whole files; every layer that is tried evaluates the same"),
    audio=audio,
    predictions=(
        Prediction(
            entry="qbe_public/benchmark.stdlist.xml",
            source="benchmark.stdlist.xml",
            format=prediction_formats.detections,
            count=555,
            least=100,
            origin="English queries among the 555 of QUESST 2014's evaluation",
            rules=ItemRules(
                pattern=r"quesst14_eval_\d{4}",
                form="quesst14_eval_NUMBER",
                names=lambda data: listed(data, "eval"),
                together=_documents,
            ),
            max_bytes=2**26,
        ),
    ),
)
