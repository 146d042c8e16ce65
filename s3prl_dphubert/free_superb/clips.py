"""The clips that all tasks are cut from: recordings as FLAC, 16 kHz, mono, with their voices and texts.

::

    corpus/<package>/<clip>.flac   decoded recordings
    corpus/<package>.tsv           their names and lengths, written when the package is complete
    corpus/clips.tsv               voices and texts of the labelled recordings
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ..constants import SAMPLE_RATE
from ..errors import DataError
from ..utils.files import write_text
from ..utils.readers import read_table, reading
from .sources import amazon_queen, deb, recordings
from .sources.recordings import QUEEN, SOURCES, Source
from .voices import OPERATOR

PROMPTS, PROMPT_TEXTS = "asterisk-core-sounds-en-g722", "asterisk-core-sounds-en"
"""Asterisk's English prompts, and the package with the list of their texts."""

NEEDED = (QUEEN, PROMPTS, PROMPT_TEXTS)
"""Packages that the tasks need; the others give speech without labels."""

_PROMPT_FOLDER = "asterisk__sounds__en_US_f_Allison__"
_DIRECTIONS = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)")
_SEPARATORS = re.compile(r"[\s\-.,;:!?\"“”…/*~_]+")
_WORD = re.compile(r"[A-Z]+(?:'[A-Z]+)*")


@dataclass(frozen=True)
class Clip:
    """One labelled recording.

    Attributes:
        package: Debian package of the recording.
        name: file name without suffix.
        voice: name of the speaker.
        text: words spoken, as written in the package.
        samples: length at 16 kHz.
    """

    package: str
    name: str
    voice: str
    text: str
    samples: int

    @property
    def path(self) -> str:
        """Path of the file below ``corpus``."""
        return f"{self.package}/{self.name}.flac"

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE


def source(package: str) -> Source:
    """Return the description of a package of recordings.

    Raises:
        DataError: the package is not one of :data:`.SOURCES`.
    """
    for candidate in SOURCES:
        if candidate.package == package:
            return candidate
    raise DataError(f"package is {package!r}, allowed: {', '.join(each.package for each in SOURCES)}")


def decode(package: str, path: Path, corpus: Path) -> dict[str, int]:
    """Decode the clips of a package that have not been decoded yet.

    Args:
        package: name of the package.
        path: its ``.deb``.
        corpus: folder of the corpus.

    Returns:
        Name -> samples of every clip that is speech, in the order of the names.
    """
    table = corpus / f"{package}.tsv"
    if not table.exists():
        folder = corpus / package
        clips = recordings.clips(
            source(package),
            path,
            lambda archive: ((line.name, line.data) for line in amazon_queen.lines(archive)),
        )
        missing = (clip for clip in clips if not (folder / f"{clip[0]}.flac").exists())
        recordings.convert_all(missing, source(package), folder)
        files = sorted(folder.glob("*.flac"))
        rows = "".join(f"{file.stem}\t{soundfile.info(file).frames}\n" for file in files)
        write_text(table, f"name\tsamples\n{rows}")
    with reading(table, DataError, "a list of clips"):
        return {row["name"]: int(row["samples"]) for row in read_table(table, ("name", "samples"))}


def label(debs: dict[str, Path], corpus: Path) -> list[Clip]:
    """Decode the labelled packages and write ``clips.tsv``, without repeated recordings.

    Args:
        debs: package -> ``.deb`` of all :data:`NEEDED` packages.
        corpus: folder of the corpus.
    """
    table = corpus / "clips.tsv"
    if not table.exists():
        clips = [*_game_clips(debs, corpus), *_prompt_clips(debs, corpus)]
        rows = "".join(f"{c.package}\t{c.name}\t{c.voice}\t{c.text}\t{c.samples}\n" for c in clips)
        write_text(table, f"package\tname\tvoice\ttext\tsamples\n{rows}")
    return read_clips(table)


def read_clips(path: Path) -> list[Clip]:
    """Read the labelled clips that ``clips.tsv`` lists."""
    columns = ("package", "name", "voice", "text", "samples")
    with reading(path, DataError, "a list of clips"):
        return [
            Clip(row["package"], row["name"], row["voice"], row["text"], int(row["samples"]))
            for row in read_table(path, columns)
        ]


def normalise(text: str) -> tuple[str, ...]:
    """Return the words of a text in capital letters and apostrophes, without stage directions.

    A text that holds digits or other characters has no words.
    """
    plain = _DIRECTIONS.sub(" ", text).replace("’", "'").upper()
    words = [word.strip("'") for word in _SEPARATORS.split(plain)]
    words = [word for word in words if word]
    return tuple(words) if all(_WORD.fullmatch(word) for word in words) else ()


def _game_clips(debs: dict[str, Path], corpus: Path) -> Iterator[Clip]:
    samples = decode(QUEEN, debs[QUEEN], corpus)
    digests: set[str] = set()
    for _, archive in deb.files(debs[QUEEN], source(QUEEN).pattern):
        for line in amazon_queen.lines(archive):
            if not line.voice or line.name not in samples:
                continue
            clip = Clip(QUEEN, line.name, line.voice, " ".join(line.text.split()), samples[line.name])
            if _is_new(corpus / clip.path, digests):
                yield clip


def _prompt_clips(debs: dict[str, Path], corpus: Path) -> Iterator[Clip]:
    texts = _prompt_texts(debs[PROMPT_TEXTS])
    digests: set[str] = set()
    for name, samples in decode(PROMPTS, debs[PROMPTS], corpus).items():
        if name in texts:
            clip = Clip(PROMPTS, name, OPERATOR, " ".join(texts[name].split()), samples)
            if _is_new(corpus / clip.path, digests):
                yield clip


def _prompt_texts(package: Path) -> dict[str, str]:
    """Return clip name -> text of the prompts; noises, described in brackets, are left out."""
    texts = {}
    for _, data in deb.files(package, r"/core-sounds-en\.txt\.gz$"):
        for line in gzip.decompress(data).decode("utf-8-sig").splitlines():
            prompt, colon, text = line.partition(":")
            if colon and not line.startswith(";") and not text.strip().startswith(("[", "(")):
                texts[_PROMPT_FOLDER + prompt.strip().replace("/", "__")] = text.strip()
    return texts


def _is_new(path: Path, digests: set[str]) -> bool:
    """Return whether no earlier recording has the same samples, and remember this one."""
    samples, _ = soundfile.read(io.BytesIO(path.read_bytes()), dtype="int16")
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    new = digest not in digests
    digests.add(digest)
    return new
