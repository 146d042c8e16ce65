"""A folder of all ten corpora, each in its publisher's layout, where the shipped recipes look for it.

What cannot be fetched in a test (lists, lexica, turns) lies where a user without a network puts it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from s3prl_dphubert.data.audio import SAMPLE_RATE
from tests.helpers import corpora
from tests.helpers.corpora import lines as write
from tests.helpers.corpora import long_clips, put, sentence

EMOTIONS = ("neu", "exc", "ang", "sad", "hap", "fru")  # the last does not count
VOICES = {
    "train": "Ivy Joanna Joey Justin Kendra Kimberly Matthew Salli",
    "valid": "Aditi Amy Geraint Nicole",
    "test": "Brian Emma Raveena Russell",
}
PAIRS = ("asterisk_en_allison", "asterisk_it_carlo"), ("asterisk_fr_june", "asterisk_es_allison")

MIXTURES = ("train-100", "train_clean_100", 8), ("dev", "dev_clean", 2), ("test", "test_clean", 2)


def librispeech(data: Path) -> None:
    """The splits that SUPERB uses, and both lexica; no table of lengths."""
    paths = corpora.librispeech(data / "LibriSpeech")
    shutil.rmtree(paths["buckets"])
    words = paths["lexicon"].read_text().splitlines()
    for name, part in (("200k", words[::2]), ("allothers", words[1::2])):
        write(data / "lexicon" / f"librispeech-lexicon-{name}-g2p.txt", *part)
    for name in ("lexicon", "phones", "letters"):
        paths[name].unlink()


def speech_commands(data: Path) -> None:
    """Training and test set."""
    paths = corpora.speech_commands(data / "new", train=7)
    paths["train"].rename(data / "speech_commands_v0.01")
    paths["test"].rename(data / "speech_commands_test_set_v0.01")
    (data / "new").rmdir()


def quesst(data: Path) -> None:
    """Audio and lists of languages; without the truth."""
    corpora.quesst(data / "quesst14Database")


def voxceleb(data: Path) -> None:
    """Six speakers, split and trials."""
    paths = corpora.voxceleb(data / "VoxCeleb1", seconds=2.5)
    paths["identify"].rename(data / "VoxCeleb1" / "iden_split.txt")
    paths["verify"].rename(data / "VoxCeleb1" / "voxceleb1_test_v2.txt")


def libri2mix(data: Path) -> None:
    """Mixtures in which both begin at once, and one ends before the other; turns of the sources."""
    root, turns = data / "Libri2Mix" / "wav16k" / "max", data / "LibriMix" / "metadata" / "LibriSpeech"
    for split, rttm, count in MIXTURES:
        rows, said = ["mixture_ID,mixture_path,source_1_path,source_2_path,noise_path,length"], []
        for index in range(count):
            pair = PAIRS[index % 2]
            parts = [long_clips(name, 3.0, count)[index] for name in pair]
            ids = [f"{100 + PAIRS.index(pair) * 2 + n}-7{n}-{index:04}" for n in (0, 1)]
            mixture = np.zeros(max(map(len, parts)))
            for part in parts:
                mixture[: len(part)] += 0.4 * part
            put(root / split / "mix_both" / f"{'_'.join(ids)}.wav", mixture)
            rows.append(f"{'_'.join(ids)},/elsewhere/{'_'.join(ids)}.wav,1,2,3,{len(mixture)}")
            for name, part in zip(ids, parts, strict=True):
                speaker, _, utterance = name.partition("-")
                seconds = len(part) / SAMPLE_RATE - 0.3
                turn = f"{0.15:8.3f} {seconds:7.3f} <NA> <NA> {speaker} <NA> <NA>"
                said.append(f"SPEAKER {utterance} 1 {turn}")
        write(root / "metadata" / f"mixture_{split}_mix_both.csv", *rows)
        write(turns / f"{rttm}.rttm", *said)


def iemocap(data: Path) -> None:
    """Five sessions of two dialogues, improvised and scripted, with the files that macOS leaves."""
    root = data / "IEMOCAP_full_release"
    for number in range(1, 6):
        clips = iter(long_clips(PAIRS[number % 2][0], 0.8, 2 * len(EMOTIONS)))
        for dialog in (f"Ses0{number}F_impro01", f"Ses0{number}M_script01_1"):
            session, rows = root / f"Session{number}", ["% [START - END] TURN EMOTION [V, A, D]", ""]
            for index, emotion in enumerate(EMOTIONS):
                name = f"{dialog}_F{index:03}"
                put(session / "sentences" / "wav" / dialog / f"{name}.wav", next(clips))
                rows += [
                    f"[{index}.0 - {index}.9]\t{name}\t{emotion}\t[2.5, 2.5, 2.5]",
                    "C-E2:\tNeutral;\t()",
                ]
            rows.append(f"[9.0 - 9.9]\t{dialog}_M999\tneu\t[2.5, 2.5, 2.5]")  # has no audio
            write(session / "dialog" / "EmoEvaluation" / f"{dialog}.txt", *rows)
            (session / "dialog" / "EmoEvaluation" / f"._{dialog}.txt").write_bytes(b"\0\x05\x16\x07\xff")


def fluent_commands(data: Path) -> None:
    """Tables and audio."""
    corpora.fluent_commands(data / "fluent_speech_commands_dataset")


def snips(data: Path) -> None:
    """Each voice says two sentences."""
    spoken, rows = (("MONDAY", "day"), ("FIVE", "number"), ("JUNE", "month")), []
    for split, voices in VOICES.items():
        for count, voice in enumerate(voices.split()):
            for index in range(2):
                value, slot = spoken[(count + index) % 3]
                name = f"{voice}-snips-{split}-{index}"
                put(data / "SNIPS" / split / f"{name}.wav", sentence(f"THREE {value}"))
                rows.append(f"{name} BOS THREE {value} EOS\tO O {slot} Ask")
    write(data / "SNIPS" / "all.iob.snips.txt", *rows)


CORPORA: dict[str, Callable[[Path], None]] = {
    "pr": librispeech,
    "asr": librispeech,
    "ks": speech_commands,
    "qbe": quesst,
    "sid": voxceleb,
    "asv": voxceleb,
    "sd": libri2mix,
    "er": iemocap,
    "ic": fluent_commands,
    "sf": snips,
}
"""Task -> what writes its corpus below the folder of data."""


def build(data: Path) -> Path:
    """Write all corpora; returns the folder."""
    for make in dict.fromkeys(CORPORA.values()):
        make(data)
    return data
