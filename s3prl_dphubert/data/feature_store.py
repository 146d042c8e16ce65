"""Hidden states of utterances on disk, shared by processes: memory-mapped fp16 and an index.

``DIR/MODEL/states.f16`` holds one block (L + 1, F, D) after the other, ``DIR/MODEL/index`` a record of
48 bytes for each. Both only grow. A block is written before its record, so a process may be killed at any
moment: the next writer cuts off blocks without a record. Writers take turns by ``DIR/.lock``; readers need
no lock. Every process checks the checksum of a block once: blocks that a power cut kept from reaching the
disk count as missing and are computed again.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import RunError
from ..utils.locking import LOCK, waiting_lock

PATIENCE = 60  # seconds to wait for other writers before a batch is given up
PAGE = mmap.ALLOCATIONGRANULARITY
MAGIC = np.uint64(0x7331)  # makes a record of zeros invalid
RECORD = np.dtype(
    [
        ("key", "V16"),
        ("offset", "<u8"),
        ("frames", "<u4"),
        ("crc", "<u4"),
        ("seconds", "<f8"),
        ("check", "<u8"),
    ]
)


class Place(NamedTuple):
    """Place of a block: byte offset, frames F, CRC-32, and the seconds that computing it took."""

    offset: int
    frames: int
    crc: int
    seconds: float


class Block(NamedTuple):
    """Hidden states to store: key of 16 bytes, float16 (L + 1, F, D), seconds that computing them took."""

    key: bytes
    states: Tensor
    seconds: float


class FeatureStore:
    """Hidden states of one model.

    Args:
        root: folder of all models.
        name: name of the model's folder in ``root``.
        layers: number of hidden states of an utterance, L + 1.
        width: width D of a hidden state.
        limit: maximum number of bytes of everything below ``root``.

    Raises:
        RunError: the folder cannot be written.
    """

    def __init__(self, root: Path, name: str, layers: int, width: int, limit: int) -> None:
        self.root, self.folder = root, root / name
        self.layers, self.width, self.limit = layers, width, limit
        self.closed = ""  # the reason, once nothing more is stored
        self._states, self._index = self.folder / "states.f16", self.folder / "index"
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        """Open the files, creating them if needed, and start with an empty index in memory."""
        self._places: dict[bytes, Place] = {}
        self._checked: set[bytes] = set()
        self._read = self._end = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self._states, self._index):
                path.open("ab").close()
            self._file = self._states.open("rb")
        except OSError as error:
            raise RunError(f"features.cache is {self.root}, cannot be written ({error})") from error

    def __len__(self) -> int:
        return len(self._places)

    @property
    def used(self) -> int:
        """Size of the files of all models in bytes."""
        return sum(os.stat(path).st_size for path in self.root.glob("*/*"))

    def refresh(self) -> None:
        """Read the records that other processes have added; start again if the folder was removed."""
        try:
            gone = not os.path.samestat(os.stat(self._states), os.fstat(self._file.fileno()))
            size = os.stat(self._index).st_size
        except FileNotFoundError:
            gone, size = True, 0
        if gone or size < self._read:
            self._forget()
        if size - self._read < RECORD.itemsize:
            return
        with self._index.open("rb") as file:
            file.seek(self._read)
            raw = file.read()
        raw = raw[: len(raw) // RECORD.itemsize * RECORD.itemsize]
        self._read += len(raw)
        records = np.frombuffer(raw, RECORD)
        records = records[_check(records) == records["check"]]  # half-written ones are skipped
        places = map(Place, *(records[name].tolist() for name in ("offset", "frames", "crc", "seconds")))
        new = dict(zip((bytes(key) for key in records["key"]), places, strict=True))
        self._checked -= new.keys()
        self._places |= new
        self._end = max([self._end, *(p.offset + self.size(p.frames) for p in new.values())])

    def size(self, frames: int) -> int:
        """Return the size of a block of that many frames in bytes."""
        return 2 * self.layers * self.width * frames

    def find(self, keys: Sequence[bytes]) -> list[Place | None]:
        """Return the places of the blocks of these keys, ``None`` for those that are not stored."""
        if not all(key in self._places for key in keys):
            self.refresh()
        places = [self._places.get(key) for key in keys]
        for place in places:  # let the disk fetch all of them while the first is copied
            if place is not None and hasattr(os, "posix_fadvise"):
                size = self.size(place.frames)
                os.posix_fadvise(self._file.fileno(), place.offset, size, os.POSIX_FADV_WILLNEED)
        return places

    def read(self, key: bytes, place: Place) -> Tensor | None:
        """Map the block of a key, float16 (L + 1, F, D); ``None`` if it is damaged."""
        before = place.offset % PAGE
        size = self.size(place.frames)
        try:
            window = mmap.mmap(
                self._file.fileno(), before + size, access=mmap.ACCESS_COPY, offset=place.offset - before
            )
        except (ValueError, OSError):  # the file is shorter than the index says
            window = None
        if window is not None and key not in self._checked:
            with memoryview(window) as view, view[before:] as block:
                if zlib.crc32(block) != place.crc:
                    window = None
        if window is None:
            self._places.pop(key, None)
            return None
        self._checked.add(key)
        states = torch.frombuffer(window, dtype=torch.float16, offset=before, count=size // 2)
        return states.view(self.layers, place.frames, self.width)

    def append(self, blocks: Iterable[Block]) -> int:
        """Store blocks that no other process has stored meanwhile.

        Once the limit is reached or the disk is full, nothing more is stored, and ``closed`` says why.

        Returns:
            Number of blocks stored.
        """
        if self.closed:
            return 0
        try:
            with waiting_lock(self.root / LOCK, PATIENCE):
                self.refresh()
                return self._append({b.key: b for b in blocks if b.key not in self._places})
        except TimeoutError:
            return 0
        except OSError as error:
            self.closed = f"they cannot be written ({error})"
            return 0

    def _append(self, blocks: dict[bytes, Block]) -> int:
        room = self.limit - self.used
        records, offset = [], self._end
        with self._states.open("r+b", buffering=0) as file:
            file.truncate(offset)  # cut off what a killed process left without a record
            file.seek(offset)
            for block in blocks.values():
                data = block.states.contiguous().view(-1).view(torch.uint8).numpy().data
                room -= len(data) + RECORD.itemsize
                if room < 0:
                    self.closed = f"the limit of {self.limit / 1e9:g} GB is reached"
                    break
                try:
                    _write(file.fileno(), data)
                except OSError:  # free the space of a full disk for others
                    file.truncate(self._end)
                    raise
                records.append((block.key, offset, block.states.shape[1], zlib.crc32(data), block.seconds, 0))
                offset += len(data)
        table = np.array(records, RECORD)
        table["check"] = _check(table)
        with self._index.open("r+b", buffering=0) as file:
            file.truncate(file.seek(0, os.SEEK_END) // RECORD.itemsize * RECORD.itemsize)
            file.seek(0, os.SEEK_END)
            _write(file.fileno(), memoryview(table.tobytes()))
        self.refresh()
        return len(records)


def _check(records: np.ndarray) -> np.ndarray:
    """Return the check words (N,) uint64 that N records must end with."""
    words = np.frombuffer(records.tobytes(), "<u8").reshape(-1, RECORD.itemsize // 8)
    return np.bitwise_xor.reduce(words[:, :-1], axis=1) ^ MAGIC


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]
