"""The formats of a submission's files, as the leaderboard reads them.

The site keeps what libmagic calls plain text, splits each line once and looks every name up in
its truth; names that are missing count for nothing, so that counts have to be checked here.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ...errors import ResultError
from ..metrics.der import read_activity, read_frame_shift
from ..metrics.mtwv import read_detections
from ..metrics.parsers import Written
from ..tasks.spec import Prediction, Task


@dataclass(frozen=True)
class Found:
    """What a prediction holds.

    Args:
        items: how many utterances, trials or recordings.
        faults: what keeps it from being scored, or from being scored right.
    """

    items: int
    faults: tuple[str, ...] = ()


def check(task: Task, prediction: Prediction, files: Mapping[str, bytes], any_count: bool = False) -> Found:
    """Check one prediction.

    Args:
        task: whose it is.
        prediction: its row in the table.
        files: name below the entry -> content; one file has the empty name.
        any_count: accept another number of items than SUPERB's test set has.
    """
    try:
        found = KINDS[prediction.kind](task, files)
    except ResultError as error:
        return Found(0, (str(error),))
    if prediction.count and found.items != prediction.count and not any_count:
        wanted = f"holds {found.items} items, allowed: {prediction.count} ({prediction.origin})"
        return Found(found.items, (*found.faults, wanted))
    return found


def _lines(files: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines of a file that counts as plain text."""
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


def _named(files: Mapping[str, bytes], separator: str, fault: Callable[[list[str]], str]) -> Found:
    """Check lines ``name value``, where a name may come back only with the same value."""
    values: dict[str, str] = {}
    faults = []
    for number, line in _lines(files):
        name, *rest = line.strip().split(separator, maxsplit=1)
        wrong = "a tab, allowed: a space" if "\t" in name else fault(rest)
        if wrong:
            faults.append(f"line {number}: {wrong}")
        elif values.setdefault(name, "".join(rest)) != "".join(rest):
            faults.append(f"line {number}: {name} is there twice, with another value")
    more = (f"and {len(faults) - 3} more lines",) if len(faults) > 3 else ()
    return Found(len(values), (*faults[:3], *more))


def _texts(task: Task, files: Mapping[str, bytes]) -> Found:
    return _named(files, " ", lambda rest: "")


def _labels(task: Task, files: Mapping[str, bytes]) -> Found:
    return _named(files, " ", lambda rest: "" if rest else "no label, allowed: NAME LABEL")


def _scores(task: Task, files: Mapping[str, bytes]) -> Found:
    def fault(rest: list[str]) -> str:
        try:
            return "" if math.isfinite(float("".join(rest))) else "score is not finite"
        except ValueError:
            return f"score is {''.join(rest)!r}, allowed: NAME NUMBER"

    return _named(files, " ", fault)


def _intents(task: Task, files: Mapping[str, bytes]) -> Found:
    def fault(rest: list[str]) -> str:
        slots = "".join(rest).split(",")
        return "" if len(slots) == 3 and all(slots) else "allowed: NAME,ACTION,OBJECT,LOCATION"

    return _named(files, ",", fault)


def _means(task: Task, files: Mapping[str, bytes]) -> Found:
    written: dict[str, str] = {}
    for number, line in _lines(files):
        fields = line.split()
        if len(fields) != 2:
            raise ResultError(f"line {number}: allowed: METRIC NUMBER")
        written[fields[0]] = fields[1]
    faults = []
    for metric in task.metrics:
        if isinstance(metric.read, Written):
            text = written.get(metric.read.key, "")
            try:
                fault = metric.fault(float(text) * metric.read.scale)
            except ValueError:
                fault = f"no number for {metric.read.key}" if text else f"no line for {metric.read.key}"
            faults += [fault] if fault else []
    return Found(len(written), tuple(faults))


def _translations(task: Task, files: Mapping[str, bytes]) -> Found:
    text = "\n".join(line for _, line in _lines(files))
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    wanted = {"hyp", "ref"} - set(rows.fieldnames or ())
    if wanted:
        raise ResultError(f"the first line has no column {' and no '.join(sorted(wanted))}")
    read = list(rows)
    if not read:
        raise ResultError("holds no translation")
    short = sum(row["hyp"] is None or row["ref"] is None for row in read)
    return Found(len(read), (f"{short} lines lack a column",) if short else ())


def _number(task: Task, files: Mapping[str, bytes]) -> Found:
    read_frame_shift(files[""])
    return Found(1)


def _detections(task: Task, files: Mapping[str, bytes]) -> Found:
    documents: dict[str, int] = {}
    for query, _ in read_detections(files[""]):
        documents[query] = documents.get(query, 0) + 1
    uneven = len(set(documents.values())) > 1
    most = max(documents.values())
    few = next((query for query, count in documents.items() if count < most), "")
    return Found(len(documents), (f"query {few} has fewer documents than others",) if uneven else ())


def _activities(task: Task, files: Mapping[str, bytes]) -> Found:
    faults = []
    for name, content in files.items():
        if not name.endswith(".h5") or "/" in name:
            faults.append(f"{name} is there, allowed: RECORDING.h5")
            continue
        try:
            read_activity(content)
        except ResultError as error:
            faults.append(f"{name}: {error}")
    return Found(len(files), tuple(faults[:3]))


KINDS: dict[str, Callable[[Task, Mapping[str, bytes]], Found]] = {
    "texts": _texts,
    "labels": _labels,
    "scores": _scores,
    "intents": _intents,
    "means": _means,
    "translations": _translations,
    "number": _number,
    "detections": _detections,
    "activities": _activities,
}
FOLDERS = ("activities",)
"""Kinds that are a folder of files."""
