"""Recognition of other languages (Common Voice) and of spontaneous speech (SBCSAE)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...utils.readers import read_table
from ..metrics.parsers import Printed
from .audio_lists import ctc_splits
from .spec import EXTRA, LOWER, Metric, SuperbTask, TaskPart

ERROR_RATES = {"es": "wer", "ar": "wer", "zh": "cer", "spon": "wer"}  # of each language or style


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the files of the tables that the configuration names."""
    root = Path(config["downstream_expert"]["corpus"]["path"])
    files: dict[str, list[Path]] = {}
    for split, tables in ctc_splits(config).items():
        files[split] = []
        for table in tables:
            rows = (next(iter(row.values())) for row in read_table(Path(table), ()))
            files[split] += [root / name for name in rows]
    return files


TASK = SuperbTask(
    name="OOD-ASR",
    title="recognition of other languages and of spontaneous speech",
    track=EXTRA,
    position=15,
    downstream="ctc",
    metrics=tuple(
        Metric(
            f"{rate}_{part}",
            f"{rate.upper()} {part}",
            "%",
            LOWER,
            Printed(f"test {rate}: {{}}", 100),
            part=part,
        )
        for part, rate in ERROR_RATES.items()
    ),
    parts=tuple(TaskPart(part) for part in ERROR_RATES),
    audio=audio,
)
