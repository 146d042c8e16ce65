"""Formats of a submission's files, as the leaderboard reads them.

A task module gives one of these functions as the ``format`` of a :class:`~..tasks.spec.Prediction`. Each
takes the content of a file, or of the files of a folder, and returns the number of items and the faults.

The site keeps what libmagic calls plain text, splits each line once and looks every name up in
its truth. It skips names that are missing, so that counts have to be checked here.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...errors import ResultError
from ...utils.readers import parse_number
from ..metrics.parsers import Written
from ..tasks.spec import FormatCheck, Metric, PredictionContent
from .item_rules import PredictedItem, shortened

MAX_LINES, MAX_LINE = 200_000, 2**16
MAX_RECORDINGS = 6000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")


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
            return "" if math.isfinite(parse_number(text)) else "score is not finite"
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
                fault = metric.fault(parse_number(text) * parser.scale)
            except ValueError:
                fault = f"no number for {parser.key}" if text else f"no line for {parser.key}"
            faults += [fault] if fault else []
        return PredictionContent(len(written), tuple(faults))

    return check


def translations(files: Mapping[str, bytes]) -> PredictionContent:
    """Check a table with the columns ``hyp`` and ``ref``, separated by tabs."""
    (_, head), *rows = _lines(files)
    columns = head.split("\t")
    if missing := {"hyp", "ref"} - set(columns):
        raise ResultError(f"the first line has no column {' and no '.join(sorted(missing))}")
    if not rows:
        raise ResultError("holds no translation")
    last = max(columns.index("hyp"), columns.index("ref"))
    short = [number for number, line in rows if len(line.split("\t")) <= last]
    faults = (f"{len(short)} lines lack a column, the first: line {short[0]}",) if short else ()
    return PredictionContent(len(rows), faults)


def detections(files: Mapping[str, bytes]) -> PredictionContent:
    """Check an ``stdlist`` file, in which every query was searched in the same documents."""
    from ..metrics.mtwv import read_detections

    documents: dict[str, list[str]] = {}
    for query, document in read_detections(files[""]):
        documents.setdefault(query, []).append(document)
    every = set().union(*documents.values())
    short = [query for query, names in documents.items() if len(names) < len(every)]
    faults = (f"query {short[0]} has fewer documents than others",) if short else ()
    queries = [PredictedItem(f"query {name}", name, " ".join(listed)) for name, listed in documents.items()]
    return PredictionContent(len(documents), faults, tuple(queries))


def frame_shift(files: Mapping[str, bytes]) -> PredictionContent:
    """Check a number of samples a frame."""
    from ..metrics.der import read_frame_shift

    shift = read_frame_shift(files[""])
    return PredictionContent(1, (), (PredictedItem("line 1", "frame_shift", str(shift)),))


def speaker_activities(files: Mapping[str, bytes]) -> PredictionContent:
    """Check a folder of ``RECORDING.h5`` with probabilities (F, speakers); values are numbers of speakers."""
    from ..metrics.der import read_activity

    if len(files) > MAX_RECORDINGS:
        raise ResultError(f"holds {len(files)} recordings, allowed: at most {MAX_RECORDINGS}")
    faults, recordings = [], []
    for name in files:
        if not name.endswith(".h5") or "/" in name:
            faults.append(f"{name} is there, allowed: RECORDING.h5")
            continue
        try:
            _, speakers = read_activity(files[name]).shape
        except ResultError as error:
            faults.append(f"{name}: {error}")
            continue
        recordings.append(PredictedItem(name, name.removesuffix(".h5"), str(speakers)))
    return PredictionContent(len(files), tuple(shortened(faults)), tuple(recordings))


def _named(files: Mapping[str, bytes], separator: str, fault: Callable[[str], str]) -> PredictionContent:
    """Check lines ``name value``, where a name may come back only with the same value."""
    items: dict[str, PredictedItem] = {}
    faults = []
    for number, line in _lines(files):
        name, _, value = line.strip().partition(separator)
        problem = "a tab, allowed: a space" if "\t" in name else fault(value)
        if problem:
            faults.append(f"line {number}: {problem}")
        elif items.setdefault(name, PredictedItem(f"line {number}", name, value)).value != value:
            faults.append(f"line {number}: {name} is there twice, with another value")
    return PredictionContent(len(items), tuple(shortened(faults, "more lines")), tuple(items.values()))


def _lines(files: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file that counts as plain text; refuse what is too much for one."""
    content = files[""]
    if content.startswith(codecs.BOM_UTF8):
        raise ResultError("line 1: begins with a byte order mark, which the site takes for part of a name")
    if (lines := content.count(b"\n")) > MAX_LINES:
        raise ResultError(f"has {lines} lines, allowed: at most {MAX_LINES}")
    try:
        text = content.decode("utf8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ResultError(f"line {line}: is not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise ResultError("is empty, which the site takes for no text file")
    if bad := _CONTROL.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        control = f"the control character {bad[0]!r}"
        raise ResultError(f"line {line}: has {control}, which the site takes for no text file")
    for number, row in enumerate(text.split("\n"), start=1):
        if len(row) > MAX_LINE:
            raise ResultError(f"line {number}: has {len(row)} characters, allowed: at most {MAX_LINE}")
        if row.strip():
            yield number, row.rstrip("\r")
