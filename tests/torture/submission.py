"""Faults planted in a submission of full size: each is refused, or listed as one that nobody can check."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from s3prl_dphubert.superb.submission.archive import check
from tests.helpers import full_submission
from tests.torture.figures import FAILED, REFUSED, SKIPPED
from tests.torture.sandbox import Case, Trial

Lines = list[str]
Random = np.random.Generator
IC, ASV, SF = "ic_public/predict.csv", "sv_public/predict.txt", "sf_public/predict.ark"
QBE = "qbe_public/benchmark.stdlist.xml"
UNKNOWN = ("#", "été", "b2", "[SIL]", "nan%")  # values that no task has; s3prl itself writes <unk>
TEXTS = tuple(name for name in full_submission.texts() if name != QBE)


def _separator(entry: str) -> str:
    return "," if entry == IC else " "


def _any(rows: Lines, random: Random) -> int:
    return int(random.integers(len(rows)))


def line_lost(entry: str, rows: Lines, random: Random) -> None:
    del rows[_any(rows, random)]


def name_twice(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    name, separator, _ = rows[place].partition(_separator(entry))
    others = (row.partition(separator)[2] for row in rows)
    rows.append(f"{name}{separator}{next(value for value in others if not rows[place].endswith(value))}")


def unknown_name(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    name, separator, value = rows[place].partition(_separator(entry))
    rows[place] = f"{''.join(reversed(name))}{separator}{value}"


def name_lost(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    rows[place] = rows[place].partition(_separator(entry))[2]


def header(entry: str, rows: Lines, random: Random) -> None:
    rows.insert(0, f"file{_separator(entry)}prediction")


def unknown_value(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    name, separator, _ = rows[place].partition(_separator(entry))
    rows[place] = f"{name}{separator}{random.choice(UNKNOWN)}"


def other_separator(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    rows[place] = rows[place].replace(_separator(entry), ";")


def control_character(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    rows[place] = f"{rows[place]}{random.choice([chr(0), chr(27), chr(11), chr(0x2028)])}x"


def half_lost(entry: str, rows: Lines, random: Random) -> None:
    del rows[_any(rows, random) :]


def all_lost(entry: str, rows: Lines, random: Random) -> None:
    rows.clear()


def of_another_task(entry: str, rows: Lines, random: Random) -> None:
    other = str(random.choice([name for name in TEXTS if name[:3] != entry[:3]]))
    rows[:] = full_submission.texts()[other].splitlines()


def not_a_number(entry: str, rows: Lines, random: Random) -> None:
    place = _any(rows, random)
    rows[place] = (
        f"{rows[place].partition(' ')[0]} {random.choice(['nan', 'inf', '-inf', '1,5', '0x1p3', '1_0'])}"
    )


FAULTS: dict[str, Callable[[str, Lines, Random], None]] = {
    "a line is lost": line_lost,
    "a name is there twice": name_twice,
    "a name is unknown": unknown_name,
    "a name is lost": name_lost,
    "a header": header,
    "a value is unknown": unknown_value,
    "another separator": other_separator,
    "a control character": control_character,
    "the end is lost": half_lost,
    "the file is empty": all_lost,
    "the file of another task": of_another_task,
}
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "not UTF-8": lambda data: data[:-1] + b"\xff\n",
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "zeros at the end, as after a power cut": lambda data: data[:-4096] + bytes(4096),
}
ALLOWED = {
    (SF, "a line is lost"): "two to four voices were published, so the number of items is a range",
    (SF, "the end is lost"): "the same, where a whole voice is left",
}
NOT_CHECKABLE = {
    "two values of the right kind are exchanged": "only the organisers have the references",
    "predictions of another model": "as before",
    "a line is there twice, alike": "it changes nothing, and s3prl writes such lines",
    "every value is the same": "a model that has learnt nothing makes such a file",
}
"""Planted fault -> why no check can find it."""


def cases(seed: int, place: Path) -> Iterator[Case]:
    """Yield every fault of every task once, then at other places, without end."""
    for kind, reason in NOT_CHECKABLE.items():
        skipped = Trial("submission", kind, 0, SKIPPED, reason, disturbances=0)
        yield Case("submission", kind, 0, lambda skipped=skipped: skipped)
    for number in itertools.count():
        for entry in TEXTS:
            kinds = [*FAULTS, *BYTES, *(["a score is no number"] if entry == ASV else [])]
            for kind in kinds:
                attempt = partial(trial, entry, kind, number, seed, place)
                yield Case("submission", f"{entry}: {kind}", number, attempt)


def planted(entry: str, kind: str, random: Random) -> bytes:
    """Return the file of an entry with a fault."""
    text = full_submission.texts()[entry]
    if kind in BYTES:
        return BYTES[kind](text.encode())
    rows = text.splitlines()
    (not_a_number if kind == "a score is no number" else FAULTS[kind])(entry, rows, random)
    return "".join(f"{row}\n" for row in rows).encode()


def trial(entry: str, kind: str, number: int, seed: int, place: Path) -> Trial:
    """Plant one fault, and check the archive."""
    random = np.random.default_rng((seed, *f"{entry}{kind}".encode(), number))
    path = place / "predict.zip"
    place.mkdir(parents=True, exist_ok=True)
    full_submission.pack(path, {entry: planted(entry, kind, random)})
    began = time.monotonic()
    faults = [fault for fault in check(path).faults if fault.startswith(entry)]
    seconds = round(time.monotonic() - began, 3)
    name = f"{entry.partition('/')[0].removesuffix('_public')}: {kind}"
    if faults:
        return Trial("submission", name, number, REFUSED, faults[0][:200], seconds)
    if (reason := ALLOWED.get((entry, kind))) is not None:
        return Trial("submission", name, number, SKIPPED, reason, seconds)
    return Trial("submission", name, number, FAILED, "passes the check", seconds)
