"""``NAME.probe.json``: the scores of one model, from which tables, plots and comparisons are made."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ResultError, shown
from ..superb.scoring.stored_statistics import from_plain, to_plain
from ..superb.scoring.uncertainty import Estimate, Statistic, estimate
from ..utils.files import write_text
from ..utils.readers import read_json, reading
from .probe_samples import PHONES, SPEAKERS, WORDS

VERIFICATION = "verification"
PROBES = (WORDS, PHONES, SPEAKERS, VERIFICATION)
BEST_LAYER, LAYER_WEIGHTS = "best layer", "layer weights"
HEADS = (BEST_LAYER, LAYER_WEIGHTS)
METRICS = {WORDS: "accuracy", PHONES: "accuracy", SPEAKERS: "accuracy", VERIFICATION: "equal error rate"}
"""Metric of each probe, in percent."""
SUFFIX = ".probe.json"
FORMAT = 1
LARGEST = 64 * 2**20  # bytes of a record


@dataclass(frozen=True)
class ProbeScore:
    """Score of a model in one probe under one head.

    Attributes:
        probe: one of :data:`PROBES`.
        head: one of :data:`HEADS`.
        statistic: counts by voice.
        details: what was chosen in each fold, and layer weights.
    """

    probe: str
    head: str
    statistic: Statistic
    details: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def estimate(self) -> Estimate:
        """Score in percent with its standard error."""
        return estimate(self.statistic)


def direction(probe: str) -> int:
    """Return 1 if higher scores of a probe are better, else -1."""
    return -1 if probe == VERIFICATION else 1


@dataclass(frozen=True)
class ProbeRecord:
    """All scores of one model on one corpus.

    Attributes:
        model: its name in reports.
        source: as it was given.
        facts: digest and size of the model.
        corpus: name, digest and size of the corpus.
        scores: one for each probe and head.
        curves: probe -> score and standard error of each layer, in percent.
        chance: probe -> accuracy in percent of guessing the most frequent class.
        seconds: what was done -> seconds it took.
        cpu_seconds: the same of all cores together, which others on the machine do not stretch.
        machine: processor, threads and versions.
    """

    model: str
    source: str
    facts: Mapping[str, Any]
    corpus: Mapping[str, Any]
    scores: tuple[ProbeScore, ...]
    curves: Mapping[str, list[list[float | None]]] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    def score(self, probe: str, head: str) -> ProbeScore | None:
        """Return the score of a probe under a head, if there is one."""
        return next((each for each in self.scores if (each.probe, each.head) == (probe, head)), None)

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        values = {
            "format": FORMAT,
            "model": self.model,
            "source": self.source,
            **{
                name: dict(getattr(self, name))
                for name in ("facts", "corpus", "seconds", "cpu_seconds", "machine", "chance")
            },
            "scores": [_score_to_json(each) for each in self.scores],
            "curves": dict(self.curves),
        }
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_text(path, re.sub(r"\[[^\[\]{}]*\]", lambda match: " ".join(match[0].split()), text) + "\n")

    @classmethod
    def read(cls, path: Path) -> ProbeRecord:
        """Read a record.

        Raises:
            ResultError: the file is missing, damaged, or of another version.
        """
        values = read_json(path, ResultError, largest=LARGEST)
        if values.get("format") != FORMAT:
            raise ResultError(f"{path}: format is {shown(values.get('format'))}, allowed: {FORMAT}")
        with reading(path, ResultError, "a record of probes"):
            names = ("facts", "corpus", "seconds", "cpu_seconds", "machine", "chance", "curves")
            scores = tuple(_score_from_json(each) for each in values["scores"])
            parts = {name: dict(values[name]) for name in names}
            return cls(values["model"], values["source"], scores=scores, **parts)


def file_name(model: str) -> str:
    """Return the name of a model's record."""
    return re.sub(r"[^\w.+-]+", "-", model).strip("-") + SUFFIX


def read_all(paths: Iterable[Path]) -> list[ProbeRecord]:
    """Read records that were made on the same corpus.

    Args:
        paths: files, or folders of files.

    Raises:
        ResultError: there are none, one cannot be read, or they are of different corpora.
    """
    files = [
        file for path in paths for file in (sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path])
    ]
    records = [ProbeRecord.read(file) for file in files]
    if not records:
        raise ResultError(f"no records of probes, expected *{SUFFIX}")
    for file, record in zip(files, records, strict=True):
        if record.corpus.get("sha256") != records[0].corpus.get("sha256"):
            raise ResultError(f"{file}: was probed on another corpus than {files[0]}")
    return records


def _score_to_json(score: ProbeScore) -> dict[str, Any]:
    result = score.estimate
    return {
        "probe": score.probe,
        "head": score.head,
        "metric": f"{METRICS[score.probe]} in percent",
        "value": round(result.value, 3),
        "standard_error": finite(result.standard_error),
        "interval_95": [finite(result.low), finite(result.high)],
        "details": dict(score.details),
        "by_voice": to_plain(score.statistic),
    }


def _score_from_json(values: Mapping[str, Any]) -> ProbeScore:
    return ProbeScore(values["probe"], values["head"], from_plain(values["by_voice"]), values["details"])


def finite(value: float) -> float | None:
    """Return a number for JSON, ``None`` for an infinite one."""
    return round(value, 3) if math.isfinite(value) else None
