"""The recordings and the script of Flight of the Amazon Queen, read from the data file of the game.

``*.SB`` is MP3 at 11,025 Hz. ``*.DOG`` is a dialogue with the character that the file is named after,
``QUEEN2.JAS`` holds the remarks of the hero, ``*.CUT`` is a cut scene. A text is recorded in pieces: a ``*``
and a two-letter command end a piece, and the last digit of a recording's name counts the pieces.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import DataError

HERO = "joe"
SPEECH = re.compile(r"(?:\d\d[0-9A-FSX]{4}[JP]|JOE\d{4}|C\d\w{3}\d\d)[0-9A-F]")
"""Names of recordings of speech; the others are noises."""

FIRST_REMARK = 41  # the first line of QUEEN2.JAS is recorded as JOE0041
POSITION = 11  # characters after the command XY, the position of the speaker
RESOURCE_HEADER = 20  # bytes before the content of a .DOG or .CUT


@dataclass(frozen=True)
class SpokenLine:
    """One recording of speech.

    Attributes:
        name: name without ``.SB``.
        voice: name of the character in lower case; empty if the script does not tell.
        text: words spoken; empty if the script does not hold them.
        data: the recording as MP3.
    """

    name: str
    voice: str
    text: str
    data: bytes


def entries(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of everything in the data file.

    The table at byte 13 counts the entries; each holds a name of 12 bytes, a bundle byte, offset and size
    (big-endian).
    """
    (count,) = struct.unpack_from(">H", archive, 13)
    for index in range(count):
        name, _, offset, size = struct.unpack_from(">12sBII", archive, 15 + 21 * index)
        yield name.split(b"\0")[0].decode("ascii"), archive[offset : offset + size]


def lines(archive: bytes) -> Iterator[SpokenLine]:
    """Yield the recordings of speech in the order of their names.

    Raises:
        DataError: the file is damaged.
    """
    try:
        files = dict(entries(archive))
        script = _script(files)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"queen.1c: not the game's data file, or damaged ({error})") from error
    for file in sorted(files):
        name = file.removesuffix(".SB")
        if name != file and (SPEECH.fullmatch(name) or name in script):
            voice, text = script.get(name, (HERO if name.startswith("JOE") else "", ""))
            yield SpokenLine(name, voice, text, files[file])


def _script(files: dict[str, bytes]) -> dict[str, tuple[str, str]]:
    """Return recording -> (voice, text); if two places of the script claim a recording, the first wins."""
    script: dict[str, tuple[str, str]] = {}
    texts = [*_dialogues(files), *_remarks(files), *_scenes(files)]
    for prefix, voice, text in texts:
        for number, piece in enumerate(pieces(text), start=1):
            if piece.strip():
                script.setdefault(f"{prefix}{number:X}", (voice, piece.strip()))
    return {name: line for name, line in script.items() if f"{name}.SB" in files}


def pieces(text: str) -> list[str]:
    """Split a text at its commands; each piece is one recording."""
    parts = re.split(rf"\*(?:XY.{{{POSITION}}}|..)", text, flags=re.DOTALL)
    return parts if parts[-1] else parts[:-1]


def _dialogues(files: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield (recording without the number of its piece, voice, text) for the sentences of all dialogues."""
    for file in sorted(name for name in files if name.endswith(".DOG")):
        data = files[file][RESOURCE_HEADER:]
        voice = re.sub(r"\d+$", "", file.removesuffix(".DOG")).lower()
        levels, _, key, hero_texts, other_texts = struct.unpack_from(">5h", data)
        hero_at = 32 + 96 * abs(levels)
        other_at, greeting_at = struct.unpack_from(">H2xH", data, 22)
        for at, count, letter, speaker in (
            (hero_at, hero_texts, "J", HERO),
            (other_at, other_texts, "P", voice),
        ):
            for _ in range(count):
                _, number = struct.unpack_from(">Hh", data, at)
                text, at = _string(data, at + 4, 4)
                yield f"{key:02d}{number & 0xFFFF:04X}{letter}", speaker, text
        if data[hero_at + 2 : hero_at + 4] == b"\0\0":
            yield f"{key:02d}SSSSJ", HERO, _string(data, hero_at + 4, 2)[0]
        text, at = _string(data, greeting_at, 2)
        yield f"{key:02d}XXXXP", voice, text
        yield f"{key:02d}XXXXJ", HERO, _string(data, at, 2)[0]


def _remarks(files: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield the same for the hero's remarks, one line of text each."""
    for number, line in enumerate(files["QUEEN2.JAS"].split(b"\n"), start=FIRST_REMARK):
        yield f"JOE{number:04d}", HERO, line.decode("cp850", "replace").rstrip("\r")


def _scenes(files: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield the same for the cut scenes, where only the hero can be identified by the speaker's number."""
    for file in sorted(name for name in files if name.endswith(".CUT")):
        data = files[file][RESOURCE_HEADER:]
        (count,) = struct.unpack_from(">h", data, 2)
        at, _ = struct.unpack_from(">HH", data, 8)
        scene = file.removesuffix(".CUT").ljust(5, "_")[:5].upper()
        _, at = _string(data, at, 2)
        for number in range(abs(count)):
            if at >= len(data):
                break
            (speaker,) = struct.unpack_from(">h", data, 12 + 36 * number)
            text, at = _string(data, at, 2)
            yield f"{scene}{number + 1:02d}", HERO if speaker == 0 else "", text


def _string(data: bytes, at: int, align: int) -> tuple[str, int]:
    """Return the text that follows a length byte, and the aligned offset behind it."""
    length, at = data[at], at + 1
    if not length:
        return "", at
    end = at + length
    return data[at:end].decode("cp850", "replace"), (end + align - 1) & ~(align - 1)
