"""VoiceBank-DEMAND: noisy speech and the same without the noise, as lists in Kaldi's layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import write_text
from .audio16k import convert
from .paths import folder
from .step import Config, Step

SOURCE = "https://doi.org/10.7488/ds/2117 (noisy and clean, testset and trainset_28spk)"
CORPUS = "VoiceBank-DEMAND"  # below the folder of data
KINDS = ("noisy", "clean")
SETS = {"train": "trainset_28spk", "dev": "trainset_28spk", "test": "testset"}
PARTS = tuple(sorted(set(SETS.values())))
HELD_OUT = ("p226", "p287")  # speakers of the training set that SUPERB-SG develops on
MADE = "voicebank"

Names = dict[str, Path]
"""Utterance -> its file of 16 kHz."""


def lists(data: Path, out: Path, config: Config) -> None:
    """Write ``voicebank/{train,dev,test}/{noisy,clean}/wav.scp``.

    Audio of 16 kHz, in folders ``…_wav_16k``, stays where it is; the published audio of 48 kHz, in
    folders ``…_wav``, is brought to 16 kHz beside the lists.
    """
    files = {
        (kind, part): _files(data, out, kind, part) for part in sorted(set(SETS.values())) for kind in KINDS
    }
    for split, part in SETS.items():
        noisy, clean = (files[kind, part] for kind in KINDS)
        if odd := sorted(noisy.keys() ^ clean.keys()):
            raise DataError(
                f"{data / CORPUS}: {part} has {odd[0]} noisy or clean only, allowed: both of each utterance"
            )
        chosen = [name for name in sorted(noisy) if _split(name, part) == split]
        if not chosen:
            raise DataError(f"{data / CORPUS}: holds no utterance of {split}; get it from {SOURCE}")
        for kind in KINDS:
            place = out / MADE / split / kind
            place.mkdir(parents=True)
            rows = [f"{name} {files[kind, part][name]}\n" for name in chosen]
            write_text(place / "wav.scp", "".join(rows))


def _split(name: str, part: str) -> str:
    if part == SETS["test"]:
        return "test"
    return "dev" if name.startswith(HELD_OUT) else "train"


def _files(data: Path, out: Path, kind: str, part: str) -> Names:
    """The files of one folder of the corpus, converted if need be."""
    place = data / CORPUS / f"{kind}_{part}_wav"
    ready = place.with_name(f"{place.name}_16k")
    if ready.is_dir():
        return {path.stem: path.resolve() for path in ready.glob("*.wav")}
    found = list(folder(place, f"{part} of VoiceBank-DEMAND", SOURCE).glob("*.wav"))
    below = Path(MADE, "wav16k", f"{kind}_{part}")
    convert(((path, out / below / path.name) for path in sorted(found)), f"{kind} {part}")
    final = out.parent.resolve() / below  # where this folder goes once it is whole
    return {path.stem: final / path.name for path in found}


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    for part in PARTS:
        for kind in KINDS:
            yield from (data / CORPUS / f"{kind}_{part}_wav{rate}" for rate in ("", "_16k"))


LISTS = Step("voicebank_lists", lists, _inputs)
