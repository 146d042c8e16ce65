"""VoiceBank-DEMAND: noisy speech and the same speech without noise, as lists in Kaldi's layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import visible_files, write_text
from .corpus_files import convert_audio, require_folder
from .step import Config, PreparationStep

SOURCE = "https://doi.org/10.7488/ds/2117 (noisy and clean, testset and trainset_28spk)"
CORPUS = "VoiceBank-DEMAND"  # below the folder of data
KINDS = ("noisy", "clean")
SETS = {"train": "trainset_28spk", "dev": "trainset_28spk", "test": "testset"}
PARTS = tuple(sorted(set(SETS.values())))
HELD_OUT = ("p226", "p287")  # speakers of the training set, SUPERB-SG's development set
MADE = "voicebank"


def lists(data: Path, out: Path, config: Config) -> None:
    """Write ``voicebank/{train,dev,test}/{noisy,clean}/wav.scp``.

    Audio of 16 kHz, in folders ``…_wav_16k``, stays where it is; the published audio of 48 kHz, in
    folders ``…_wav``, is brought to 16 kHz beside the lists.
    """
    files = {(kind, part): _files(data, out, kind, part) for part in PARTS for kind in KINDS}
    for split, part in SETS.items():
        noisy, clean = (files[kind, part] for kind in KINDS)
        if odd := sorted(noisy.keys() ^ clean.keys()):
            raise DataError(
                f"{data / CORPUS}: {part} has {odd[0]} noisy or clean only, allowed: both of each utterance"
            )
        names = [name for name in sorted(noisy) if _split(name, part) == split]
        if not names:
            raise DataError(f"{data / CORPUS}: holds no utterance of {split}; get it from {SOURCE}")
        for kind in KINDS:
            target = out / MADE / split / kind
            target.mkdir(parents=True)
            rows = [f"{name} {files[kind, part][name]}\n" for name in names]
            write_text(target / "wav.scp", "".join(rows))


def _split(name: str, part: str) -> str:
    if part == SETS["test"]:
        return "test"
    return "dev" if name.startswith(HELD_OUT) else "train"


def _files(data: Path, out: Path, kind: str, part: str) -> dict[str, Path]:
    """Return utterance -> file at 16 kHz of one folder of the corpus, converted if need be."""
    original = data / CORPUS / f"{kind}_{part}_wav"
    resampled = original.with_name(f"{original.name}_16k")
    if resampled.is_dir():
        return {path.stem: path.absolute() for path in visible_files(resampled, "*.wav")}
    folder = require_folder(original, f"{part} of VoiceBank-DEMAND", SOURCE)
    files = visible_files(folder, "*.wav")
    below = Path(MADE, "wav16k", f"{kind}_{part}")
    convert_audio(((path, out / below / path.name) for path in files), f"{kind} {part}")
    final = out.parent.absolute() / below  # the step moves the folder there when it is complete
    return {path.stem: final / path.name for path in files}


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    for part in PARTS:
        for kind in KINDS:
            yield from (data / CORPUS / f"{kind}_{part}_wav{rate}" for rate in ("", "_16k"))


LISTS = PreparationStep("voicebank_lists", lists, _inputs)
