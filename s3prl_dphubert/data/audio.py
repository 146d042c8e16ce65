"""Reading audio: the only place that opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..errors import DataError

SAMPLE_RATE = 16_000
RATES = range(1_000, 1_000_001)  # Hz; outside it a header is damaged, and resampling would fill the memory
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
        DataError: the file is missing, no audio, empty, or its rate is absurd.
    """
    try:
        info = soundfile.info(str(path))
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: unreadable ({_reason(error)})") from error
    _check_rate(path, info.samplerate)
    if info.frames <= 0:
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
        DataError: the file is unreadable, empty where it was asked for, not finite, or its rate is
            absurd; or ``start`` or ``samples`` is out of range.
    """
    if start < 0 or (samples is not None and samples < 1):
        raise DataError(f"{path}: start is {start}, samples is {samples}, allowed: start >= 0, samples >= 1")
    audio, rate, jumped = _decode(path, start, samples)
    if not np.isfinite(audio).all():
        raise DataError(f"{path}: non-finite samples")
    if rate != SAMPLE_RATE and len(audio):
        audio = _resample(path, audio, rate)
    if not jumped:
        audio = audio[start : None if samples is None else start + samples]
    if not len(audio):
        raise DataError(f"{path}: empty")
    return np.ascontiguousarray(audio, dtype=np.float32)


def _decode(path: str | Path, start: int, samples: int | None) -> tuple[np.ndarray, int, bool]:
    """Mono (T,) at the file's own rate, that rate in Hz, and whether it begins at ``start`` (else at 0)."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            _check_rate(path, rate)
            wanted = samples if samples is not None and rate == SAMPLE_RATE else None
            # After a seek, MP3 decodes as silence for up to 0.3 s (its frames lean on earlier ones).
            jump = wanted is not None and file.seekable() and not file.subtype.startswith("MPEG_LAYER")
            if jump:
                file.seek(min(start, file.frames))
            elif wanted is not None:
                wanted += start
            audio = file.read(-1 if wanted is None else wanted, "float32", always_2d=True)
            return audio.mean(axis=1), rate, jump
    except DataError:
        raise
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f"{path}: unreadable ({_reason(error)})") from error


def _check_rate(path: str | Path, rate: int) -> None:
    if rate not in RATES:
        raise DataError(f"{path}: rate is {rate} Hz, allowed: {RATES[0]} to {RATES[-1]}")


def _resample(path: str | Path, audio: np.ndarray, rate: int) -> np.ndarray:
    """Resample (T,) from ``rate`` Hz to 16 kHz."""
    try:
        return soxr.resample(audio, rate, SAMPLE_RATE)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise DataError(f"{path}: cannot be resampled from {rate} Hz ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
