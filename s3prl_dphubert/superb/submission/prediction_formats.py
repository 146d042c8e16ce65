"""Formats of a submission's files, as the leaderboard reads them.

A task module gives one of these functions as the ``format`` of a :class:`~..tasks.spec.Prediction`. Each
takes the content of a file, or of the files of a folder, and returns the number of items and the faults.

The site keeps what libmagic calls plain text, splits each line once and looks every name up in
its truth. It skips names that are missing, so that counts have to be checked here.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...errors import ResultError
from ..metrics.parsers import Written
from ..tasks.spec import FormatCheck, Metric, PredictionContent

SHOWN = 3  # faults of a file that are listed


def texts(files: Mapping[str, bytes]) -> PredictionContent:
    """Check lines ``NAME TEXT``; the text may be empty."""
    return _named(files, " ", lambda rest: "")


def labels(files: Mapping[str, bytes]) -> PredictionContent:
    """Check lines ``NAME LABEL``."""
    return _named(files, " ", lambda rest: "" if rest else "no label, allowed: NAME LABEL")


def trial_scores(files: Mapping[str, bytes]) -> PredictionContent:
    """Check lines ``NAME NUMBER``."""

    def fault(text: str) -> str:
        try:
            return "" if math.isfinite(float(text)) else "score is not finite"
        except ValueError:
            return f"score is {text!r}, allowed: NAME NUMBER"

    return _named(files, " ", fault)


def intents(files: Mapping[str, bytes]) -> PredictionContent:
    """Check lines ``NAME,ACTION,OBJECT,LOCATION``."""

    def fault(text: str) -> str:
        slots = text.split(",")
        return "" if len(slots) == 3 and all(slots) else "allowed: NAME,ACTION,OBJECT,LOCATION"

    return _named(files, ",", fault)


def metric_means(metrics: Sequence[Metric]) -> FormatCheck:
    """Return the check of lines ``KEY NUMBER`` that have to hold some metrics of type :class:`Written`."""
    parsers = {metric: metric.read for metric in metrics if isinstance(metric.read, Written)}

    def check(files: Mapping[str, bytes]) -> PredictionContent:
        written: dict[str, str] = {}
        for number, line in _lines(files):
            fields = line.split()
            if len(fields) != 2:
                raise ResultError(f"line {number}: allowed: METRIC NUMBER")
            written[fields[0]] = fields[1]
        faults = []
        for metric, parser in parsers.items():
            text = written.get(parser.key, "")
            try:
                fault = metric.fault(float(text) * parser.scale)
            except ValueError:
                fault = f"no number for {parser.key}" if text else f"no line for {parser.key}"
            faults += [fault] if fault else []
        return PredictionContent(len(written), tuple(faults))

    return check


def translations(files: Mapping[str, bytes]) -> PredictionContent:
    """Check a table with the columns ``hyp`` and ``ref``, separated by tabs."""
    text = "\n".join(line for _, line in _lines(files))
    table = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = {"hyp", "ref"} - set(table.fieldnames or ())
    if missing:
        raise ResultError(f"the first line has no column {' and no '.join(sorted(missing))}")
    rows = list(table)
    if not rows:
        raise ResultError("holds no translation")
    short = sum(row["hyp"] is None or row["ref"] is None for row in rows)
    return PredictionContent(len(rows), (f"{short} lines lack a column",) if short else ())


def detections(files: Mapping[str, bytes]) -> PredictionContent:
    """Check an ``stdlist`` file, in which every query was searched in as many documents."""
    from ..metrics.mtwv import read_detections

    documents = Counter(query for query, _ in read_detections(files[""]))
    most = max(documents.values())
    short = next((query for query, count in documents.items() if count < most), None)
    faults = () if short is None else (f"query {short} has fewer documents than others",)
    return PredictionContent(len(documents), faults)


def frame_shift(files: Mapping[str, bytes]) -> PredictionContent:
    """Check a number of samples a frame."""
    from ..metrics.der import read_frame_shift

    read_frame_shift(files[""])
    return PredictionContent(1)


def speaker_activities(files: Mapping[str, bytes]) -> PredictionContent:
    """Check a folder of ``RECORDING.h5`` with probabilities (F, speakers)."""
    from ..metrics.der import read_activity

    faults = []
    for name, content in files.items():
        if not name.endswith(".h5") or "/" in name:
            faults.append(f"{name} is there, allowed: RECORDING.h5")
            continue
        try:
            read_activity(content)
        except ResultError as error:
            faults.append(f"{name}: {error}")
    return PredictionContent(len(files), tuple(faults[:SHOWN]))


def _named(files: Mapping[str, bytes], separator: str, fault: Callable[[str], str]) -> PredictionContent:
    """Check lines ``name value``, where a name may come back only with the same value."""
    values: dict[str, str] = {}
    faults = []
    for number, line in _lines(files):
        name, _, value = line.strip().partition(separator)
        problem = "a tab, allowed: a space" if "\t" in name else fault(value)
        if problem:
            faults.append(f"line {number}: {problem}")
        elif values.setdefault(name, value) != value:
            faults.append(f"line {number}: {name} is there twice, with another value")
    more = (f"and {len(faults) - SHOWN} more lines",) if len(faults) > SHOWN else ()
    return PredictionContent(len(values), (*faults[:SHOWN], *more))


def _lines(files: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file that counts as plain text."""
    content = files[""]
    try:
        text = content.decode("utf8")
    except UnicodeDecodeError as error:
        raise ResultError(f"is not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise ResultError("is empty, which the site takes for no text file")
    bad = next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n\r\f"), None)
    if bad is not None:
        raise ResultError(f"has the control character {bad!r}, which the site takes for no text file")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")
