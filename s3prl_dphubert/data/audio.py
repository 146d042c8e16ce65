"""Audio files as 16 kHz mono; the only module that opens audio."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..constants import SAMPLE_RATE
from ..errors import DataError
from . import remote_files
from .remote_files import readable
from .shards import Member

RATES = range(1_000, 1_000_001)  # Hz; other rates mean a damaged header, and resampling would fill the memory
MAX_SECONDS = 24 * 3600  # longer ones mean a damaged header, or FLAC streamed without a length
TOLERANCE = 2 * SAMPLE_RATE // 1000  # samples at 16 kHz by which headers and decoders may differ
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})


@dataclass(frozen=True)
class AudioInfo:
    """Header of an audio file.

    Args:
        samples: samples of each channel.
        rate: sampling rate in Hz.
        channels: number of channels.
    """

    samples: int
    rate: int
    channels: int

    @property
    def samples_16k(self) -> int:
        """Number of samples after resampling to 16 kHz."""
        return self.samples if self.rate == SAMPLE_RATE else self.samples * SAMPLE_RATE // self.rate


def probe(path: str | Path, data: bytes | None = None) -> AudioInfo:
    """Read a header without decoding the audio.

    Args:
        path: as for :func:`read`.
        data: content of the file, if the caller has it already.

    Raises:
        DataError: the file is missing, not audio or empty, or its rate or length is implausible.
    """
    with readable(path):
        info = soundfile.info(_source(path, data))
    _check_header(path, info.samplerate, info.frames)
    if info.frames <= 0:
        raise DataError(f"{path}: empty")
    return AudioInfo(info.frames, info.samplerate, info.channels)


def probe_whole(path: Path) -> tuple[AudioInfo, str]:
    """Read a header, and compare it with the size of the file or with its last sample.

    A float format is decoded as a whole, since only there samples may be infinite or NaN.

    Returns:
        The header, and how much of the audio is missing; empty if the file is whole or MP3, whose headers
        state no length to compare with.

    Raises:
        DataError: as for :func:`probe`, or there are non-finite samples.
    """
    with readable(path), soundfile.SoundFile(str(path)) as file:
        info = AudioInfo(file.frames, file.samplerate, file.channels)
        _check_header(path, info.rate, info.samples)
        kind, subtype, seekable = file.format, file.subtype, file.seekable()
        missing = _riff_shortfall(path) if kind in ("WAV", "WAVEX") else ""
        if info.samples and seekable and not missing and kind not in ("WAV", "WAVEX", "MP3"):
            missing = _decoding_shortfall(file)
    if not missing and not info.samples:
        raise DataError(f"{path}: empty")
    if not missing and subtype in ("FLOAT", "DOUBLE"):
        read(path)
    return info, missing


def _riff_shortfall(path: Path) -> str:
    """Return how many bytes of its ``data`` chunk a WAV file lacks; libsndfile does not complain."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                # Programs that stream do not know the length, and write 0 or all that fits into the field.
                end = file.tell() + length
                streamed = length == 0 or length >= 0x7FFFFF00
                return "" if streamed or end <= size else f"{end - size} of {length} bytes are missing"
            file.seek(length + length % 2, 1)
    return ""


def _decoding_shortfall(file: soundfile.SoundFile) -> str:
    try:
        file.seek(file.frames - 1)
        if len(file.read(1)) == 1:
            return ""
    except soundfile.LibsndfileError:
        pass
    return f"the last of {file.frames} samples cannot be decoded"


def read(
    path: str | Path, start: int = 0, samples: int | None = None, data: bytes | None = None
) -> np.ndarray:
    """Decode audio as 16 kHz mono.

    Args:
        path: wav, flac, ogg, opus or mp3: a file, a URL, or a member of a tar shard.
        start: first sample to read, at 16 kHz.
        samples: number of samples to read, at 16 kHz; ``None`` reads to the end.
        data: content of the file, if the caller has it already.

    Returns:
        float32 samples (T,), fewer than ``samples`` if the file ends early.

    Raises:
        DataError: the file cannot be read, has no or non-finite samples in that range, or an implausible rate
            or length; or ``start`` or ``samples`` is out of range.
    """
    if start < 0 or (samples is not None and samples < 1):
        raise DataError(f"{path}: start is {start}, samples is {samples}, allowed: start >= 0, samples >= 1")
    audio, rate, begins_at_start = _decode(path, data, start, samples)
    if not np.isfinite(audio).all():
        raise DataError(f"{path}: non-finite samples")
    if rate != SAMPLE_RATE and len(audio):
        with readable(path):
            audio = soxr.resample(audio, rate, SAMPLE_RATE)
    if not begins_at_start:
        audio = audio[start : None if samples is None else start + samples]
    if not len(audio):
        raise DataError(f"{path}: empty")
    return np.ascontiguousarray(audio, dtype=np.float32)


def _source(path: str | Path, data: bytes | None) -> str | io.BytesIO:
    """Return what soundfile can open: a local path, else the content in memory."""
    name = str(path)
    if data is None and (member := Member.parse(name)):
        data = member.fetch()
    if data is None and remote_files.is_url(name):
        data = remote_files.fetch(name)
    return name if data is None else io.BytesIO(data)


def _decode(
    path: str | Path, data: bytes | None, start: int, samples: int | None
) -> tuple[np.ndarray, int, bool]:
    """Return mono audio (T,) at the file's own rate, that rate in Hz, and whether it begins at ``start``."""
    with readable(path), soundfile.SoundFile(_source(path, data)) as file:
        rate = file.samplerate
        _check_header(path, rate, file.frames)
        count = samples if samples is not None and rate == SAMPLE_RATE else None
        # After a seek, MP3 decodes as silence for up to 0.3 s, since its frames depend on earlier ones.
        seek = count is not None and file.seekable() and not file.subtype.startswith("MPEG_LAYER")
        if seek:
            file.seek(min(start, file.frames))
        elif count is not None:
            count += start
        audio = file.read(-1 if count is None else count, "float32", always_2d=True)
        return audio[:, 0] if file.channels == 1 else audio.mean(axis=1), rate, seek


def _check_header(path: str | Path, rate: int, samples: int) -> None:
    if rate not in RATES:
        raise DataError(f"{path}: rate is {rate} Hz, allowed: {RATES[0]} to {RATES[-1]}")
    if samples > MAX_SECONDS * rate:
        raise DataError(
            f"{path}: length is unknown or implausible ({samples} samples by the header), "
            f"allowed: {MAX_SECONDS // 3600} h at most"
        )
