"""VoxCeleb1: which utterances of a speaker SID trains on, and the trials of ASV."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ...errors import DataError
from .fetch import Listed
from .librispeech import S3PRL
from .paths import folder, present, text, value
from .step import Config, Step

SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
SPLIT = Listed(
    "veri_test_class.txt",
    (
        f"{S3PRL}/s3prl/downstream/voxceleb1/veri_test_class.txt",
        "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt",
    ),
    "git:bff103cfe2b4e0ec42b2ed658ead99cea5e6cf51",
    places=("VoxCeleb1/veri_test_class.txt", "VoxCeleb1/iden_split.txt"),
)
PAIRS = Listed(
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
    """Put ``veri_test_class.txt`` there, whose speakers must all have a folder in ``dev`` or ``test``."""
    root, listed = _root(config), SPLIT.obtain(data)
    known = {entry.name for part in ("dev", "test") for entry in (root / part / "wav").iterdir()}
    wanted = {_matched(listed, line, rf"[123] {_UTTERANCE}")[1] for line in text(listed, "a split", SOURCE)}
    if missing := sorted(wanted - known):
        raise DataError(
            f"{root}: {len(missing)} of {len(wanted)} speakers of {listed} have no folder below dev/wav or "
            f"test/wav, the first: {missing[0]}; unpack both parts from {SOURCE}"
        )
    shutil.copyfile(listed, out / SPLIT.name)


def trials(data: Path, out: Path, config: Config) -> None:
    """Put ``voxceleb1_test_v2.txt`` there, whose utterances must all be in ``test``."""
    root, listed, names = _root(config), PAIRS.obtain(data), set()
    for line in text(listed, "trials of speaker verification", SOURCE):
        _matched(listed, line, rf"[01] {_UTTERANCE} {_UTTERANCE}")
        names.update(line.split()[1:])
    paths = (root / "test" / "wav" / name for name in sorted(names))
    present(paths, "it is part of a trial, and of the test part of VoxCeleb1", SOURCE)
    shutil.copyfile(listed, out / PAIRS.name)


def _root(config: Config) -> Path:
    root = Path(value(config, "datarc", "file_path"))
    for part in ("dev", "test"):
        folder(root / part / "wav", f"the {part} part of VoxCeleb1", SOURCE)
    return root


def _matched(path: Path, line: str, pattern: str) -> re.Match[str]:
    found = re.fullmatch(pattern, line.strip())
    if found is None:
        raise DataError(f"{path}: {line[:80]!r} is no line of such a list, allowed: {pattern}")
    return found


def _inputs(listed: Listed, data: Path, config: Config) -> list[Path | str]:
    root = Path(value(config, "datarc", "file_path"))
    return [*(root / part / "wav" for part in ("dev", "test")), *listed.inputs(data)]


SPEAKERS = Step("voxceleb_speakers", speakers, lambda data, config: _inputs(SPLIT, data, config))
TRIALS = Step("voxceleb_trials", trials, lambda data, config: _inputs(PAIRS, data, config))
