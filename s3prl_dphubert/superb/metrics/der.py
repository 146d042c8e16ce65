"""Speaker diarization: the error rate as md-eval counts it, for s3prl's predictions.

DER = (missed + false alarm + confused speaker time) / speaker time of the truth, with overlaps
scored, no collar, and in each recording the mapping of speakers that shares most time (NIST
RT-09 evaluation plan). SUPERB takes the lowest over decision thresholds 0.3 to 0.7 and median
filters of 1 and 11 frames, for all recordings together (s3prl's ``diarization/score.sh``).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...constants import SAMPLE_RATE
from ...errors import ResultError
from ...utils.readers import read_lines, reading

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIANS = (1, 11)

Turns = Mapping[str, list[tuple[float, float]]]
"""Speaker -> times in seconds from when to when it speaks."""


@dataclass(frozen=True)
class SpeakerErrors:
    """Speaker time in seconds: all of the truth, and what is wrong.

    Args:
        spoken: of the truth; overlapping speakers count each.
        missed: of the truth that no speaker was predicted for.
        false_alarm: predicted beyond the number of true speakers.
        confused: predicted for another speaker.
    """

    spoken: float = 0.0
    missed: float = 0.0
    false_alarm: float = 0.0
    confused: float = 0.0

    def __add__(self, other: SpeakerErrors) -> SpeakerErrors:
        return SpeakerErrors(
            self.spoken + other.spoken,
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confused + other.confused,
        )

    @property
    def rate(self) -> float:
        """The error rate as a fraction; above 1 when more is wrong than spoken."""
        if not self.spoken:
            raise ResultError("the truth holds no speech, so that no error rate is defined")
        return (self.missed + self.false_alarm + self.confused) / self.spoken


@dataclass(frozen=True)
class LowestErrorRate:
    """Lowest error rate (a fraction), and the decision threshold and median filter that reach it.

    Attributes:
        rate: of all recordings together.
        threshold: probability beyond which a speaker counts as speaking.
        median: width of the filter in frames.
        recordings: recording -> its errors at that threshold and filter.
    """

    rate: float
    threshold: float
    median: int
    recordings: Mapping[str, SpeakerErrors] = field(default_factory=dict, repr=False)


def errors(truth: Turns, predicted: Turns) -> SpeakerErrors:
    """Count the errors in one recording."""
    from scipy.optimize import linear_sum_assignment

    turns = itertools.chain(*truth.values(), *predicted.values())
    times = np.unique([time for turn in turns for time in turn])
    lengths = np.diff(times)  # of the intervals in which nobody begins or ends
    true, estimated = _speaking(truth, times), _speaking(predicted, times)
    true_counts, estimated_counts = true.sum(axis=0), estimated.sum(axis=0)
    shared = (true * lengths) @ estimated.T
    correct = shared[linear_sum_assignment(shared, maximize=True)].sum()
    return SpeakerErrors(
        spoken=float(lengths @ true_counts),
        missed=float(lengths @ np.maximum(true_counts - estimated_counts, 0)),
        false_alarm=float(lengths @ np.maximum(estimated_counts - true_counts, 0)),
        confused=max(0.0, float(lengths @ np.minimum(true_counts, estimated_counts) - correct)),
    )


def _speaking(turns: Turns, times: np.ndarray) -> np.ndarray:
    """Return 1 where a speaker speaks in an interval between times, 0 elsewhere: (speakers, intervals)."""
    speaking = np.zeros((len(turns), max(len(times) - 1, 0)))
    for row, spans in zip(speaking, turns.values(), strict=True):
        for begin, end in spans:
            row[np.searchsorted(times, begin) : np.searchsorted(times, end)] = 1
    return speaking


def turns(activity: np.ndarray, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Convert decided frames to turns.

    Args:
        activity: (F, speakers), true where one speaks.
        seconds: length of a frame. Times are rounded to 10 ms, as in the RTTM that s3prl writes.
    """
    turns_of: dict[str, list[tuple[float, float]]] = {}
    for speaker, frames in enumerate(activity.T):
        changes = np.flatnonzero(np.diff(np.concatenate([[0], frames.astype(int), [0]])))
        spans = []
        for begin, end in zip(changes[::2], changes[1::2], strict=True):
            onset, length = round(begin * seconds, 2), round((end - begin) * seconds, 2)
            spans.append((onset, round(onset + length, 2)))
        if spans:
            turns_of[str(speaker)] = spans
    return turns_of


def median(activity: np.ndarray, width: int) -> np.ndarray:
    """Median filter over an odd number of frames, (F, speakers), silent beyond the ends."""
    if width == 1:
        return activity
    padded = np.pad(activity.astype(int), ((width // 2, width // 2), (0, 0)))
    counts = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).sum(axis=-1)
    return counts > width // 2


def best(folder: Path, rttm: Path) -> LowestErrorRate:
    """Return the lowest error rate of the predictions of a diarization run.

    Args:
        folder: its ``expdir``, with ``scoring/predictions/RECORDING.h5`` and ``frame_shift``.
        rttm: the truth.

    Raises:
        ResultError: a file is missing or damaged, or a recording of the truth has no prediction.
    """
    truth = read_rttm(rttm)
    seconds = read_frame_shift(folder / "frame_shift") / SAMPLE_RATE
    files = {path.stem: path for path in sorted((folder / "scoring/predictions").glob("*.h5"))}
    missing = sorted({*truth} ^ {*files})
    if missing:
        raise ResultError(f"{rttm} and {folder / 'scoring/predictions'} differ in {_few(missing)}")
    tried: dict[tuple[float, int], dict[str, SpeakerErrors]] = {
        (threshold, width): {} for width in MEDIANS for threshold in THRESHOLDS
    }
    for name, path in files.items():
        chances = read_activity(path)
        for (threshold, width), recordings in tried.items():
            predicted = turns(median(chances > threshold, width), seconds)
            recordings[name] = errors(truth[name], predicted)
    rates = {key: sum(each.values(), SpeakerErrors()).rate for key, each in tried.items()}
    threshold, width = min(rates, key=lambda key: rates[key])
    return LowestErrorRate(rates[threshold, width], threshold, width, tried[threshold, width])


def read_rttm(path: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Read the SPEAKER lines of an RTTM: recording -> speaker -> turns.

    Raises:
        ResultError: there is no such line, or a time in one is no number.
    """
    lines = read_lines(path, ResultError)
    recordings: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            begin, length, speaker = float(fields[3]), float(fields[4]), fields[7]
        except (IndexError, ValueError) as error:
            raise ResultError(f"{path}, line {number}: not an RTTM line ({line.strip()[:80]!r})") from error
        spans = recordings.setdefault(fields[1], {}).setdefault(speaker, [])
        if length > 0:
            spans.append((begin, round(begin + length, 6)))
    if not recordings:
        raise ResultError(f"{path}: holds no SPEAKER line")
    return recordings


def read_frame_shift(source: Path | bytes) -> int:
    """Read the number of samples a frame from the file that s3prl writes.

    Raises:
        ResultError: it is missing (the site would take 160) or holds no whole number.
    """
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise ResultError(f"{error}; without frame_shift the site assumes 160") from error
    text = content.decode("utf8", errors="replace").strip()
    try:
        shift = int(text if text.isascii() and text.isdigit() else "")
    except ValueError as error:
        raise ResultError(f"frame_shift holds {text[:40]!r}, allowed: samples a frame") from error
    if not 1 <= shift <= SAMPLE_RATE:
        raise ResultError(f"frame_shift is {shift}, allowed: 1 to {SAMPLE_RATE} samples")
    return shift


def read_activity(source: Path | bytes) -> np.ndarray:
    """Read the probabilities that speakers speak, (F, speakers), from s3prl's HDF5 file.

    Raises:
        ResultError: it is no HDF5 file with the data set ``T_hat``, or not of probabilities.
    """
    prefix = f"{source}: " if isinstance(source, Path) else ""
    file: Any = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        import h5py
    except ImportError as error:
        raise ResultError("speaker diarization needs h5py: pip install h5py") from error
    with reading(prefix.removesuffix(": ") or "content", ResultError, "HDF5 with a data set T_hat"):
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        with h5py.File(file, "r") as content:
            if content.id.links.get_info(b"T_hat").type != h5py.h5l.TYPE_HARD:
                fault = "is a link, allowed: a data set of the file itself"
            elif not isinstance(content["T_hat"], h5py.Dataset):
                fault = "is a group, allowed: a data set"
            else:
                fault = _dataset_fault(content["T_hat"], size)
            values = np.zeros(0) if fault else np.asarray(content["T_hat"][:])
    if not fault and not ((values >= 0) & (values <= 1)).all():
        fault = f"is {values.dtype} of shape {values.shape}, allowed: (F, speakers) of 0 to 1"
    if fault:
        raise ResultError(f"{prefix}T_hat {fault}")
    return values


def _dataset_fault(dataset: Any, size: int) -> str:
    """Describe why a data set of a file of ``size`` bytes is not read.

    It may be of another kind, name other files, or promise more than the file holds, which takes memory.
    """
    shape, dtype = dataset.shape or (), dataset.dtype
    if len(shape) != 2 or 0 in shape or dtype.kind != "f":
        return f"is {dtype} of shape {shape}, allowed: (F, speakers) of 0 to 1"
    if dataset.external or dataset.is_virtual:
        return "is stored in other files, allowed: data in the file itself"
    if dataset.id.get_create_plist().get_nfilters():
        return "is compressed, allowed: uncompressed data, as s3prl writes"
    if dataset.id.get_storage_size() != dataset.nbytes or dataset.nbytes > size:
        return f"is of shape {shape}, but its file holds less: {size} bytes"
    return ""


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
