"""Miniature corpora of real speech in the layout of each SUPERB task.

Every builder writes below a folder and returns the paths that a configuration names. The labels are
what the clips are where a task's labels allow it, and arbitrary but consistent elsewhere: the corpora
show that a task reads, trains and scores, not how well.
"""

from __future__ import annotations

import csv
import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from s3prl_dphubert.data.audio import SAMPLE_RATE, read
from s3prl_dphubert.utils import resources

SPEECH = resources.find("assets/speech")
WORDS = {  # of the clips of single English words: first pronunciations in ARPAbet
    "ZERO": "Z IY1 R OW0",
    "ONE": "W AH1 N",
    "TWO": "T UW1",
    "THREE": "TH R IY1",
    "FOUR": "F AO1 R",
    "FIVE": "F AY1 V",
    "SIX": "S IH1 K S",
    "SEVEN": "S EH1 V AH0 N",
    "EIGHT": "EY1 T",
    "NINE": "N AY1 N",
    "SUNDAY": "S AH1 N D EY2",
    "MONDAY": "M AH1 N D IY0",
    "TUESDAY": "T UW1 Z D IY0",
    "WEDNESDAY": "W EH1 N Z D IY0",
    "MARCH": "M AA1 R CH",
    "APRIL": "EY1 P R AH0 L",
    "MAY": "M EY1",
    "JUNE": "JH UW1 N",
}
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
PHONES = ["SIL", "SPN"]
PHONES += sorted([f"{v}{stress}" for v in VOWELS.split() for stress in "012"] + CONSONANTS.split())
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KEYWORDS = ("yes", "no", "up")


@cache
def clips() -> dict[str, list[tuple[str, Path]]]:
    """Speaker -> transcript and file of every embedded clip; not all of them have transcripts."""
    by_speaker: dict[str, list[tuple[str, Path]]] = {}
    with (SPEECH / "manifest.tsv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            by_speaker.setdefault(row["speaker"], []).append((row["transcript"], SPEECH / row["path"]))
    return by_speaker


decoded = cache(read)


def word(name: str) -> np.ndarray:
    """The clip of one English word (T,), 16 kHz."""
    english = {text.upper(): path for text, path in clips()["asterisk_en_allison"]}
    return decoded(english[name.upper()])


def sentence(words: str) -> np.ndarray:
    """Clips of English words one after the other (T,)."""
    return np.concatenate([word(name) for name in words.split()])


def long_clips(speaker: str, seconds: float, count: int) -> list[np.ndarray]:
    """The first clips of a speaker that last so long."""
    waveforms = []
    for _, path in clips()[speaker]:
        audio = decoded(path)
        if len(audio) >= seconds * SAMPLE_RATE:
            waveforms.append(audio)
        if len(waveforms) == count:
            return waveforms
    raise ValueError(f"{speaker} has {len(waveforms)} clips of {seconds} s, not {count}")


def put(path: Path, audio: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    """Write 16 bit PCM, in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype="PCM_16")
    return path


def lines(path: Path, *rows: str, end: str = "\n") -> Path:
    """Write lines of text; ``end`` follows the last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + end, encoding="utf-8")
    return path


def librispeech(root: Path) -> dict[str, Path]:
    """Two chapters a split of utterances of two words; the last transcripts end without a newline."""
    names = list(WORDS)
    for number, (split, count) in enumerate({"train-clean-100": 6, "dev-clean": 2, "test-clean": 2}.items()):
        sizes = []
        for speaker in (100 + 10 * number, 101 + 10 * number):
            folder, texts = root / split / str(speaker) / "7", []
            for index in range(count):
                words = (
                    f"{names[(speaker + index) % len(names)]} {names[(speaker + 3 * index + 1) % len(names)]}"
                )
                path = put(folder / f"{speaker}-7-{index:04}.flac", sentence(words))
                texts.append(f"{path.stem} {words}")
                sizes.append(f"{path.relative_to(root)},{soundfile.info(path).frames}")
            lines(folder / f"{speaker}-7.trans.txt", *texts, end="" if speaker % 2 else "\n")
        lines(root / "buckets" / f"{split}.csv", "file_path,length", *sizes)
    return {
        "root": root,
        "buckets": root / "buckets",
        "lexicon": lines(
            root / "lexicon.txt", *(f"{name} {phones}" for name, phones in WORDS.items()), end=""
        ),
        "phones": lines(root / "phones.txt", *PHONES),
        "letters": lines(root / "letters.txt", *(f"{letter} 1" for letter in f"|{LETTERS}'")),
    }


def speech_commands(root: Path, train: int = 4) -> dict[str, Path]:
    """Words said by speakers whose hashes put them into the training or the validation set.

    Args:
        root: folder to write to.
        train: training files of each of five words.
    """
    said = {**dict(zip(KEYWORDS, ("SUNDAY", "MONDAY", "MARCH"), strict=True)), "zero": "ZERO", "five": "FIVE"}
    for name, clip in said.items():
        for speaker in _speakers(20, 101, train) + _speakers(0, 10, 1):
            put(root / "train" / name / f"{speaker}_nohash_0.wav", word(clip))
        label = name if name in KEYWORDS else "_unknown_"
        put(root / "test" / label / f"{name}_nohash_1.wav", word(clip))
    hiss = np.random.default_rng(0).normal(0, 0.01, 2 * SAMPLE_RATE)
    put(root / "train" / "_background_noise_" / "hiss.wav", hiss)
    put(root / "test" / "_silence_" / "hiss.wav", hiss[:SAMPLE_RATE])
    return {"train": root / "train", "test": root / "test"}


def _speakers(low: float, high: float, count: int) -> list[str]:
    """Names whose SHA-1 falls between two percentages, as Speech Commands splits its speakers."""
    names, limit = [], 2**27 - 1
    for number in range(1000):
        name = f"{number:08x}"
        share = int(hashlib.sha1(name.encode()).hexdigest(), 16) % (limit + 1) * 100 / limit
        if low <= share < high:
            names.append(name)
        if len(names) == count:
            break
    return names


def voxceleb(root: Path, seconds: float = 1.5, dev: int = 4, test: int = 2) -> dict[str, Path]:
    """Six speakers with clips of at least so many seconds; lists for identification and verification."""
    speakers = [name for name in clips() if name not in ("gcin_zh_5", "pocketsphinx_librivox")][:6]
    listed, names = [], []
    for number, speaker in enumerate(speakers):
        for index, audio in enumerate(long_clips(speaker, seconds, dev + test)):
            part, label = ("test", 3) if index >= dev else ("dev", 1 if index else 2)
            name = f"id{10001 + number}/video/{index:05}.wav"
            put(root / part / "wav" / name, audio)
            listed.append(f"{label} {name}")
            if part == "test":
                names.append(name)
    same = [f"1 {names[i]} {names[i + 1]}" for i in range(0, len(names), test)]
    other = [f"0 {names[i]} {names[i - 1]}" for i in range(0, len(names), test)]
    return {
        "root": root,
        "identify": lines(root / "identify.txt", *listed, end=""),
        "verify": lines(root / "verify.txt", *same, *other),
    }


def diarization(root: Path) -> dict[str, Path]:
    """Kaldi folders of recordings in which two speakers overlap for a while."""
    pairs = ("asterisk_en_allison", "asterisk_it_carlo"), ("asterisk_fr_june", "asterisk_es_allison")
    for split, count in {"train": 4, "dev": 2, "test": 2}.items():
        tables: dict[str, list[str]] = {}
        for index in range(count):
            speakers = pairs[index % 2]
            name, parts = f"mix{index}", [long_clips(speaker, 3.0, count)[index] for speaker in speakers]
            starts = 0, len(parts[0]) - SAMPLE_RATE
            mixture = np.zeros(max(start + len(part) for start, part in zip(starts, parts, strict=True)))
            for speaker, start, part in zip(speakers, starts, parts, strict=True):
                mixture[start : start + len(part)] += 0.5 * part
                said, first, seconds = f"{name}-{speaker}", start / SAMPLE_RATE, len(part) / SAMPLE_RATE
                tables.setdefault("segments", []).append(f"{said} {name} {first:.2f} {first + seconds:.2f}")
                tables.setdefault("utt2spk", []).append(f"{said} {speaker}")
                tables.setdefault("spk2utt", []).append(f"{speaker} {said}")
                rttm = f"SPEAKER {name} 1 {first:.2f} {seconds:.2f} <NA> <NA> {speaker} <NA>"
                tables.setdefault("rttm", []).append(rttm)
            path = put(root / split / "wav" / f"{name}.wav", mixture)
            tables.setdefault("wav.scp", []).append(f"{name} {path}")
            tables.setdefault("reco2dur", []).append(f"{name} {len(mixture) / SAMPLE_RATE:.3f}")
        for table, rows in tables.items():
            lines(root / split / table, *rows)
    return {split: root / split for split in ("train", "dev", "test")}


def iemocap(root: Path) -> dict[str, Path]:
    """Two sessions; the first is the test set of fold 1."""
    emotions = ("neu", "hap", "ang", "sad")
    said: dict[str, list[dict[str, str]]] = {}
    for session, speaker in {"Session1": "asterisk_it_carlo", "Session2": "asterisk_fr_june"}.items():
        for index, audio in enumerate(long_clips(speaker, 0.8, 10)):
            place = f"{session}/sentences/wav/dialog/utterance{index}.wav"
            put(root / place, audio)
            row = {"path": place, "label": emotions[index % 4], "speaker": speaker}
            said.setdefault(session, []).append(row)
    labels = {name: index for index, name in enumerate(emotions)}
    for split, session in {"train": "Session2", "test": "Session1"}.items():
        text = json.dumps({"labels": labels, "meta_data": said[session]})
        lines(root / "meta_data" / "Session1" / f"{split}_meta_data.json", text)
    return {"root": root, "meta_data": root / "meta_data"}


def fluent_commands(root: Path) -> Path:
    """Tables of commands; what is asked for in the evaluations is asked for in training, too."""
    intents = {
        "ONE": "activate,lights,kitchen",
        "TWO": "activate,music,none",
        "MAY": "deactivate,lights,none",
        "JUNE": "increase,volume,kitchen",
    }
    for split, times in {"train": 2, "valid": 1, "test": 1}.items():
        rows = []
        for number in range(times):
            for name, intent in intents.items():
                path = put(root / "wavs" / "speakers" / split / f"{name}{number}.wav", word(name))
                rows.append(f"{len(rows)},{path.relative_to(root)},{split},{name.lower()},{intent}")
        header = ",path,speakerId,transcription,action,object,location"
        lines(root / "data" / f"{split}_data.csv", header, *rows)
    return root


def snips(root: Path) -> dict[str, Path]:
    """Utterances with slots by one speaker a split; the table of slots ends without a newline."""
    spoken = (("MONDAY", "day"), ("FIVE", "number"), ("JUNE", "month"), ("MAY", "month"))
    rows = []
    for split, speaker, count in (("train", "Ivy", 6), ("valid", "Amy", 2), ("test", "Brian", 2)):
        for index in range(count):
            (value, slot), number = spoken[index % 4], list(WORDS)[index]
            name = f"{speaker}-snips-{split}-{index}"
            put(root / split / f"{name}.wav", sentence(f"{number} {value}"))
            rows.append(f"{name} BOS {number} {value} EOS\tO O {slot} Ask")
    return {
        "root": root,
        "texts": lines(root / "all.iob.snips.txt", *rows, end=""),
        "slots": lines(root / "slots.txt", "O", "day", "number", "month", end=""),
        "letters": lines(root / "letters.txt", " ", *LETTERS),
    }


def quesst(root: Path) -> Path:
    """Four documents of spoken words and two queries for words in them, and a foreign one of each."""
    names = list(WORDS)
    for index in range(4):
        put(root / "Audio" / f"doc_{index}.wav", sentence(" ".join(names[4 * index : 4 * index + 4])))
    for split in ("dev", "eval"):
        queries = names[2], names[9]
        for index, name in enumerate(queries):
            put(root / f"{split}_queries" / f"{split}_{index}.wav", word(name))
        rows = [f"quesst/{split}_queries/{split}_{index}.wav nnenglish" for index in range(len(queries))]
        foreign = f"quesst/{split}_queries/absent.wav czech"
        lines(root / "scoring" / f"language_key_{split}.lst", *rows, foreign)
    documents = [f"quesst/Audio/doc_{index}.wav nnenglish" for index in range(4)]
    lines(root / "scoring" / "language_key_utterances.lst", *documents, "quesst/Audio/absent.wav czech")
    return root
