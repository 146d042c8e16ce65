"""Audio made for tests."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import soundfile

FORMATS = {
    "wav": {"format": "WAV"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "OPUS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


def tone(seconds, rate=16_000, hertz=440.0):
    """A sine of amplitude 0.3 (T,)."""
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def chirp(seconds, rate=16_000):
    """No two parts of it are alike, so a crop from a wrong place shows."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)


def encoded(data, suffix, rate=16_000):
    """The bytes of a file of that kind."""
    file = io.BytesIO()
    soundfile.write(file, data, rate, **FORMATS[suffix])
    return file.getvalue()


def pack(target, files, **options):
    """Write a tar of name -> bytes to a path or file object."""
    place = {"fileobj": target} if hasattr(target, "write") else {"name": target}
    with tarfile.open(mode="w", **place, **options) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target
