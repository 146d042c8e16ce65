"""Scores of test sets as functions of how often each voice counts, read from an evaluation's predictions.

Each class here is the ``statistic`` of a :class:`~..tasks.spec.Metric`: it returns what
:mod:`..scoring.uncertainty` resamples. Where the name of an item does not tell its voice, the item stands for
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import ResultError
from ...utils.edit_distance import edit_distance
from ...utils.readers import read_lines
from .parsers import Output

if TYPE_CHECKING:  # at run time it would import NumPy, which few commands need
    from ..scoring.uncertainty import Ratio, Statistic

BINS = 100  # of scores of trials; interpolation makes them exact to 0.1 % of equal errors
FIRST_FIELD = r"([^-]+)-"
"""Voice of an item that is named ``VOICE-…``."""


class StatisticReader(Protocol):
    """Reads a score by voice from the output of an evaluation."""

    def __call__(self, output: Output) -> Statistic:
        """Return the statistic.

        Raises:
            ResultError: a file is missing or damaged.
        """


@dataclass(frozen=True)
class Accuracy:
    """Share of items in percent whose predicted label is the true one.

    Args:
        voice: regular expression whose group finds the voice in an item's name.
        suffix: of ``test_predict`` and ``test_truth``, which hold ``NAME LABEL``, or in CSV ``NAME,LABEL``.
    """

    voice: str = FIRST_FIELD
    suffix: str = ".txt"

    def __call__(self, output: Output) -> Ratio:
        """Return the accuracy by voice."""
        from ..scoring.uncertainty import Ratio

        separator = "," if self.suffix == ".csv" else " "
        predicted, true = (
            list(_pairs(output, f"test_{kind}{self.suffix}", separator)) for kind in ("predict", "truth")
        )
        if [name for name, _ in predicted] != [name for name, _ in true] or not true:
            raise ResultError(f"{output.folder}: test_predict and test_truth are of other items")
        right = [label == other for (_, label), (_, other) in zip(predicted, true, strict=True)]
        return Ratio.of_items([voice_of(self.voice, name) for name, _ in true], right)


@dataclass(frozen=True)
class TextErrors:
    """Edit distance in percent of the length of the references in ``NAME-hyp.ark`` and ``NAME-ref.ark``.

    Args:
        name: of the files.
        characters: count characters, spaces included, not words.
        voice: regular expression whose group finds the voice in an utterance's name.
    """

    name: str
    characters: bool = False
    voice: str = FIRST_FIELD

    def __call__(self, output: Output) -> Ratio:
        """Return the error rate by voice."""
        from ..scoring.uncertainty import Ratio

        split = list if self.characters else str.split
        rows = texts(output, self.name)
        errors = [edit_distance(split(hypothesis), split(reference)) for _, hypothesis, reference in rows]
        lengths = [len(split(reference)) for _, _, reference in rows]
        return Ratio.of_items([voice_of(self.voice, name) for name, _, _ in rows], errors, lengths)


@dataclass(frozen=True)
class EqualErrors:
    """Equal error rate in percent of trials ``FIRST_SECOND SCORE`` of utterances named ``VOICE-…``."""

    file: str = "test_predict.txt"

    def __call__(self, output: Output) -> Statistic:
        """Return the equal error rate by voice."""
        import numpy as np

        from .eer import VerificationTrials

        voices, scores = [], []
        for name, score in _pairs(output, self.file, " "):
            match = re.fullmatch(r"([^-]+)-[\w-]*?_([^-_]+)-[\w-]+", name)
            if match is None:
                raise ResultError(f"{output.folder}: {self.file} has {name[:80]!r}, allowed: FIRST_SECOND")
            voices.append((match[1], match[2]))
            scores.append(float(score))
        return VerificationTrials.of_trials(np.array(scores), voices, BINS)


@dataclass(frozen=True)
class TermWeights:
    """Maximum term weighted value of query by example, times 100, by query."""

    def __call__(self, output: Output) -> Statistic:
        """Return the value as a function of how often each query counts."""
        from .mtwv import by_query

        folder, reference = output.scored("QUESST 2014's scoring/groundtruth_quesst14_eval")
        return by_query(folder / "benchmark.stdlist.xml", reference)


@dataclass(frozen=True)
class DiarizationErrors:
    """Diarization error rate in percent by pair of voices, at the threshold and filter that are best for all.

    Speakers of a recording are named ``RECORDING-VOICE`` in the truth.
    """

    def __call__(self, output: Output) -> Ratio:
        """Return the error rate by pair of voices."""
        from ..scoring.uncertainty import Ratio
        from .der import best, read_rttm

        folder, rttm = output.scored("the RTTM of the test set")
        truth, errors = read_rttm(rttm), best(folder, rttm).recordings
        groups = [" ".join(sorted(name.removeprefix(f"{key}-") for name in truth[key])) for key in errors]
        wrong = [each.missed + each.false_alarm + each.confused for each in errors.values()]
        return Ratio.of_items(groups, wrong, [each.spoken for each in errors.values()])


def texts(output: Output, name: str) -> list[tuple[str, str, str]]:
    """Return each utterance with hypothesis and reference, from ``NAME-hyp.ark`` and ``NAME-ref.ark``.

    Raises:
        ResultError: a file is missing, or they are empty or of different utterances.
    """
    hypotheses, references = (dict(_pairs(output, f"{name}-{kind}.ark", " ")) for kind in ("hyp", "ref"))
    if set(hypotheses) != set(references) or not any(references.values()):
        raise ResultError(f"{output.folder}: {name}-hyp.ark and -ref.ark are of other utterances")
    return [(key, hypotheses[key], reference) for key, reference in references.items()]


def voice_of(pattern: str, name: str) -> str:
    """Return what the group of a regular expression finds in an item's name, or the name itself."""
    match = re.search(pattern, name)
    return match[1] if match else name


def _pairs(output: Output, file: str, separator: str) -> Iterator[tuple[str, str]]:
    """Yield name and rest of each line of a file that an evaluation wrote."""
    for line in read_lines((output.folder or Path(".")) / file, ResultError):
        name, _, rest = line.partition(separator)
        yield name, rest.strip()
