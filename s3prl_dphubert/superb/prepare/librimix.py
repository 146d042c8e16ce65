"""Libri2Mix: the turns of the speakers in its mixtures, as folders in Kaldi's layout.

The turns are those of the single utterances (RTTMs that come with SUPERB's fork of LibriMix, made by
forced alignment), which a mixture of mode ``max`` starts together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ...constants import SAMPLE_RATE
from ...errors import DataError
from ...utils.files import write_text
from ...utils.readers import read_table
from .corpus_files import read_lines, require_folder
from .fetch import PublicFile
from .step import Config, PreparationStep

SOURCE = "https://github.com/s3prl/LibriMix (generate_librimix_sd.sh)"
AUDIO = "Libri2Mix/wav16k/max"  # below the folder of data
KIND = "mix_both"
_TURNS = (
    "https://raw.githubusercontent.com/s3prl/LibriMix/d569d35c6b1dd3c8d02a897a9ce1b88e82da90f9"
    "/metadata/LibriSpeech/"
)


def _turns(name: str, size: int, sha256: str) -> PublicFile:
    places = tuple(f"{place}/{name}" for place in ("LibriMix/metadata/LibriSpeech", "Libri2Mix"))
    return PublicFile(name, (_TURNS + name,), f"sha256:{sha256}", size, places)


SPLITS = {  # folder of s3prl -> folder of Libri2Mix, turns of its utterances
    "train": (
        "train-100",
        _turns(
            "train_clean_100.rttm",
            3908471,
            "956dbf5582cd385dbcb84401427cfeb337527da631ca1e95a44aed75a652dcb0",
        ),
    ),
    "dev": (
        "dev",
        _turns("dev_clean.rttm", 207028, "3aa1cb3b9bb9472c855d3cef578da856baa300cf634cdd7c03506dfaa18988dc"),
    ),
    "test": (
        "test",
        _turns("test_clean.rttm", 206072, "9686f7387e7474dc3bcf5f80fa15abc5f973d0ddbd32b9bf549fdafe31214036"),
    ),
}
Turns = dict[str, list[tuple[str, float, float]]]
"""CHAPTER-UTTERANCE -> speaker, start and end of each turn in seconds."""


@dataclass
class KaldiTables:
    """Rows of the files of one folder.

    Args:
        rows: file name -> rows.
        turns: speaker -> names of turns.
    """

    rows: dict[str, list[str]] = field(default_factory=dict)
    turns: dict[str, list[str]] = field(default_factory=dict)

    def add(self, table: str, *words: object) -> None:
        """Add a row."""
        self.rows.setdefault(table, []).append(" ".join(map(str, words)))

    def turn(self, mixture: str, speaker: str, start: float, end: float) -> None:
        """Add a turn of a speaker in a mixture.

        The name of a turn includes the speaker: two speakers of a mixture may start and end at the same
        hundredth of a second, and s3prl would take both turns for one speaker's.
        """
        name = f"{speaker}-{mixture}-{round(1000 * start):06}-{round(1000 * end):06}"
        self.add("segments", name, mixture, start, end)
        self.add("utt2spk", name, speaker)
        self.add("rttm", f"SPEAKER {mixture} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>")
        self.turns.setdefault(speaker, []).append(name)

    def write(self, folder: Path) -> None:
        """Write all files of the folder."""
        folder.mkdir()
        for speaker, names in sorted(self.turns.items()):
            self.add("spk2utt", speaker, *names)
        for table, rows in self.rows.items():
            write_text(folder / table, "".join(f"{row}\n" for row in rows))


def kaldi(data: Path, out: Path, config: Config) -> None:
    """Write ``train``, ``dev`` and ``test``: wav.scp, segments, utt2spk, spk2utt, reco2dur and rttm."""
    root = require_folder(data / AUDIO, "Libri2Mix at 16 kHz in mode max", SOURCE)
    for name, (split, listed) in tqdm(SPLITS.items(), desc="Libri2Mix", unit="split"):
        turns = read_turns(listed.obtain(data))
        tables = KaldiTables()
        for mixture, samples in _mixtures(root, split):
            audio = root / split / KIND / f"{mixture}.wav"
            if not audio.is_file():
                raise DataError(f"{audio}: no such file; it is a mixture of Libri2Mix, from {SOURCE}")
            tables.add("wav.scp", mixture, audio.absolute())
            tables.add("reco2dur", mixture, samples / SAMPLE_RATE)
            for source in mixture.split("_"):
                speaker, _, utterance = source.partition("-")
                if utterance not in turns:
                    raise DataError(f"{listed.name}: has no turns of {source}, a source of {mixture}")
                for who, start, end in turns[utterance]:
                    if who != speaker:
                        raise DataError(
                            f"{listed.name}: {utterance} is said by {who}, in {mixture} by {speaker}"
                        )
                    tables.turn(mixture, speaker, start, end)
        tables.write(out / name)


def _mixtures(root: Path, split: str) -> Iterable[tuple[str, int]]:
    """Yield name and samples of the mixtures of a split, as LibriMix lists them."""
    table = root / "metadata" / f"mixture_{split}_{KIND}.csv"
    if not table.exists():
        raise DataError(f"{table}: no such file; it holds a list of Libri2Mix's mixtures, from {SOURCE}")
    for row in read_table(table, ("mixture_ID", "length"), separator=",", quoted=True):
        try:
            yield row["mixture_ID"], int(row["length"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{table}: has no mixture_ID and length in {dict(row)}") from error


def read_turns(path: Path) -> Turns:
    """Read the RTTM of single utterances.

    Raises:
        DataError: a line is none of an RTTM.
    """
    turns: Turns = {}
    for line in read_lines(path, "turns of LibriSpeech's utterances", SOURCE):
        words = line.split()
        try:
            start, seconds, speaker = float(words[3]), float(words[4]), words[7]
        except (IndexError, ValueError) as error:
            raise DataError(f"{path}: {line[:80]!r} is no line of an RTTM") from error
        turns.setdefault(words[1], []).append((speaker, start, start + seconds))
    return turns


def _inputs(data: Path, config: Config) -> Iterable[Path | str]:
    yield data / AUDIO
    for split, listed in SPLITS.values():
        yield data / AUDIO / "metadata" / f"mixture_{split}_{KIND}.csv"
        yield from listed.inputs(data)


KALDI = PreparationStep("libri2mix", kaldi, _inputs, quick=True)
