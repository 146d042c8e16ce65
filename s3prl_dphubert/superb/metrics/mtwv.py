"""Query by example: the maximum term weighted value of QUESST 2014.

A trial is a query and a document. At a threshold, TWV = 1 - mean over queries of
(P_miss + beta P_fa), with P_miss = misses / true documents, P_fa = false alarms / other
documents and beta = C_fa (1 - P_target) / (C_miss P_target), where C_fa = 1, C_miss = 100 and
P_target = 0.0008 (Rodriguez-Fuentes and Penagarikano, MediaEval 2013 Spoken Web Search Task:
System Performance Measures; the costs are those of QUESST 2014's scoring script). Queries that
occur nowhere are left out. MTWV is the best over all thresholds; above every score TWV is 0.

SUPERB searches English queries in English documents only and scores them against all of QUESST:
a trial that was not searched has the score -10. Other languages thus count as missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

import numpy as np

from ...errors import ResultError
from ...utils.readers import parse_number, read_lines

BETA = 1 * (1 - 0.0008) / (100 * 0.0008)
UNSEARCHED = -10.0
MAX_ELEMENTS, MAX_DEPTH = 1_000_000, 100  # the English part of QUESST has 0.4 million trials
Start = Callable[[str, dict[str, str]], None]
Ended = Callable[[str, str], None]


@dataclass(frozen=True)
class Truth:
    """Ground truth: the documents that hold each query.

    Args:
        documents: all that are searched.
        occurrences: query -> the documents that hold it; queries without any are there too.
    """

    documents: tuple[str, ...]
    occurrences: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Score:
    """Result of a search.

    Args:
        mtwv: at most 1, at least 0.
        threshold: scores from here on count as detected; infinite when detecting nothing is best.
        queries: how many the mean is over.
        unknown: trials given of queries or documents that the truth does not list.
    """

    mtwv: float
    threshold: float
    queries: int
    unknown: int


def score(detections: Path, truth: Path) -> Score:
    """Score s3prl's ``benchmark.stdlist.xml`` against a folder of ground truth.

    Args:
        detections: the file.
        truth: folder with one ``.rttm``, one ``.ecf.xml`` and one ``.tlist.xml``.

    Raises:
        ResultError: a file is missing or damaged, or they have no query in common.
    """
    return maximum(read_detections(detections), read_truth(truth))


def maximum(trials: dict[tuple[str, str], float], truth: Truth) -> Score:
    """Return the best TWV over all thresholds.

    Args:
        trials: (query, document) -> score, higher for likelier.
        truth: the documents that hold each query.

    Raises:
        ResultError: they have no query in common.
    """
    rows, scores, true = _matrices(trials, truth)
    documents = set(truth.documents)
    unknown = sum(query not in truth.occurrences or document not in documents for query, document in trials)
    gains = _gains(true) / len(rows)
    order = np.argsort(-scores, axis=None, kind="stable")
    sorted_scores = scores.ravel()[order]
    twv = gains.ravel()[order].cumsum()
    last_of_ties = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    twv, thresholds = twv[last_of_ties], sorted_scores[last_of_ties]
    best = int(twv.argmax())
    if twv[best] <= 0:
        return Score(0.0, math.inf, len(rows), unknown)
    return Score(float(twv[best]), float(thresholds[best]), len(rows), unknown)


@dataclass(frozen=True)
class TermWeightedValues:
    """TWV by query and threshold; the best over thresholds is a function of how often each query counts.

    Args:
        groups: names of the Q queries that occur.
        values: (Q, K) 1 - P_miss - beta P_fa of each query at each of K thresholds.

    Raises:
        ResultError: the shapes do not fit.
    """

    groups: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.groups):
            raise ResultError(
                f"values have shape {self.values.shape}, allowed: ({len(self.groups)}, thresholds)"
            )

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return 100 MTWV (R,) for each row of weights (R, Q)."""
        means = weights @ self.values / weights.sum(1, keepdims=True)
        return 100 * np.maximum(means.max(1), 0.0)


def by_query(detections: Path, truth: Path, thresholds: int = 25) -> TermWeightedValues:
    """Return the TWV of each query near the threshold that is best for all.

    Args:
        detections: s3prl's ``benchmark.stdlist.xml``.
        truth: folder of ground truth.
        thresholds: how many; beside the best one, those that detect shares of all trials around its share.

    Raises:
        ResultError: as for :func:`score`.
    """
    trials, known = read_detections(detections), read_truth(truth)
    rows, scores, true = _matrices(trials, known)
    best = maximum(trials, known).threshold
    detected = float(np.mean(scores >= best)) or 1 / scores.size
    shares = np.minimum(detected * np.geomspace(0.1, 10, thresholds), 1.0)
    tried = np.unique([best, *np.quantile(scores, 1 - shares)])
    values = np.stack([(_gains(true) * (scores >= each)).sum(1) for each in tried], axis=1)
    return TermWeightedValues(tuple(rows), values)


def _matrices(
    trials: dict[tuple[str, str], float], truth: Truth
) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Return the rows of the Q queries that occur, scores (Q, D) and whether documents hold them (Q, D)."""
    rows = {query: row for row, query in enumerate(q for q, where in truth.occurrences.items() if where)}
    columns = {document: column for column, document in enumerate(truth.documents)}
    scores = np.full((len(rows), len(columns)), UNSEARCHED)
    true = np.zeros(scores.shape, dtype=bool)
    for query, row in rows.items():
        true[row, [columns[document] for document in truth.occurrences[query]]] = True
    for (query, document), value in trials.items():
        if query in rows and document in columns:
            scores[rows[query], columns[document]] = value
    if not any(query in rows for query, _ in trials):
        raise ResultError("no query of the detections occurs in the ground truth; is it another set's?")
    return rows, scores, true


def _gains(true: np.ndarray) -> np.ndarray:
    """Return what detecting a trial adds to its query's TWV (Q, D)."""
    hits = true.sum(axis=1, keepdims=True)
    others = np.maximum(true.shape[1] - hits, 1)  # a query that is everywhere has no false alarms
    return np.where(true, 1 / hits, -BETA / others)


def read_detections(source: Path | bytes) -> dict[tuple[str, str], float]:
    """Read the trials of an ``stdlist`` file: (query, document) -> score.

    Raises:
        ResultError: it is missing or damaged, holds no trial, one twice, or a score that is no number.
    """
    trials: dict[tuple[str, str], float] = {}
    query = ""

    def element(tag: str, values: dict[str, str]) -> None:
        nonlocal query
        if tag == "detected_termlist":
            query = values.get("termid", "")
        elif tag == "term":
            key = (query, _stem(values.get("file", "")))
            value = _number(values.get("score", ""))
            fault = ""
            if not all(key):
                fault = "termid or file is missing"
            elif key in trials:
                fault = f"document {key[1]} is there twice"
            elif not math.isfinite(value):
                fault = f"score is {values.get('score', '')!r}, allowed: a finite number"
            if fault:
                raise ResultError(f"{_name(source)}, query {query!r}: {fault}")
            trials[key] = value

    _parse(source, element)
    if not trials:
        raise ResultError(f"{_name(source)}: holds no trial, allowed: detected_termlist with term elements")
    return trials


def read_truth(folder: Path) -> Truth:
    """Read a folder of ground truth of QUESST.

    Raises:
        ResultError: not exactly one file of each kind, or an occurrence in a document that the
            ``.ecf.xml`` does not list.
    """
    documents: dict[str, None] = {}
    occurrences: dict[str, set[str]] = {}
    written: dict[str, str] = {}  # how the RTTM may write a query: its id or its text

    def excerpt(tag: str, values: dict[str, str]) -> None:
        if tag == "excerpt":
            documents[_stem(values.get("audio_filename", ""))] = None

    def term(tag: str, values: dict[str, str]) -> None:
        if tag == "term":
            query = values.get("termid", "")
            occurrences[query] = set()
            written[query] = query

    def termtext(tag: str, text: str) -> None:
        if tag == "termtext" and occurrences:
            written[text.strip()] = next(reversed(occurrences))

    _parse(_only(folder, ".ecf.xml"), excerpt)
    _parse(_only(folder, ".tlist.xml"), term, termtext)
    path = _only(folder, ".rttm")
    for number, line in enumerate(read_lines(path, ResultError), start=1):
        fields = line.split()
        if not fields or fields[0] != "LEXEME" or len(fields) < 6 or fields[5] not in written:
            continue
        if fields[1] not in documents:
            raise ResultError(f"{path}, line {number}: document {fields[1]} is not in the .ecf.xml")
        occurrences[written[fields[5]]].add(fields[1])
    if not any(occurrences.values()):
        raise ResultError(f"{folder}: no query of the .tlist.xml has a LEXEME line in the .rttm")
    return Truth(tuple(documents), {query: frozenset(where) for query, where in occurrences.items()})


def _only(folder: Path, suffix: str) -> Path:
    paths = sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []
    if len(paths) != 1:
        raise ResultError(f"{folder}: holds {len(paths)} files *{suffix}, allowed: one")
    return paths[0]


def _number(text: str) -> float:
    try:
        return parse_number(text)
    except ValueError:
        return math.nan


def _stem(file: str) -> str:
    return file.rsplit("/", 1)[-1].removesuffix(".wav")


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "the list of detections"


def _parse(source: Path | bytes, start: Start, ended: Ended | None = None) -> None:
    """Walk through an XML file.

    Document type declarations are refused, since entities can blow a small file up; so are files with more
    elements, or deeper ones, than a list of detections can have.

    Args:
        source: the file or its content.
        start: called with the name and the attributes of every element.
        ended: called with the name of every element that ends and the text since the last tag.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    text: list[str] = []
    elements = depth = 0

    def begin(tag: str, values: dict[str, str]) -> None:
        nonlocal elements, depth
        elements, depth = elements + 1, depth + 1
        if elements > MAX_ELEMENTS or depth > MAX_DEPTH:
            limits = f"{MAX_ELEMENTS} elements, {MAX_DEPTH} within each other"
            raise ResultError(f"{_name(source)}: has too many elements, allowed: at most {limits}")
        text.clear()
        start(tag, values)

    def finish(tag: str) -> None:
        nonlocal depth
        depth -= 1
        if ended is not None:
            ended(tag, "".join(text))
        text.clear()

    def refuse(*_: object) -> None:
        raise ResultError(f"{_name(source)}: has a document type declaration, allowed: none")

    parser.StartElementHandler, parser.EndElementHandler = begin, finish
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text.append, refuse
    try:
        parser.Parse(source.read_bytes() if isinstance(source, Path) else source, True)
    except OSError as error:
        raise ResultError(f"{_name(source)}: cannot be read ({error})") from error
    except expat.ExpatError as error:
        raise ResultError(f"{_name(source)}: not XML ({error})") from error
