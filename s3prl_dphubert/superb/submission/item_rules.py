"""Rules for the items of SUPERB's test sets: names, predicted values, and lists that lie below the data.

Formats say whether the site can read a file, these rules whether it can score it: the site looks names up in
its truth and skips those that it does not find.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 3  # faults of a file that are listed

UNKNOWN_TOKEN = "<unk>"  # a tokenizer may emit it
_TEST_CLEAN = (
    "61|121|237|260|672|908|1089|1188|1221|1284|1320|1580|1995|2094|2300|2830|2961|3570|3575|3729|4077|4446|4507|"
    "4970|4992|5105|5142|5639|5683|6829|6930|7021|7127|7176|7729|8224|8230|8455|8463|8555"
)
TEST_CLEAN = rf"(?:{_TEST_CLEAN})-\d+-\d{{4}}"
"""Utterances of LibriSpeech's test-clean, of 40 speakers."""

Values = Callable[[str], str]
"""Return the fault of a predicted value, empty if it has none."""

NameList = Callable[[Path | None], frozenset[str] | None]
"""From the folder of data to the names of the test set; ``None`` where their list is not there."""


@dataclass(frozen=True)
class PredictedItem:
    """An utterance, a trial, a query or a recording of a prediction.

    Args:
        place: where it stands, as ``line 3``.
        name: as the site looks it up.
        value: what was predicted.
    """

    place: str
    name: str
    value: str = ""


Together = Callable[[Sequence[PredictedItem], Path | None], Iterable[str]]
"""Yield the faults of all items together; the second argument is the folder of data, if there is one."""


@dataclass(frozen=True)
class ItemRules:
    """Public facts about the items of a test set.

    Args:
        pattern: regular expression that fits every name.
        form: the same for messages, as ``SPEAKER-CHAPTER-NUMBER``.
        value: check of each predicted value.
        names: list of all names.
        together: check of all items together.
    """

    pattern: str
    form: str
    value: Values | None = None
    names: NameList | None = None
    together: Together | None = None

    def faults(self, items: Sequence[PredictedItem], data: Path | None) -> list[str]:
        """List the faults of a prediction's items; the first few where there are many.

        Args:
            items: all of them.
            data: folder of the corpora, if there is one.
        """
        name_fits = re.compile(self.pattern).fullmatch
        listed = self.names(data) if self.names else None
        faults = []
        for item in items:
            fault = ""
            if not name_fits(item.name):
                fault = f"name is {item.name[:60]!r}, allowed: {self.form}"
            elif listed is not None and item.name not in listed:
                fault = f"{item.name} is not in the list of the test set"
            elif self.value:
                fault = self.value(item.value)
            if fault:
                faults.append(f"{item.place}: {fault}")
        faults = shortened(faults)
        if missing := sorted((listed or frozenset()) - {item.name for item in items}):
            faults.append(f"lacks {len(missing)} items of the test set, the first: {missing[0]}")
        return faults + (list(self.together(items, data)) if self.together else [])


def shortened(faults: Sequence[str], what: str = "more faults") -> list[str]:
    """Return the first faults and the number of the others."""
    more = [f"and {len(faults) - SHOWN} {what}"] if len(faults) > SHOWN else []
    return [*faults[:SHOWN], *more]


def one_of(what: str, labels: Iterable[str]) -> Values:
    """Return the check that a value is one of some labels."""
    allowed = dict.fromkeys(labels)
    listed = ", ".join(allowed) if len(allowed) < 20 else f"one of {len(allowed)}"

    def fault(value: str) -> str:
        return "" if value in allowed else f"{what} is {value[:40]!r}, allowed: {listed}"

    return fault


def all_of(fields: Mapping[str, Iterable[str]], separator: str = ",") -> Values:
    """Return the check of a value of several fields.

    Args:
        fields: name of each field -> its labels.
        separator: what is between them.
    """
    checks = [one_of(name, labels) for name, labels in fields.items()]

    def fault(value: str) -> str:
        texts = value.split(separator)
        return next((text for check, part in zip(checks, texts, strict=False) if (text := check(part))), "")

    return fault


def words_of(what: str, vocabulary: Iterable[str]) -> Values:
    """Return the check that a text has words of a vocabulary only."""
    allowed = frozenset(vocabulary) | {UNKNOWN_TOKEN}

    def fault(value: str) -> str:
        word = next((word for word in value.split() if word not in allowed), None)
        return "" if word is None else f"{what} {word[:40]!r} is unknown, allowed: {len(allowed) - 1} {what}s"

    return fault


def spelled_with(letters: str) -> Values:
    """Return the check that a text is of some letters and spaces.

    Args:
        letters: as in a regular expression, between brackets.
    """
    other = re.compile(rf"[^{letters} ]").search

    def fault(value: str) -> str:
        match = other(value.replace(UNKNOWN_TOKEN, ""))
        return f"has the character {match[0]!r}, allowed: {letters} and spaces" if match else ""

    return fault


def file_names(pattern: str, name: Callable[[Path], str] = lambda path: path.stem) -> NameList:
    """Return the reader of the names of files below the data.

    Args:
        pattern: of their paths.
        name: from a path to the name of the item.
    """

    def names(data: Path | None) -> frozenset[str] | None:
        paths = data.glob(pattern) if data else ()
        return frozenset(name(path) for path in paths if not path.name.startswith(".")) or None

    return names


def librispeech_names(data: Path | None) -> frozenset[str] | None:
    """Return the names of LibriSpeech's test-clean below the data."""
    return file_names("LibriSpeech/test-clean/*/*/*.flac")(data)
