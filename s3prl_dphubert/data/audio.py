"""Reading audio: the only place that opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..errors import DataError

SAMPLE_RATE = 16_000
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: samples a channel at its own rate in Hz, and channels."""

    samples: int
    rate: int
    channels: int

    @property
    def samples_16k(self) -> int:
        """Samples after resampling to 16 kHz."""
        return self.samples if self.rate == SAMPLE_RATE else self.samples * SAMPLE_RATE // self.rate


def probe(path: str | Path) -> AudioInfo:
    """Read a header without decoding the audio.

    Raises:
        DataError: the file is missing, no audio, or empty.
    """
    try:
        info = soundfile.info(str(path))
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: unreadable ({_reason(error)})") from error
    if info.frames <= 0 or info.samplerate <= 0:
        raise DataError(f"{path}: empty")
    return AudioInfo(info.frames, info.samplerate, info.channels)


def read(path: str | Path, start: int = 0, samples: int | None = None) -> np.ndarray:
    """Decode audio as 16 kHz mono.

    Args:
        path: wav, flac, ogg, opus or mp3.
        start: first sample wanted, at 16 kHz.
        samples: how many, at 16 kHz; ``None`` reads to the end.

    Returns:
        float32 samples (T,), fewer than asked for where the file ends early.

    Raises:
        DataError: the file is unreadable, empty where it was asked for, or not finite.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            seekable = rate == SAMPLE_RATE and file.seekable() and samples is not None
            if seekable:
                file.seek(min(start, file.frames))
            audio = file.read(samples if seekable and samples is not None else -1, "float32", always_2d=True)
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f"{path}: unreadable ({_reason(error)})") from error
    audio = audio.mean(axis=1)
    if not np.isfinite(audio).all():
        raise DataError(f"{path}: non-finite samples")
    if rate != SAMPLE_RATE and len(audio):
        audio = soxr.resample(audio, rate, SAMPLE_RATE)
    if not seekable:
        audio = audio[start : None if samples is None else start + samples]
    if not len(audio):
        raise DataError(f"{path}: empty")
    return np.ascontiguousarray(audio, dtype=np.float32)


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
