"""Mel cepstral distortion of converted speech, as s3prl scores VCC2020 with WORLD and DTW.

The steps and constants are those of s3prl's ``vc_evaluate.py``: WORLD's spectral envelope every 5 ms,
39 mel cepstral coefficients and the energy, only frames of which the power is less than 20 dB below the
mean, aligned by FastDTW.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ... import compat
from ...errors import ResultError
from ...utils.files import write_text
from ...utils.readers import read_record

CONVERTED = "*/test/wav/*_E3*.wav"  # what an evaluation leaves in its folder
FILE = "mcd.json"
ORDER, ALPHA, SHIFT_MS, FFT = 39, 0.466, 5, 1024
CUT_HZ, FLOOR_DB = 70, -20
A_PROCESS, MOST_PROCESSES = 8, 16  # utterances that are worth the start of a process
Job = tuple[Path, Path, tuple[int, int]]
"""A conversion, the original, and the speaker's pitch in Hz."""

PACKAGES = "pyworld fastdtw scipy"


def score(folder: Path, reference: Path, pitch: Mapping[str, tuple[int, int]]) -> float:
    """Return the mean distortion in dB of the conversions in a folder; ``mcd.json`` keeps that of each.

    Args:
        folder: of an evaluation; its path names the target speaker.
        reference: with a folder of every target speaker's own utterances.
        pitch: target speaker -> lowest and highest pitch in Hz.

    Raises:
        ResultError: there are no conversions or no original of one, or a package is missing.
    """
    speaker = next((part for part in reversed(folder.resolve().parts) if part in pitch), None)
    if speaker is None:
        raise ResultError(f"{folder}: names no target speaker, allowed: {', '.join(pitch)}")
    conversions = sorted(folder.glob(CONVERTED))
    if not conversions:
        raise ResultError(f"no conversions {folder / CONVERTED}")
    earlier, measured, jobs = read_record(folder / FILE), {}, {}
    for path in conversions:
        original = reference / speaker / f"{path.stem.split('_')[1]}.wav"
        if not original.is_file():
            raise ResultError(f"no file {original} to compare {path} with")
        key = f"{path.relative_to(folder)} {_stamp(path)} against {_stamp(original)}"
        if key in earlier:
            measured[key] = earlier[key]
        else:
            jobs[key] = path, original, pitch[speaker]
    measured |= zip(jobs, _measure(list(jobs.values()), f"MCD of {speaker}"), strict=True)
    if measured != earlier:
        write_text(folder / FILE, json.dumps(measured, indent=1) + "\n")
    return float(np.mean(list(measured.values())))


def _measure(jobs: list[Job], title: str) -> list[float]:
    """Measure distortions, in several processes where that is worth their start."""
    workers = min(MOST_PROCESSES, os.cpu_count() or 1, len(jobs) // A_PROCESS)
    bar = {"desc": title, "total": len(jobs), "unit": "utterance", "leave": False, "disable": not jobs}
    if workers < 2:
        return [distortion(*job) for job in tqdm(jobs, **bar)]
    order = sorted(range(len(jobs)), key=lambda index: jobs[index][1])  # an original's conversions together
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        done = pool.map(distortion, *zip(*(jobs[index] for index in order), strict=True), chunksize=4)
        distortions = dict(zip(order, tqdm(done, **bar), strict=True))
    return [distortions[index] for index in range(len(jobs))]


def distortion(converted: Path, original: Path, pitch: tuple[int, int]) -> float:
    """Return the distortion in dB of one conversion.

    Args:
        converted: audio file.
        original: the same sentence said by the target speaker, of the same sampling rate.
        pitch: lowest and highest of the speaker in Hz.

    Raises:
        ResultError: the rates differ, or a package is missing.
    """
    try:
        from fastdtw import fastdtw
        from scipy.spatial.distance import euclidean
    except ImportError as error:
        raise ResultError(f"distortion needs packages: pip install {PACKAGES} ({error})") from error
    estimate, target = cepstra(converted, pitch), _original_cepstra(original, _stamp(original), pitch)
    _, path = fastdtw(estimate, target, dist=euclidean)
    rows, columns = np.array(path).T
    squares = ((estimate[rows] - target[columns]) ** 2).sum(1)
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * squares)))


def cepstra(path: Path, pitch: tuple[int, int]) -> np.ndarray:
    """Return the mel cepstra of the loud frames of a file, (F, 40)."""
    compat.apply()  # pyworld imports what setuptools no longer has
    try:
        import pyworld
        from scipy.signal import firwin, lfilter
    except ImportError as error:
        raise ResultError(f"mel cepstra need packages: pip install {PACKAGES} ({error})") from error
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    taps = firwin(255, CUT_HZ / (rate // 2), pass_zero=False)
    heard = lfilter(taps, 1, (audio.mean(1) * np.iinfo(np.int16).max).astype(np.float64))
    f0, times = pyworld.harvest(heard, rate, f0_floor=pitch[0], f0_ceil=pitch[1], frame_period=SHIFT_MS)
    power = pyworld.cheaptrick(heard, f0, times, rate, fft_size=FFT)  # (F, 513)
    energy = (power[:, 0] + power[:, -1] + 2 * power[:, 1:-1].sum(1)) / FFT
    loud = 10 * np.log10(energy / energy.mean()) > FLOOR_DB
    return mel_cepstra(power[loud])


@lru_cache(maxsize=64)  # an original is compared with four sources of every checkpoint
def _original_cepstra(path: Path, stamp: str, pitch: tuple[int, int]) -> np.ndarray:
    return cepstra(path, pitch)


def mel_cepstra(power: np.ndarray) -> np.ndarray:
    """Convert power spectra (F, 513) to mel cepstra (F, 40), the energy first."""
    cepstrum = np.fft.irfft(np.log(power))[:, : FFT // 2 + 1]
    cepstrum[:, 0] /= 2
    return cepstrum @ _warping().T


@lru_cache(maxsize=1)
def _warping() -> np.ndarray:
    """Matrix (40, 513) that warps the frequency axis of a cepstrum by ``ALPHA`` (Oppenheim's recursion)."""
    count = FFT // 2 + 1
    rows = np.zeros((ORDER + 1, count))
    for index in range(count - 1, -1, -1):
        before = rows.copy()
        rows[0] = ALPHA * before[0]
        rows[0, index] += 1
        rows[1] = (1 - ALPHA**2) * before[0] + ALPHA * before[1]
        for order in range(2, ORDER + 1):
            rows[order] = before[order - 1] + ALPHA * (before[order] - rows[order - 1])
    return rows


def _stamp(path: Path) -> str:
    """Return a text that changes whenever a file does."""
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size}"
