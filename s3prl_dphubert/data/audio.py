"""Audio files as 16 kHz mono; the only module that opens audio."""

from __future__ import annotations

import io
import math
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ..constants import SAMPLE_RATE
from ..errors import DataError
from . import remote_files
from .audio_headers import WithoutTotal, mpeg_samples, riff_shortfall
from .remote_files import readable
from .shards import Member

RATES = range(1_000, 1_000_001)  # Hz; other rates mean a damaged header, and resampling would fill the memory
MAX_SECONDS = 24 * 3600  # longer ones mean a damaged header
MAX_SECONDS_AT_ONCE = 3 * 3600  # that :func:`read` returns: 0.7 GB
# Samples of all channels for each byte of the file, from which on it is not speech but a bomb. Opus at
# 6 kbit/s, the lowest rate in use, has 64; silence as FLAC has 1000, and a small file of it takes minutes.
MAX_SAMPLES_PER_BYTE = 64
UNSUSPICIOUS = 100_000_000  # samples that any file may have
_SHORT = 30  # seconds; crops of shorter files are cut from the whole, which costs little
TOLERANCE = 2 * SAMPLE_RATE // 1000  # samples at 16 kHz by which headers and decoders may differ
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
_MPEG_PADDING = 8 * 1152  # samples of delay and padding that an MP3's header leaves out
_UNKNOWN = 2**63 - 1  # libsndfile's number of frames where the header states none
_BLOCK = 2**18  # samples of all channels that are decoded at a time


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


class AudioFile(soundfile.SoundFile):
    """Audio file that is decoded on and on without a seek.

    soundfile itself seeks after every read. That fails at the end of a FLAC file without a length, and lets
    MP3 begin anew in the middle of the bits that its frames share.

    Args:
        path: name of the file, for messages.
        source: what to open, a local path or a file in memory.
        size: its bytes.

    Attributes:
        position: frames before the next one that is decoded.
        most: highest number of frames that is plausible for so many bytes.

    Raises:
        DataError: the rate or the length is implausible.
    """

    def __init__(self, path: str | Path, source: str | BinaryIO | WithoutTotal, size: int) -> None:
        super().__init__(source)
        rate, frames = self.samplerate, self.frames
        if rate not in RATES:
            raise DataError(f"{path}: rate is {rate} Hz, allowed: {RATES[0]} to {RATES[-1]}")
        values = self.channels * max(1, SAMPLE_RATE // rate)  # for each frame, with those of upsampling
        dense = max(UNSUSPICIOUS, MAX_SAMPLES_PER_BYTE * size) // values
        self.path, self.position, self.most = str(path), 0, min(MAX_SECONDS * rate, dense)
        if self.most < frames != _UNKNOWN:
            raise self._implausible(frames)

    def _implausible(self, frames: int) -> DataError:
        hours = f"{self.most / self.samplerate / 3600:.3g} h"
        return DataError(f"{self.path}: length is implausible ({frames} samples), allowed: {hours} at most")

    def seekable(self) -> bool:
        """Return ``False``, which keeps soundfile from seeking."""
        return False

    @property
    def states_length(self) -> bool:
        """``True`` if the header states how many frames there are; FLAC from a pipe does not."""
        return self.frames != _UNKNOWN

    @property
    def is_mpeg(self) -> bool:
        """``True`` for MP3, whose length is an estimate unless its first frame states it."""
        return self.subtype.startswith("MPEG_LAYER")

    def skip_to(self, frame: int) -> None:
        """Seek, or decode up to a frame where a seek is impossible.

        MP3 is decoded from a second earlier on, since its frames share bits with those before them.
        """
        if super().seekable() and self.states_length:
            place = min(frame, self.frames)
            if not self.is_mpeg:
                self.position = self.seek(place)
                return
            if place > _SHORT * self.samplerate:
                with _decoder_silenced():
                    self.position = self.seek(place - self.samplerate)
                    for _ in self.mono(self.samplerate):
                        pass
                return
        for _ in self.mono(frame):
            pass

    def mono(self, frames: int | None = None) -> Iterator[np.ndarray]:
        """Yield frames from the present position on as float32 (T,), in blocks.

        Args:
            frames: number of frames, to the end by default.

        Raises:
            DataError: there are non-finite samples, FLAC ends before its stated length, or a file without a
                stated length is implausibly long.
        """
        step = max(1, _BLOCK // self.channels)
        end = self.frames if self.states_length else self.most + 1
        end = end if frames is None else min(end, self.position + frames)
        while self.position < end:
            block = self.read(min(step, end - self.position), "float32", always_2d=True)
            if not len(block):
                break
            self.position += len(block)
            mono = block[:, 0] if self.channels == 1 else block.mean(axis=1)
            if not np.isfinite(mono).all():
                raise DataError(f"{self.path}: non-finite samples")
            yield mono
        if self.position > self.most:
            raise self._implausible(self.position)
        if self.format == "FLAC" and self.states_length and self.position < end:
            raise DataError(f"{self.path}: unreadable (ends after {self.position} of {self.frames} samples)")

    def resampled(self, frames: int | None = None) -> Iterator[np.ndarray]:
        """Yield :meth:`mono` at 16 kHz."""
        if self.samplerate == SAMPLE_RATE:
            yield from self.mono(frames)
            return
        stream = soxr.ResampleStream(self.samplerate, SAMPLE_RATE, 1, dtype="float32")
        for block in self.mono(frames):
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)

    def crop(self, start: int, samples: int) -> Iterator[np.ndarray]:
        """Yield ``samples`` samples at 16 kHz in blocks; decode only those and what the filter needs.

        At other rates than 16 kHz decoding begins at a frame that falls on a sample at 16 kHz, so that the
        result is that of the whole file to 1e-6 of full scale, or 1e-5 at odd rates such as 44,101 Hz.
        """
        rate = self.samplerate
        if rate == SAMPLE_RATE:
            self.skip_to(start)
            yield from self.mono(samples)
            return
        divisor = math.gcd(rate, SAMPLE_RATE)
        margin = rate // 20 + 512
        begin = max(0, start * rate // SAMPLE_RATE - margin) // (rate // divisor) * (rate // divisor)
        frames: int | None = (start + samples) * rate // SAMPLE_RATE + margin - begin
        if self.frames <= _SHORT * rate:
            begin, frames = 0, None
        skip = start - begin * SAMPLE_RATE // rate
        self.skip_to(begin)
        for block in self.resampled(frames):
            yield block[skip : skip + samples]
            samples -= len(block[skip : skip + samples])
            skip = max(0, skip - len(block))


@contextmanager
def _decoder_silenced() -> Iterator[None]:
    """Discard what libmpg123 writes to stderr about the frames at a seek, which miss bits of earlier ones."""
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere:
        saved = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def probe(path: str | Path, data: bytes | None = None) -> AudioInfo:
    """Read a header without decoding the audio; FLAC from a pipe, which states no length, is decoded.

    Args:
        path: as for :func:`read`.
        data: content of the file, if the caller has it already.

    Raises:
        DataError: the file is missing, not audio or empty, or its rate or length is implausible.
    """
    with readable(path), AudioFile(path, *_source(path, data)) as file:
        frames = file.frames if file.states_length else sum(map(len, file.mono()))
        if frames <= 0:
            raise DataError(f"{path}: empty")
        return AudioInfo(frames, file.samplerate, file.channels)


def probe_whole(path: Path) -> tuple[AudioInfo, str]:
    """Read a header, and compare it with the size of the file or with its last sample.

    A float format is decoded as a whole, since only there samples may be infinite or NaN.

    Returns:
        The header, and how much of the audio is missing; empty if the file is whole or MP3, whose headers
        state no length to compare with.

    Raises:
        DataError: as for :func:`probe`, or there are non-finite samples.
    """
    info, missing = probe(path), ""
    with readable(path), AudioFile(path, *_source(path, None)) as file:
        if file.format in ("WAV", "WAVEX"):
            with path.open("rb") as raw:
                missing = riff_shortfall(raw, path.stat().st_size)
        elif not file.is_mpeg and file.states_length:
            try:
                file.skip_to(info.samples - 1)
                last = sum(map(len, file.mono(1)))
            except (DataError, soundfile.LibsndfileError):
                last = 0
            missing = "" if last else f"the last of {info.samples} samples cannot be decoded"
        if not missing and file.subtype in ("FLOAT", "DOUBLE"):
            for _ in decode(path):
                pass
    return info, missing


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
            or length; ``start`` or ``samples`` is out of range; or there are more than
            :data:`MAX_SECONDS_AT_ONCE`.
    """
    if start < 0 or (samples is not None and samples < 1):
        raise DataError(f"{path}: start is {start}, samples is {samples}, allowed: start >= 0, samples >= 1")
    blocks, total = [], 0
    with readable(path), AudioFile(path, *_source(path, data)) as file:
        for block in file.resampled() if samples is None else file.crop(start, samples):
            blocks.append(block)
            total += len(block)
            if total > MAX_SECONDS_AT_ONCE * SAMPLE_RATE:
                raise DataError(
                    f"{path}: is longer than {MAX_SECONDS_AT_ONCE // 3600} h, too long to read at once"
                )
    audio = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    audio = audio[start:] if samples is None else audio
    if not len(audio):
        raise DataError(f"{path}: empty")
    return np.ascontiguousarray(audio, dtype=np.float32)


def decode(path: str | Path, data: bytes | None = None) -> Iterator[np.ndarray]:
    """Yield a file as 16 kHz mono in blocks (T,), all that it holds, and compare that with its header.

    Raises:
        DataError: as for :func:`read`, or there are more samples than the header says, which :func:`read`
            would not find.
    """
    with readable(path), ExitStack() as stack:
        source, size = _source(path, data)
        file = stack.enter_context(AudioFile(path, source, size))
        stated = file.frames
        if file.is_mpeg and (held := _mpeg_samples(source)) > stated + _MPEG_PADDING:
            raise _longer(path, stated, held)
        if file.format == "FLAC" and file.states_length:
            raw = stack.enter_context(open(source, "rb")) if isinstance(source, str) else source
            file = stack.enter_context(AudioFile(path, WithoutTotal(raw), size))
        total = 0
        for block in file.resampled():
            total += len(block)
            yield block
        if not total:
            raise DataError(f"{path}: empty")
        if file.position > stated + file.samplerate // 500:
            raise _longer(path, stated, file.position)
        if file.format == "FLAC" and file.position < stated < _UNKNOWN:
            raise DataError(f"{path}: unreadable (ends after {file.position} of {stated} samples)")


def _longer(path: str | Path, stated: int, held: int) -> DataError:
    return DataError(
        f"{path}: holds {held} samples, but only {stated} by its header can be read; write it anew, as with "
        "ffmpeg -i IN OUT"
    )


def _mpeg_samples(source: str | io.BytesIO) -> int:
    if not isinstance(source, str):
        return mpeg_samples(source.getvalue())
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return mpeg_samples(content)


def _source(path: str | Path, data: bytes | None) -> tuple[str | io.BytesIO, int]:
    """Return what soundfile can open, a local path or else the content in memory, and its bytes."""
    name = str(path)
    if data is None and (member := Member.parse(name)):
        data = member.fetch()
    if data is None and remote_files.local_path(name) is None:
        data = remote_files.fetch(name)
    if data is not None:
        return io.BytesIO(data), len(data)
    return remote_files.local_path(name) or name, remote_files.length(name)
