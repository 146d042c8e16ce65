"""Who says what in Flight of the Amazon Queen: the recordings and the script in the game's data file.

``*.SB`` is MP3, 11,025 Hz. ``*.DOG`` is a dialogue with one character, whose name is the file's,
``QUEEN2.JAS`` holds what the hero remarks, ``*.CUT`` a cut scene. A text is recorded in pieces: a ``*`` with
two letters of a command ends one, and the last digit of a recording's name counts them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import DataError
from .recordings import queen_entries

HERO = "joe"
SPEECH = re.compile(r"(?:\d\d[0-9A-FSX]{4}[JP]|JOE\d{4}|C\d\w{3}\d\d)[0-9A-F]")
"""Names of recordings that are spoken; the others are noises."""

FIRST_REMARK = 41  # the first line of QUEEN2.JAS is recorded as JOE0041
POSITION = 11  # characters after the command XY, where the speaker stands
RESOURCE_HEADER = 20  # bytes before the content of a .DOG or .CUT


@dataclass(frozen=True)
class Line:
    """One recording.

    Attributes:
        name: without ``.SB``.
        voice: the character in lower case; empty where the script does not tell.
        text: what is said; empty where the script does not hold it.
        data: MP3.
    """

    name: str
    voice: str
    text: str
    data: bytes


def lines(archive: bytes) -> Iterator[Line]:
    """Yield the spoken recordings in the order of their names.

    Raises:
        DataError: the file is damaged.
    """
    try:
        entries = dict(queen_entries(archive))
        said = _script(entries)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"queen.1c: not the game's data file, or damaged ({error})") from error
    for entry in sorted(entries):
        name = entry.removesuffix(".SB")
        if name != entry and (SPEECH.fullmatch(name) or name in said):
            voice, text = said.get(name, (HERO if name.startswith("JOE") else "", ""))
            yield Line(name, voice, text, entries[entry])


def _script(entries: dict[str, bytes]) -> dict[str, tuple[str, str]]:
    """Recording -> voice and text; where two places of the script claim one, the first has it."""
    said: dict[str, tuple[str, str]] = {}
    texts = [*_dialogues(entries), *_remarks(entries), *_scenes(entries)]
    for prefix, voice, text in texts:
        for number, piece in enumerate(pieces(text), start=1):
            if piece.strip():
                said.setdefault(f"{prefix}{number:X}", (voice, piece.strip()))
    return {name: what for name, what in said.items() if f"{name}.SB" in entries}


def pieces(text: str) -> list[str]:
    """Cut a text where it holds a command; each piece is one recording."""
    parts = re.split(rf"\*(?:XY.{{{POSITION}}}|..)", text, flags=re.DOTALL)
    return parts if parts[-1] else parts[:-1]


def _dialogues(entries: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """Name of the recordings without the piece, voice and text of every dialogue's sentences."""
    for entry in sorted(name for name in entries if name.endswith(".DOG")):
        data = entries[entry][RESOURCE_HEADER:]
        voice = re.sub(r"\d+$", "", entry.removesuffix(".DOG")).lower()
        levels, _, key, hero_texts, other_texts = struct.unpack_from(">5h", data)
        hero_at = 32 + 96 * abs(levels)
        other_at, greeting_at = struct.unpack_from(">H2xH", data, 22)
        for at, count, letter, who in (
            (hero_at, hero_texts, "J", HERO),
            (other_at, other_texts, "P", voice),
        ):
            for _ in range(count):
                _, number = struct.unpack_from(">Hh", data, at)
                text, at = _string(data, at + 4, 4)
                yield f"{key:02d}{number & 0xFFFF:04X}{letter}", who, text
        if data[hero_at + 2 : hero_at + 4] == b"\0\0":
            yield f"{key:02d}SSSSJ", HERO, _string(data, hero_at + 4, 2)[0]
        text, at = _string(data, greeting_at, 2)
        yield f"{key:02d}XXXXP", voice, text
        yield f"{key:02d}XXXXJ", HERO, _string(data, at, 2)[0]


def _remarks(entries: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """What the hero says of things, a line of text each."""
    for number, line in enumerate(entries["QUEEN2.JAS"].split(b"\n"), start=FIRST_REMARK):
        yield f"JOE{number:04d}", HERO, line.decode("cp850", "replace").rstrip("\r")


def _scenes(entries: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """Cut scenes; of those who speak there only the hero has a number that tells who it is."""
    for entry in sorted(name for name in entries if name.endswith(".CUT")):
        data = entries[entry][RESOURCE_HEADER:]
        (count,) = struct.unpack_from(">h", data, 2)
        at, _ = struct.unpack_from(">HH", data, 8)
        scene = entry.removesuffix(".CUT").ljust(5, "_")[:5].upper()
        _, at = _string(data, at, 2)
        for number in range(abs(count)):
            if at >= len(data):
                break
            (speaker,) = struct.unpack_from(">h", data, 12 + 36 * number)
            text, at = _string(data, at, 2)
            yield f"{scene}{number + 1:02d}", HERO if speaker == 0 else "", text


def _string(data: bytes, at: int, align: int) -> tuple[str, int]:
    """A text after a byte of length, and where the next thing begins."""
    length, at = data[at], at + 1
    if not length:
        return "", at
    end = at + length
    return data[at:end].decode("cp850", "replace"), (end + align - 1) & ~(align - 1)
