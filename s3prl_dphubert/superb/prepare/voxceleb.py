"""VoxCeleb1: the split of each speaker's utterances for SID, and the trials of ASV."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ...errors import DataError
from ...utils.files import visible_files
from .corpus_files import config_value, read_lines, require_files, require_folder
from .fetch import PublicFile
from .librispeech import S3PRL
from .step import Config, PreparationStep

SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
SPLIT = PublicFile(
    "veri_test_class.txt",
    (
        f"{S3PRL}/s3prl/downstream/voxceleb1/veri_test_class.txt",
        "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt",
    ),
    "git:bff103cfe2b4e0ec42b2ed658ead99cea5e6cf51",
    places=("VoxCeleb1/veri_test_class.txt", "VoxCeleb1/iden_split.txt"),
)
PAIRS = PublicFile(
    "voxceleb1_test_v2.txt",
    (
        f"{S3PRL}/s3prl/downstream/sv_voxceleb1/voxceleb1_test_v2.txt",
        "https://www.openslr.org/resources/49/voxceleb1_test_v2.txt",
    ),
    "sha256:303b2b657042a27bf465d4c8aa84e12765373cdc01046665241ccd5783bd5976",
    2338640,
    ("VoxCeleb1/voxceleb1_test_v2.txt",),
)
_UTTERANCE = r"(id\d{5})/[^/\s]+/[^/\s]+\.wav"


def speakers(data: Path, out: Path, config: Config) -> None:
    """Copy ``veri_test_class.txt``, whose speakers must all have a folder in ``dev`` or ``test``."""
    root, listed = _root(config), SPLIT.obtain(data)
    parts = [root / part / "wav" for part in ("dev", "test")]
    folders = {entry.name for part in parts for entry in visible_files(part, "*")}
    lines = read_lines(listed, "a split", SOURCE)
    names = {_match(listed, line, rf"[123] {_UTTERANCE}")[1] for line in lines}
    if missing := sorted(names - folders):
        raise DataError(
            f"{root}: {len(missing)} of {len(names)} speakers of {listed} have no folder below dev/wav or "
            f"test/wav, the first: {missing[0]}; unpack both parts from {SOURCE}"
        )
    shutil.copyfile(listed, out / SPLIT.name)


def trials(data: Path, out: Path, config: Config) -> None:
    """Copy ``voxceleb1_test_v2.txt``, whose utterances must all be in ``test``."""
    root, listed, names = _root(config), PAIRS.obtain(data), set()
    for line in read_lines(listed, "trials of speaker verification", SOURCE):
        _match(listed, line, rf"[01] {_UTTERANCE} {_UTTERANCE}")
        names.update(line.split()[1:])
    paths = (root / "test" / "wav" / name for name in sorted(names))
    require_files(paths, "it is part of a trial, and of the test part of VoxCeleb1", SOURCE)
    shutil.copyfile(listed, out / PAIRS.name)


def _root(config: Config) -> Path:
    root = Path(config_value(config, "datarc", "file_path"))
    for part in ("dev", "test"):
        require_folder(root / part / "wav", f"the {part} part of VoxCeleb1", SOURCE)
    return root


def _match(path: Path, line: str, pattern: str) -> re.Match[str]:
    match = re.fullmatch(pattern, line.strip())
    if match is None:
        raise DataError(f"{path}: {line[:80]!r} is no line of such a list, allowed: {pattern}")
    return match


def _inputs(listed: PublicFile, data: Path, config: Config) -> list[Path | str]:
    root = Path(config_value(config, "datarc", "file_path"))
    return [*(root / part / "wav" for part in ("dev", "test")), *listed.inputs(data)]


SPEAKERS = PreparationStep(
    "voxceleb_speakers", speakers, lambda data, config: _inputs(SPLIT, data, config), quick=True
)
TRIALS = PreparationStep(
    "voxceleb_trials", trials, lambda data, config: _inputs(PAIRS, data, config), quick=True
)
