"""Lengths in headers of audio and what the files hold; libsndfile trusts the headers."""

from __future__ import annotations

import io
import mmap
from typing import BinaryIO

# kbit/s by the four bits of a Layer III frame header, of MPEG 1 and of MPEG 2 and 2.5 (ISO 11172-3, 13818-3)
_BIT_RATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_TOTAL = 21  # offset of the byte whose low half, with the next four bytes, is FLAC's number of samples


def riff_shortfall(file: BinaryIO, size: int) -> str:
    """Return how many bytes of its ``data`` chunk a WAV file of ``size`` bytes lacks; empty if none."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            # Programs that stream do not know the length, and write 0 or all that fits into the field.
            end = file.tell() + length
            streamed = length == 0 or length >= 0x7FFFFF00
            return "" if streamed or end <= size else f"{end - size} of {length} bytes are missing"
        file.seek(length + length % 2, io.SEEK_CUR)
    return ""


def mpeg_samples(data: bytes | mmap.mmap) -> int:
    """Count the samples of each channel in an MP3 file by its frames, an initial Xing or VBRI frame included.

    Returns:
        The number; 0 for a free bit rate and for Layers I and II, which are not looked at.
    """
    place, samples = _after_id3(data[:10]), 0
    while (place := data.find(b"\xff", place, len(data) - 3)) >= 0:
        version, layer = data[place + 1] >> 3 & 3, data[place + 1] >> 1 & 3
        bit_rate, rate = data[place + 2] >> 4, data[place + 2] >> 2 & 3
        if data[place + 1] < 0xE0 or version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
            place += 1  # no frame begins here
            continue
        size = 1152 if version == 3 else 576
        bits = _BIT_RATES[3 if version == 3 else 2][bit_rate] * 1000
        place += size // 8 * bits // _RATES[version][rate] + (data[place + 2] >> 1 & 1)
        samples += size
    return samples


class WithoutTotal:
    """FLAC file whose header is read as stating no length, so that libsndfile decodes all that there is.

    Args:
        file: seekable file, at any position.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        self._total = _after_id3(file.read(10)) + _TOTAL
        file.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read as a file does, with zeros for the number of samples."""
        start = self._file.tell()
        data = bytearray(self._file.read(size))
        for place in range(max(self._total, start), min(self._total + 5, start + len(data))):
            data[place - start] &= 0xF0 if place == self._total else 0
        return bytes(data)


def _after_id3(data: bytes) -> int:
    """Return the first byte behind an ID3v2 tag at the beginning; 0 without one."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(data[6:10]))
