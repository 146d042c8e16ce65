"""LibriSpeech: lengths of its utterances for ASR, pronunciations of its words for PR."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ...data.audio import probe
from ...errors import DataError
from ...utils.files import visible_files, write_text
from .corpus_files import config_value, require_folder
from .fetch import PublicFile
from .step import Config, PreparationStep

SOURCE = "https://www.openslr.org/12"
SPLITS = ("train", "dev-clean", "dev-other", "test-clean", "test-other")  # keys of the ASR task
UNUSED = ("dev-other", "test-other")  # by SUPERB
S3PRL = "https://raw.githubusercontent.com/s3prl/s3prl/ec8064b5889f81ca460fbe2c094ce576a6f120b7"
_CHUNK = 64  # files measured before the progress bar moves


def _pronunciations(part: str, checksum: str, size: int | None = None) -> PublicFile:
    name = f"librispeech-lexicon-{part}-g2p.txt"
    return PublicFile(
        name,
        (
            f"{S3PRL}/s3prl/downstream/ctc/lexicon/{name}",
            f"https://huggingface.co/datasets/s3prl/g2p/raw/main/lexicon/{name}",
        ),
        checksum,
        size,
        (f"lexicon/{name}", f"LibriSpeech/{name}", name),
    )


LEXICA = (
    _pronunciations("200k", "git:a9143b4f90bde7f71221b7e546f780f3b655c8f7"),
    _pronunciations(
        "allothers", "sha256:5473abdf594196db8f3a7cd26792350f7c32ef04fef2da4630e1bc7245ff4c0f", 436856
    ),
)


def splits(config: Config) -> list[Path]:
    """Return the folders of an ASR configuration's splits; those that SUPERB does not use may be missing."""
    root, folders = Path(config_value(config, "datarc", "libri_root")), []
    for key in SPLITS:
        names = config["downstream_expert"]["datarc"].get(key) or ()
        folders += [root / name for name in names if key not in UNUSED or (root / name).is_dir()]
    return list(dict.fromkeys(folders))


def lengths(data: Path, out: Path, config: Config) -> None:
    """Write ``lengths/SPLIT.csv``: paths below the root and samples, the longest first."""
    (out / "lengths").mkdir()
    for split in splits(config):
        require_folder(split, "a split of LibriSpeech", SOURCE)
        files = visible_files(split, "*/*/*.flac") or visible_files(split, "*/*/*.wav")
        if not files:
            raise DataError(f"{split}: holds no SPEAKER/CHAPTER/*.flac; unpack LibriSpeech from {SOURCE}")
        for chapter in sorted({file.parent for file in files}):
            transcripts = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
            if not transcripts.is_file():
                raise DataError(
                    f"{transcripts}: no such file; it holds transcripts of LibriSpeech, from {SOURCE}"
                )
        rows = sorted(zip(files, _measure(files, split.name), strict=True), key=lambda row: (-row[1], row[0]))
        table = "".join(f"{file.relative_to(split.parent)},{samples}\n" for file, samples in rows)
        write_text(out / "lengths" / f"{split.name}.csv", f"file_path,length\n{table}")


def _measure(files: list[Path], title: str) -> Iterator[int]:
    """Yield the samples of each file by its header, read in threads, since the disk is the limit."""
    with (
        ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool,
        tqdm(desc=f"lengths of {title}", total=len(files), unit="file", mininterval=0.5) as bar,
    ):
        chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
        for samples in pool.map(_lengths, chunks):
            yield from samples
            bar.update(len(samples))


def _lengths(files: list[Path]) -> list[int]:
    return [probe(file).samples for file in files]


def lexicon(data: Path, out: Path, config: Config) -> None:
    """Copy the pronunciations of LibriSpeech's words into ``lexicon/``."""
    (out / "lexicon").mkdir()
    for listed in LEXICA:
        shutil.copyfile(listed.obtain(data), out / "lexicon" / listed.name)


LENGTHS = PreparationStep("librispeech_lengths", lengths, lambda data, config: splits(config))
LEXICON = PreparationStep(
    "librispeech_lexicon",
    lexicon,
    lambda data, config: [each for listed in LEXICA for each in listed.inputs(data)],
)
