"""Small Debian packages like those of FreeSUPERB, made of the embedded speech."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

from s3prl_dphubert.free_superb.corpora import er_corpus
from s3prl_dphubert.free_superb.sources.recordings import SOURCES
from tests.helpers import corpora

RATE = 11_025  # of the game's MP3s
VOICES = ("bob", "tam", "witch", "lou", "death", "chief", "faye", "henry", "naomi", "bud", "jim")
CLIPS = 8
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
WORDS = list(corpora.WORDS)
QUEEN, PROMPTS, TEXTS = (
    "flight-of-the-amazon-queen",
    "asterisk-core-sounds-en-g722",
    "asterisk-core-sounds-en",
)
OTHER = "asterisk-core-sounds-fr-g722"
Said = list[tuple[str, str]]
"""Words as they are written, and the clips that say them; keywords are said by other words' clips."""


def said(voice: int, index: int) -> Said:
    """A sentence of three words, a keyword in the middle."""
    number = 7 * voice + 3 * index
    first, last = WORDS[number % len(WORDS)], WORDS[(number + 5) % len(WORDS)]
    keyword = KEYWORDS[(voice + index) % len(KEYWORDS)].upper()
    return [(first, first), (keyword, WORDS[number % 9]), (last, last)]


def written(words: Said) -> str:
    """The sentence as a script has it."""
    return " ".join(word for word, _ in words).capitalize() + "."


def sentence(words: Said, gain: float = 1.0) -> tuple[np.ndarray, str]:
    """Audio with pauses in it (T,), and where its words lie as ``alignments.tsv`` has it.

    Args:
        words: what is said.
        gain: sets apart who says it; clips that sound the same are used once.
    """
    audio, places = [np.zeros(3200, np.float32)], []
    for _, clip in words:
        start = sum(map(len, audio))
        audio += [corpora.word(clip), np.zeros(4800, np.float32)]
        places.append(f"{start // 160}:{len(audio[-2]) // 160}")
    return gain * np.concatenate(audio), " ".join(places)


def build(folder: Path) -> tuple[Path, Path]:
    """Write ``debs`` and ``tables`` below a folder; returns both."""
    debs, tables = folder / "debs", folder / "tables"
    debs.mkdir(parents=True)
    tables.mkdir()
    places: dict[str, str] = {}
    contents = {QUEEN: game(places), **prompts(places)}
    rows = ["package\tversion\tbytes\tsha256\tpool"]
    for name, files in contents.items():
        path = debs / f"{name}_1.0_all.deb"
        path.write_bytes(deb(files))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"{name}\t1.0\t{path.stat().st_size}\t{digest}\tpool/{path.name}")
    (tables / "packages.tsv").write_text("\n".join(rows) + "\n")
    table(tables / "alignments.tsv.gz", "name\twords", places)
    table(tables / "phones.tsv.gz", "name\tphones", {name: phone_places(at) for name, at in places.items()})
    phones = {
        word: " ".join(phone.rstrip("012") for phone in said.split()) for word, said in corpora.WORDS.items()
    }
    table(tables / "lexicon.tsv.gz", "word\tphones", {**phones, **{k.upper(): "W ER D" for k in KEYWORDS}})
    return debs, tables


def phone_places(words: str) -> str:
    """Phones at the places of words, one for each, and silence between them, as ``phones.tsv`` has it."""
    parts, end = [], 0
    for start, length in (map(int, word.split(":")) for word in words.split()):
        parts += [f"SIL:{end}:{start - end}", f"AH:{start}:{length}"]
        end = start + length
    return " ".join(parts)


def table(path: Path, head: str, rows: dict[str, str]) -> None:
    """A compressed table."""
    text = "".join(f"{name}\t{value}\n" for name, value in rows.items())
    path.write_bytes(gzip.compress(f"{head}\n{text}".encode(), mtime=0))


def prompts(places: dict[str, str]) -> dict[str, dict[str, bytes]]:
    """Asterisk's packages: English texts and recordings, and French ones without texts."""
    core, recordings = {"beep": "[a tone]", "unspoken": "Nobody says this."}, {}
    for index in range(6):
        words, name = said(index, 2 * index), f"prompt-{index}"
        audio, places[f"asterisk__sounds__en_US_f_Allison__{name}"] = sentence(words)
        core[name] = written(words)
        recordings[f"usr/share/asterisk/sounds/en_US_f_Allison/{name}.g722"] = g722(audio)
    listed = "; sounds\n" + "".join(f"{name}: {text}\n" for name, text in core.items())
    doc = f"usr/share/doc/{TEXTS}/core-sounds-en.txt.gz"
    french = {"usr/share/asterisk/sounds/fr_CA_f_June/un.g722": g722(corpora.word("ONE"))}
    return {
        PROMPTS: recordings,
        TEXTS: {doc: gzip.compress(listed.encode("utf-8-sig"), mtime=0)},
        OTHER: french,
    }


def game(places: dict[str, str]) -> dict[str, bytes]:
    """The game: dialogues with all voices, remarks of the hero, a cut scene and a noise."""
    entries: dict[str, bytes] = {}
    for number, voice in enumerate(VOICES):
        texts = []
        for index in range(CLIPS):
            words, name = said(number, index), f"{number + 10:02d}{index + 1:04X}P1"
            audio, places[name] = sentence(words, 0.5 + 0.04 * number + 0.003 * index)
            texts.append(written(words))
            entries[f"{name}.SB"] = mp3(audio)
        for piece, word in enumerate(("ZERO", "TWO"), start=1):
            audio, _ = sentence([(word, word), (WORDS[number], WORDS[number])], 0.3)
            entries[f"{number + 10:02d}0063J{piece}.SB"] = mp3(audio)
        answer = f"Zero {WORDS[number].lower()}*XY12345678901two."
        entries[f"{voice.upper()}1.DOG"] = dialogue(number + 10, texts, answer)
    remarks = []
    for index in range(CLIPS):
        words, name = said(17, index), f"JOE{41 + index:04d}1"
        audio, places[name] = sentence(words, 0.97)
        remarks.append(written(words))
        entries[f"{name}.SB"] = mp3(audio)
    entries["QUEEN2.JAS"] = "\r\n".join([*remarks, "Never recorded"]).encode()
    entries["C10A_011.SB"] = mp3(sentence([("MAY", "MAY")])[0])
    entries["C10A_021.SB"] = entries["JOE00411.SB"]
    entries["C10A.CUT"] = scene(["May.", "The same again."], [100, 0])
    entries["0001SSSS.SB"] = mp3(np.zeros(8000, np.float32))
    place = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
    return {place: archive(entries), "usr/games/queen": b"#!"}


def archive(entries: dict[str, bytes]) -> bytes:
    """The game's data file."""
    head, body = bytes(13) + struct.pack(">H", len(entries)), b""
    start = 15 + 21 * len(entries)
    for name, data in entries.items():
        head += struct.pack(">12sBII", name.encode(), 0, start + len(body), len(data))
        body += data
    return head + body


def dialogue(key: int, texts: list[str], answer: str) -> bytes:
    """A ``.DOG``: what the hero answers once, and what the other says."""
    hero_at = 32 + 96
    hero = record(0x63, answer)
    other = b"".join(record(number, text) for number, text in enumerate(texts, start=1))
    other_at = hero_at + len(hero)
    greeting_at = other_at + len(other)
    head = struct.pack(">5h", 1, 0, key, 1, len(texts)).ljust(22, b"\0")
    head += struct.pack(">HHH", other_at, 0, greeting_at)
    return bytes(20) + head.ljust(hero_at, b"\0") + hero + other + b"\0\0"


def record(number: int, text: str) -> bytes:
    """A text with its number, up to a multiple of four bytes from where the text begins."""
    data = struct.pack(">Hh", 1, number) + bytes([len(text)]) + text.encode()
    return data + bytes(-len(data) % 4)


def scene(texts: list[str], speakers: list[int]) -> bytes:
    """A ``.CUT``."""
    at = 12 + 36 * len(texts)
    data = struct.pack(">hhhhHH", 0, len(texts), 0, 0, at, 0)
    data += b"".join(struct.pack(">h", speaker).ljust(36, b"\0") for speaker in speakers) + b"\0"
    for text in texts:
        data += bytes([len(text)]) + text.encode()
        data += bytes(len(data) % 2)
    return bytes(20) + data


def mp3(audio: np.ndarray) -> bytes:
    """As the game has it."""
    file = io.BytesIO()
    positions = np.arange(0, len(audio), 16_000 / RATE)
    soundfile.write(file, np.interp(positions, np.arange(len(audio)), audio), RATE, format="MP3")
    return file.getvalue()


def g722(audio: np.ndarray) -> bytes:
    """As Asterisk has it: without a header."""
    coder = av.CodecContext.create("g722", "w")
    coder.sample_rate, coder.layout, coder.format = 16_000, "mono", "s16"
    samples = np.round(audio * 32767).astype(np.int16)[: len(audio) // 2 * 2]
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = 16_000, 0
    return b"".join(bytes(packet) for packet in [*coder.encode(frame), *coder.encode(None)])


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian package of these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    whole = b"!<arch>\n"
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"abc", "data.tar.xz": data.getvalue()}
    for name, content in members.items():
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        whole += b"\n" * (len(content) % 2)
    return whole


SMALL: dict[str, dict[str, object]] = {
    "build": {"SOURCES": tuple(source for source in SOURCES if source.package in (QUEEN, PROMPTS, OTHER))},
    "corpora.ic_corpus": {"COMMANDS": {"train": 3, "dev": 2, "test": 2}},
    "corpora.er_corpus": {"TIMES": 1, "SENTENCES": er_corpus.SENTENCES[:1]},
    "corpora.qbe_corpus": {"COMMON": 0.7, "DOCUMENTS": 12},
    "corpora.sd_corpus": {"COUNTS": {"train": 6, "dev": 2, "test": 2}},
    "corpora.se_ss_corpus": {
        "NOISY": {"train": 3, "dev": 3, "test": 3},
        "MIXED": {"train": 2, "dev": 2, "test": 2},
    },
    "corpora.sf_corpus": {"REQUESTS": {"train": 3, "dev": 2, "test": 2}},
}
"""Module of FreeSUPERB -> its constants for a slice of the benchmark."""


def shrink(put: Callable[[object, str, object], None] = setattr) -> None:
    """Have a slice built.

    Args:
        put: sets an attribute of a module.
    """
    for name, values in SMALL.items():
        for constant, value in values.items():
            put(importlib.import_module(f"s3prl_dphubert.free_superb.{name}"), constant, value)
