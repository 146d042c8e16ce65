"""Miniature corpora of real speech for SUPERB-SG and for other languages, as they are downloaded.

The noise is other people talking, the mixtures are of two voices, and voice conversion has one voice
for every target speaker. Texts that the embedded speech does not come with are arbitrary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from s3prl_dphubert.data.audio import SAMPLE_RATE
from tests.helpers.corpora import WORDS, clips, decoded, lines, long_clips, put, sentence

SECONDS = 2
TALKERS = "asterisk_en_allison", "asterisk_it_carlo", "asterisk_fr_june", "asterisk_es_allison"
BABBLE = TALKERS[1:]
VCC_RATE, CLIP_RATE = 24_000, 48_000
SENTENCES = {  # folder of a language -> speaker of the clips, and sentences that are not what is said
    "es": (
        "asterisk_es_allison",
        ("¡Buenos días!", "«Uno» y dos", "¿Qué hora es?", "Tres, cuatro", "箱 cinco"),
    ),
    "ar": ("asterisk_it_carlo", ("واحد اثنان", "ثلاثة.", "أربعة؟", "hello", "خمسة ستة")),
    "zh-CN": ("gcin_zh_5", ("一 二 三。", "四五", "六七", "八 X 九", "十、百")),
}
GERMAN = "null", "eins", "zwei", "drei", "„vier“", "fünf"


def cut(speaker: str, count: int) -> list[np.ndarray]:
    """The first clips of a speaker, each as long as the others (T,)."""
    return [audio[: SECONDS * SAMPLE_RATE] for audio in long_clips(speaker, SECONDS, count)]


def level(audio: np.ndarray, level: float) -> np.ndarray:
    """The same at a root mean square of ``level``."""
    return audio * (level / np.sqrt(np.mean(audio**2)))


def voicebank(root: Path, train: int = 4) -> Path:
    """VoiceBank-DEMAND at 16 kHz: clean speech and the same among three voices, 5 dB below it.

    Args:
        root: folder to write to.
        train: utterances of training; there are two of each of the two speakers of the development set,
            and two of the test set.
    """
    names = {
        "trainset_28spk": [f"p228_{n:03}" for n in range(train)]
        + [f"p{speaker}_{n:03}" for speaker in (226, 287) for n in range(2)],
        "testset": ["p232_001", "p257_002"],
    }
    speech = iter(cut(TALKERS[0], train + 6))
    others = [level(audio, 0.05 / len(BABBLE)) for speaker in BABBLE for audio in cut(speaker, 2)]
    noise = sum(others) * 10 ** (-5 / 20)
    for part, utterances in names.items():
        for name in utterances:
            clean = level(next(speech), 0.05)
            put(root / f"clean_{part}_wav_16k" / f"{name}.wav", clean)
            put(root / f"noisy_{part}_wav_16k" / f"{name}.wav", clean + noise)
    return root


def libri2mix(root: Path, train: int = 4) -> Path:
    """Libri2Mix, 16 kHz, cut to the shorter source: two voices at once and each alone."""
    firsts, seconds = cut(TALKERS[0], train + 4), cut(TALKERS[1], train + 4)
    pairs = iter(zip(firsts, seconds, strict=True))
    for part, count in {"train-100": train, "dev": 2, "test": 2}.items():
        for number in range(count):
            sources = [level(audio, 0.05) for audio in next(pairs)]
            for kind, audio in zip(("s1", "s2", "mix_clean"), (*sources, sum(sources)), strict=True):
                put(root / "wav16k" / "min" / part / kind / f"{part}-{number:04}.wav", audio)
    return root


def vcc2020(root: Path, train: int = 3, test: int = 1) -> Path:
    """The database of the Voice Conversion Challenge 2020, unpacked, for its first task.

    Args:
        root: folder to write to.
        train: utterances of each target speaker; one more is for development.
        test: utterances of each source speaker, and of the target speakers to compare with.
    """
    heard = {f"TE{kind}": voice for kind, voice in zip(("F1", "F2", "M1", "M2"), TALKERS, strict=True)}
    for speaker, voice in heard.items():
        first, second, *others = (
            soxr.resample(a, SAMPLE_RATE, VCC_RATE) for a in cut(voice, train + 1 + test)
        )
        said = {"E10061": first, "E10001": second}
        said |= {f"E2{number:04}": audio for number, audio in enumerate(others[: train - 1], start=1)}
        for name, audio in said.items():
            put(root / "target_task1" / speaker / f"{name}.wav", audio, VCC_RATE)
        for number, audio in enumerate(others[train - 1 :], start=1):
            name = f"E3{number:04}.wav"
            put(root / "vcc2020_database_groundtruth" / speaker / name, audio, VCC_RATE)
            source = speaker.replace("T", "S", 1)
            put(root / "vcc2020_database_evaluation" / source / name, audio[::-1].copy(), VCC_RATE)
    return root


def common_voice(root: Path) -> Path:
    """Tables of sentences with accents, and clips at 48 kHz, of the languages of OOD-ASR."""
    columns = "client_id,path,sentence,up_votes,down_votes,age,gender,accent,locale,segment"
    for language, (speaker, sentences) in SENTENCES.items():
        voices = iter([clip for _, clip in clips()[speaker]])
        for split, count in {"train": 5, "dev": 2, "test": 2}.items():
            rows = []
            for index in range(count):
                name = f"common_voice_{language}_{split}{index}.mp3"
                audio = soxr.resample(decoded(next(voices))[:SAMPLE_RATE], SAMPLE_RATE, CLIP_RATE)
                path = root / language / "clips" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, audio, CLIP_RATE, format="MP3")
                accent = "andino" if (split, index) == ("train", 1) else "mexicano"
                rows.append("\t".join(["me", name, sentences[index], "2", "0", "", "", accent, language, ""]))
            lines(root / language / f"{split}.tsv", columns.replace(",", "\t"), *rows)
    return root


def sbcsae(root: Path) -> Path:
    """Spontaneous English as SBCSAE-preprocess leaves it."""
    said = iter(WORDS)
    for split, count in {"train": 4, "dev": 2, "test": 2}.items():
        rows = []
        for index in range(count):
            text = f"{next(said)} {next(said)}"
            put(root / "wav" / f"{split}{index}.wav", sentence(text))
            rows.append(f"{split}{index}.wav\t{text}")
        lines(root / f"{split}.tsv", "path\tsentence", *rows)
    return root


def covost(root: Path) -> Path:
    """English clips of Common Voice 4 with German translations as CoVoST 2 lists them."""
    voices, clips_of = iter(clips()["asterisk_en_allison"]), root / "cv-corpus-4-2019-12-10" / "en"
    said, translated = [], []
    for split, count in {"train": 6, "dev": 2, "test": 2}.items():
        for index in range(count):
            text, source = next(voices)
            name = f"common_voice_en_{split}{index}.mp3"
            path = clips_of / "clips" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(
                path, soxr.resample(decoded(source), SAMPLE_RATE, CLIP_RATE), CLIP_RATE, format="MP3"
            )
            said.append(f"me\t{name}\t{text.capitalize()}, please.")
            translated.append(f"{name}\tBitte {GERMAN[index % len(GERMAN)]} .\t{split}")
    lines(clips_of / "validated.tsv", "client_id\tpath\tsentence", *said)
    lines(root / "covost_v2.en_de.tsv", "path\ttranslation\tsplit", *translated)
    return root
