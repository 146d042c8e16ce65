"""How much audio a task has, by the lists that its configuration names and the headers of its files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...constants import SAMPLE_RATE
from ...data.audio import probe
from ...errors import DataError
from ...utils.files import user_cache_dir, write_text
from ..tasks.spec import Task

Config = Mapping[str, Any]
HEADERS = 8  # read at once; what they wait for is the disk


def seconds(task: Task, config: Config) -> float:
    """Seconds of audio that training and evaluating a task meets, each utterance once.

    Raises:
        DataError: the lists of files cannot be read, or a file has no header of audio.
    """
    find = AUDIO.get(task.name)
    if find is None:
        raise DataError(f"{task.name}: how much audio it has cannot be told from its configuration")
    try:
        found = list(find(task, config))
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__} {error}"
        raise DataError(f"{task.name}: the lists of its audio cannot be read ({reason})") from error
    files = sorted({each for each in found if isinstance(each, Path)})
    return measure(files, task.name) + sum(each for each in found if not isinstance(each, Path))


def measure(files: list[Path], what: str = "audio") -> float:
    """Seconds of files by their headers, remembered for the next time.

    Raises:
        DataError: a file is missing or no audio.
    """
    if not files:
        return 0.0
    times = sorted((str(folder), folder.stat().st_mtime_ns) for folder in {file.parent for file in files})
    told = json.dumps([times, [str(file) for file in files]])
    known = user_cache_dir() / "seconds" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"
    try:
        return float(json.loads(known.read_text(encoding="utf8")))
    except (OSError, ValueError):
        pass
    with ThreadPoolExecutor(HEADERS) as pool:
        bar = tqdm(pool.map(probe, files), desc=f"{what}: headers", total=len(files), unit="file")
        total = sum(info.samples / info.rate for info in bar)
    known.parent.mkdir(parents=True, exist_ok=True)
    write_text(known, json.dumps(total))
    return total


Found = Iterator[Path | float]
"""Files to measure, and seconds that a list tells."""


def _expert(config: Config) -> Any:
    return config["downstream_expert"]


def _ctc(task: Task, config: Config) -> Found:
    corpus = _expert(config)["corpus"]
    root, name = Path(corpus["path"]), corpus["name"].lower()
    for split in ("train", "dev", "test"):
        places = corpus[split]
        for place in [places] if isinstance(places, str) else places:
            if name in ("librispeech", "libriphone"):
                yield from _some(root / place, "**/*.flac")
            elif name == "snips":
                speakers = tuple(corpus[f"{place}_speakers"])
                yield from (f for f in _some(root / place, "**/*.wav") if f.name.startswith(speakers))
            else:
                with Path(place).open(encoding="utf8", newline="") as file:
                    yield from (root / row[0] for row in list(csv.reader(file, delimiter="\t"))[1:] if row)


def _asr(task: Task, config: Config) -> Found:
    data = _expert(config)["datarc"]
    for split in dict.fromkeys(["train", *config["runner"]["eval_dataloaders"], task.split]):
        for name in data[split]:
            with Path(data["bucket_file"], f"{name}.csv").open(encoding="utf8", newline="") as file:
                yield sum(int(row["length"]) for row in csv.DictReader(file)) / SAMPLE_RATE


def _ks(task: Task, config: Config) -> Found:
    data = _expert(config)["datarc"]
    for root in (data["speech_commands_root"], data["speech_commands_test_root"]):
        yield from (f for f in _some(Path(root), "*/*.wav") if f.parent.name != "_background_noise_")


def _qbe(task: Task, config: Config) -> Found:
    root = Path(_expert(config)["datarc"]["dataset_root"])
    for name in ("utterances", "dev", "eval"):
        for line in (root / "scoring" / f"language_key_{name}.lst").read_text(encoding="utf8").splitlines():
            path, language = line.split()
            if language == "nnenglish":
                yield root / path.partition("/")[2]


def _asv(task: Task, config: Config) -> Found:
    data = _expert(config)["datarc"]
    lines = Path(data["test_meta_data"]).read_text(encoding="utf8").splitlines()
    yield from (Path(data["file_path"], "test/wav", name) for line in lines for name in line.split()[1:])


def _sd(task: Task, config: Config) -> Found:
    for split in ("train", "dev", "test"):
        lines = Path(_expert(config)["loaderrc"][f"{split}_dir"], "reco2dur").read_text().splitlines()
        yield sum(float(line.split()[1]) for line in lines)


def _er(task: Task, config: Config) -> Found:
    data = _expert(config)["datarc"]
    for table in _some(Path(data["meta_data"]), "Session*/*_meta_data.json"):
        rows = json.loads(table.read_text(encoding="utf8"))["meta_data"]
        yield from (Path(data["root"], row["path"]) for row in rows)


def _ic(task: Task, config: Config) -> Found:
    root = Path(_expert(config)["datarc"]["file_path"])
    for split in ("train", "valid", "test"):
        with (root / "data" / f"{split}_data.csv").open(encoding="utf8", newline="") as file:
            yield from (root / row["path"] for row in csv.DictReader(file))


def _mixtures(task: Task, config: Config) -> Found:
    expert = _expert(config)
    for split in ("train", "dev", "test"):
        table = Path(expert["loaderrc"][f"{split}_dir"], expert["datarc"]["src"][0], "wav.scp")
        yield from (Path(line.split()[1]) for line in table.read_text(encoding="utf8").splitlines())


def _vc(task: Task, config: Config) -> Found:
    expert = _expert(config)
    root = Path(expert["datarc"]["data_root"])
    for speaker in (expert["trgspk"], "SEF1", "SEF2", "SEM1", "SEM2"):
        yield from _some(root / speaker, "*.wav")


def _some(root: Path, pattern: str) -> Iterable[Path]:
    found = sorted(root.glob(pattern))
    if not found:
        raise DataError(f"{root}: no {pattern}")
    return found


AUDIO: dict[str, Callable[[Task, Config], Found]] = {
    "PR": _ctc,
    "ASR": _asr,
    "KS": _ks,
    "QbE": _qbe,
    "ASV": _asv,
    "SD": _sd,
    "ER": _er,
    "IC": _ic,
    "SF": _ctc,
    "SE": _mixtures,
    "SS": _mixtures,
    "VC": _vc,
    "OOD-ASR": _ctc,
}
"""How the audio of a task is found; SID is not kept, and ST's tables are fairseq's."""
