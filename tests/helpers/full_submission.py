"""A submission of the size of SUPERB's test sets, with names and values as in the published corpora."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from s3prl_dphubert.superb.prepare.iemocap import dialogs
from s3prl_dphubert.superb.tasks.er import FOLD_SIZES
from s3prl_dphubert.superb.tasks.ks import WORDS
from tests.helpers.corpora import lines

SPEAKERS = (61, 121, 237, 260, 672, 908, 1089, 1188, 1221, 1284)  # of test-clean
VIDEOS = ("5r0dWxy17C8", "a-_b3456789", "__________-")
QUERIES, DOCUMENTS = 100, 2000
INTENTS = (
    "change language,none,none",
    "increase,heat,kitchen",
    "bring,newspaper,none",
    "activate,music,none",
)


def utterances(count: int = 2620) -> list[str]:
    """Utterances of LibriSpeech."""
    return [f"{SPEAKERS[i % 10]}-{134_686 + i % 10}-{i // 10:04}" for i in range(count)]


def words(count: int = 3081) -> list[str]:
    """Recordings of Speech Commands, some of them with the names that silence, other words and slips have."""
    names = [f"{WORDS[i % 10]}-{i:08x}_nohash_{i % 5}.wav" for i in range(count - 3)]
    return [
        *names,
        "_silence_-noise_3.wav",
        "_unknown_-bed_00f0204f_nohash_0.wav",
        "yes-0a7c2a8d_nohash_0.wav.wav",
    ]


def speakers(count: int = 8251) -> list[str]:
    """Utterances of VoxCeleb1's 1,251 speakers."""
    return [f"id{10_001 + i % 1251}-{VIDEOS[i % 3]}-{i:05}" for i in range(count)]


def trials(count: int = 37_720) -> list[str]:
    """Pairs of utterances of the 40 speakers of VoxCeleb1's test part."""

    def utterance(number: int) -> str:
        return f"id{10_270 + number % 40}-{VIDEOS[number % 3]}-{number:05}"

    return [f"{utterance(i)}_{utterance(i + 7)}" for i in range(count)]


def dialogue(session: int, count: int) -> list[str]:
    """Utterances of a session of IEMOCAP."""
    dialogues = dialogs(f"Session{session}")
    return [f"{dialogues[i % 28]}_{'MF'[i // 1000]}{i % 1000:03}" for i in range(count)]


def recordings(count: int = 3000) -> list[str]:
    """Mixtures of two utterances."""
    names = utterances(2620)
    return [f"{names[i % 2620]}_{names[(i + 11 + i // 2620) % 2620]}" for i in range(count)]


def commands(count: int = 3793) -> list[str]:
    """Recordings of Fluent Speech Commands."""
    return [str(uuid.UUID(int=(1 << 127) + i)) for i in range(count)]


def sentences() -> list[str]:
    """Sentences of SNIPS's test set by the four voices."""
    return [
        f"{voice}-snips-test-{i}" for voice in ("Brian", "Emma", "Raveena", "Russell") for i in range(700)
    ]


def rows(names: list[str], values: tuple[str, ...], separator: str = " ") -> str:
    """Lines of names and values, which take turns."""
    return "".join(f"{name}{separator}{values[i % len(values)]}\n" for i, name in enumerate(names))


def stdlist(queries: list[str], documents: list[str]) -> str:
    """Detections of every query in every document."""
    terms = "".join(f'<term file="{name}" score="0.25"/>\n' for name in documents)
    listed = "".join(
        f'<detected_termlist termid="{name}">\n{terms}</detected_termlist>\n' for name in queries
    )
    return f"<stdlist>\n{listed}</stdlist>\n"


def queries(split: str = "eval", count: int = QUERIES) -> list[str]:
    """Queries of QUESST 2014."""
    return [f"quesst14_{split}_{i:04}" for i in range(count)]


def documents(count: int = DOCUMENTS) -> list[str]:
    """Documents of QUESST 2014."""
    return [f"quesst14_{i:05}" for i in range(count)]


@cache
def activity(speakers: int = 2) -> bytes:
    """HDF5 as s3prl's diarization writes it."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("T_hat", data=np.full((50, speakers), 0.5, dtype=np.float32))
    return buffer.getvalue()


@cache
def texts() -> Mapping[str, str]:
    """Every text file of a submission: entry -> content."""
    spoken, tagged = (
        ("HELLO WORLD", "", "IT'S FIVE"),
        ("PLAY B-artist MO E-artist NOW", "B-year TWO B-city ROME E-city"),
    )
    return {
        "pr_public/predict.ark": rows(utterances(), ("HH AH0 L OW1", "", "Z IY1 SIL")),
        "asr_public/predict.ark": rows(utterances(), spoken),
        "asr_lm_public/predict.ark": rows(utterances(), spoken),
        "ks_public/predict.txt": rows(words(), ("yes", "_silence_", "_unknown_")),
        "qbe_public/benchmark.stdlist.xml": stdlist(queries(), documents()),
        "sid_public/predict.txt": rows(speakers(), ("id10001", "id11251")),
        "sv_public/predict.txt": rows(trials(), ("0.25", "-1e-05")),
        **{
            f"er_{fold}_public/predict.txt": rows(
                dialogue(int(fold[-1]), count), ("neu", "hap", "ang", "sad")
            )
            for fold, count in FOLD_SIZES.items()
        },
        "ic_public/predict.csv": rows(commands(), INTENTS, ","),
        "sf_public/predict.ark": rows(sentences(), tagged),
    }


@cache
def diarization() -> Mapping[str, bytes]:
    """The files of diarization: entry -> content."""
    files = {f"sd_public/scoring/predictions/{name}.h5": activity() for name in recordings()}
    return {**files, "sd_public/frame_shift": b"320\n"}


def pack(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write ``predict.zip``."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"predict/{name}", content)
    return path


def lists(data: Path) -> Path:
    """The corpora's own lists of the test sets, and empty files where the folder is the list."""
    for name in utterances():
        speaker, chapter, _ = name.split("-")
        _touch(data / "LibriSpeech/test-clean" / speaker / chapter / f"{name}.flac")
    for name in words():
        folder, _, file = name.partition("-")
        _touch(data / "speech_commands_test_set_v0.01" / folder / file)
    for name in sentences():
        _touch(data / "SNIPS/test" / f"{name}.wav")
    for session in range(1, 6):
        root = data / f"IEMOCAP_full_release/Session{session}"
        for name in dialogue(session, FOLD_SIZES[f"fold{session}"]):
            _touch(root / "sentences/wav" / name.rpartition("_")[0] / f"{name}.wav")
        for each in dialogs(f"Session{session}")[:28]:
            said = sorted(path.stem for path in (root / "sentences/wav" / each).iterdir())
            lines(
                root / f"dialog/EmoEvaluation/{each}.txt",
                *(f"[0 - 1]\t{name}\tneu\t[1, 1, 1]" for name in said),
            )
    table = ["path,action", *(f"wavs/speakers/x/{name}.wav,none" for name in commands())]
    lines(data / "fluent_speech_commands_dataset/data/test_data.csv", *table)
    mixtures = data / "Libri2Mix/wav16k/max/metadata/mixture_test_mix_both.csv"
    lines(mixtures, "mixture_ID,length", *(f"{name},16000" for name in recordings()))
    scoring = data / "quesst14Database/scoring"
    english = [f"quesst14Database/eval_queries/{name}.wav nnenglish" for name in queries()]
    lines(scoring / "language_key_eval.lst", *english, "quesst14Database/eval_queries/other.wav czech")
    english = [f"quesst14Database/Audio/{name}.wav nnenglish" for name in documents()]
    lines(scoring / "language_key_utterances.lst", *english)
    return data


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
