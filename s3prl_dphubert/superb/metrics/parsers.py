"""Parsers of the numbers that s3prl's evaluations print and write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...errors import ResultError
from ...utils.edit_distance import edit_distance
from ...utils.readers import read_words

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf"


@dataclass(frozen=True)
class Output:
    """Output of one evaluation.

    Args:
        text: its standard output.
        folder: its ``expdir``.
        reference: the truth, where s3prl does not score itself: QUESST 2014's folder of ground
            truth, the RTTM of the diarization test set, or the folder of the target speakers.
    """

    text: str = ""
    folder: Path | None = None
    reference: Path | None = None

    def scored(self, what: str) -> tuple[Path, Path]:
        """Return the folder and the truth that it is scored against.

        Raises:
            ResultError: one is missing; the message says that the truth is to be ``what``.
        """
        if self.folder is None:
            raise ResultError("no expdir was given to score")
        if self.reference is None:
            raise ResultError(f"no reference was given, allowed: {what}")
        return self.folder, self.reference


class Parser(Protocol):
    """Reads one number, in the unit of the leaderboard, from the output of an evaluation."""

    def __call__(self, output: Output) -> float:
        """Return the number, or raise a ResultError that says where it was looked for."""


@dataclass(frozen=True)
class Printed:
    """A number in the standard output; the last one counts, as the one of the final evaluation.

    Args:
        line: the line before, between and after its number ``{}``; the rest is taken literally
            but for ``*``, which stands for any other number.
        scale: what to multiply by: 100 for fractions that SUPERB reports as percentages.
        log: a log file in the folder, to look in when the text has no such line; of several that fit a
            pattern, the newest.
        log_line: the line there; by default the same.
    """

    line: str
    scale: float = 1.0
    log: str = ""
    log_line: str = ""

    def __call__(self, output: Output) -> float:
        number = _last(self.line, output.text)
        place = "the standard output"
        if number is None and self.log:
            line = self.log_line or self.line
            place += f" (or a line {line.replace('{}', 'NUMBER')!r} in {self.log})"
            logs = output.folder.glob(self.log) if output.folder else ()
            path = max(logs, key=lambda each: each.stat().st_mtime, default=None)
            if path is not None:
                number = _last(line, path.read_text(encoding="utf8", errors="replace"))
        if number is None:
            raise ResultError(f"no line {self.line.replace('{}', 'NUMBER')!r} in {place}")
        return _finite(number, self.line) * self.scale


TEST_ACCURACY = Printed("test acc: {}", 100, log="log.log", log_line="test at step *: {}")
"""Accuracy in percent of s3prl's classifiers, which print and log it alike."""


@dataclass(frozen=True)
class Written:
    """A line ``key number`` of a file in the folder."""

    file: str
    key: str
    scale: float = 1.0

    def __call__(self, output: Output) -> float:
        if output.folder is None or not (output.folder / self.file).is_file():
            raise ResultError(f"no file {self.file} in {output.folder or 'an expdir, none was given'}")
        path = output.folder / self.file
        number = _last(f"{self.key} {{}}", path.read_text(encoding="utf8", errors="replace"))
        if number is None:
            raise ResultError(f"no line '{self.key} NUMBER' in {path}")
        return _finite(number, self.key) * self.scale


@dataclass(frozen=True)
class WordErrors:
    """Error rate in percent of the texts in ``NAME-hyp.ark`` against ``NAME-ref.ark``.

    For a decoding with a language model, since s3prl prints its rate on the same line as the one without; and
    for characters, since s3prl's unit error rate counts the boundary at the end of each text, too.

    Args:
        name: of the files.
        characters: count characters, spaces included, instead of words.
    """

    name: str
    characters: bool = False

    def __call__(self, output: Output) -> float:
        folder = output.folder or Path(".")
        hypotheses, references = (_texts(folder / f"{self.name}-{kind}.ark") for kind in ("hyp", "ref"))
        if set(hypotheses) != set(references) or not any(references.values()):
            raise ResultError(f"{folder / self.name}-hyp.ark and -ref.ark are empty or of other utterances")
        pairs = [(hypotheses[name], words) for name, words in references.items()]
        if self.characters:
            pairs = [(list(" ".join(hypothesis)), list(" ".join(words))) for hypothesis, words in pairs]
        return 100 * sum(edit_distance(*pair) for pair in pairs) / sum(len(words) for _, words in pairs)


def _texts(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise ResultError(f"no file {path}")
    return {name: words for name, *words in read_words(path, 1, ResultError)}


@dataclass(frozen=True)
class TermDetection:
    """Maximum term weighted value of query by example, times 100."""

    def __call__(self, output: Output) -> float:
        from .mtwv import score

        folder, reference = output.scored("QUESST 2014's scoring/groundtruth_quesst14_eval")
        return 100 * score(folder / "benchmark.stdlist.xml", reference).mtwv


@dataclass(frozen=True)
class Diarization:
    """Diarization error rate in percent, the best of the decision thresholds and filters."""

    def __call__(self, output: Output) -> float:
        from .der import best

        return 100 * best(*output.scored("the RTTM of the test set")).rate


@dataclass(frozen=True)
class CepstralDistortion:
    """Mel cepstral distortion in dB of converted speech, logged by s3prl's ``evaluate.py`` or measured here.

    Args:
        logged: parser of s3prl's log.
        pitch: target speaker -> lowest and highest pitch in Hz.
    """

    logged: Printed
    pitch: Mapping[str, tuple[int, int]] = field(hash=False)

    def __call__(self, output: Output) -> float:
        try:
            return self.logged(output)
        except ResultError:
            if output.folder is None or output.reference is None:
                raise
        from .mcd import score

        return score(output.folder, output.reference, self.pitch)


def _last(line: str, text: str) -> str | None:
    """Return the number of the last such line; states of a progress bar are lines, too."""
    pattern = re.escape(line).replace(r"\*", f"(?:{NUMBER})").replace(r"\{\}", f"({NUMBER})")
    numbers = re.findall(rf"(?m)^\s*{pattern}(?![\d.])", text.replace("\r", "\n"))
    return numbers[-1] if numbers else None


def _finite(text: str, what: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ResultError(f"{what.replace('{}', '').strip()} is {text}, allowed: a finite number")
    return value
