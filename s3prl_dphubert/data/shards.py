"""Tar shards of speech, as WebDataset packs them; each utterance is read by one ranged request.

An utterance in a shard has the path ``SHARD.tar#OFFSET+SIZE/NAME``, where OFFSET and SIZE are the
bytes of its data in the shard, for example::

    /data/train-000.tar#1536+20480/dev-clean/84-121123-0001.flac
    s3://bucket/train-000.tar#1536+20480/84-121123-0001.flac

NAME comes last, so that globs over folders and suffixes work as for plain files.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO

from ..errors import DataError
from . import remote_files
from .remote_files import readable

SUFFIX = ".tar"
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
MEMBER = re.compile(
    r"(?P<shard>.+?\.tar)#(?P<offset>[0-9]{1,15})\+(?P<size>[0-9]{1,15})/(?P<name>.+)", re.I | re.DOTALL
)
BLOCK = tarfile.BLOCKSIZE
PACKED = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\0", "zstd": b"(\xb5/\xfd"}  # first bytes
NAME_BYTES = 100  # the header holds only the beginning of longer names


@dataclass(frozen=True)
class Member:
    """A file in a shard.

    Args:
        shard: path or URL of the tar.
        offset: first byte of the file's data.
        size: number of bytes.
        name: name in the tar.
    """

    shard: str
    offset: int
    size: int
    name: str

    @classmethod
    def parse(cls, path: str) -> Member | None:
        """Parse the path of an utterance; ``None`` for that of an ordinary file."""
        match = MEMBER.fullmatch(path)
        return match and cls(match["shard"], int(match["offset"]), int(match["size"]), match["name"])

    def __str__(self) -> str:
        return f"{self.shard}#{self.offset}+{self.size}/{self.name}"

    def fetch(self) -> bytes:
        """Read the file's bytes, together with the header before them in order to check it.

        Raises:
            DataError: the shard is missing or truncated, or holds another file there.
        """
        with readable(str(self)):
            start = self.offset - BLOCK
            data = remote_files.fetch(self.shard, start, BLOCK + self.size) if start >= 0 else b""
            try:
                header = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise DataError(f"{self}: the shard has changed, no member begins there") from error
            renamed = header.name != self.name and self.name.isascii() and len(self.name) <= NAME_BYTES
            if header.size != self.size or renamed:
                actual = f"{header.name} of {header.size} bytes"
                raise DataError(f"{self}: the shard has changed, it holds {actual} there")
            if len(data) < BLOCK + self.size:
                raise DataError(f"{self}: the shard is cut off after {len(data) - BLOCK} bytes of it")
            return data[BLOCK:]


def is_shard(path: str) -> bool:
    """Return whether a path is that of an uncompressed tar."""
    return path.lower().endswith(SUFFIX)


def members(shard: str, suffixes: Collection[str]) -> Iterator[tuple[Member, bytes]]:
    """Yield the files of a shard that have one of the suffixes, with their bytes, in one pass.

    Links and sparse files are skipped, since WebDataset has none.

    Raises:
        DataError: the shard is unreadable, compressed, damaged, truncated or without such a file; files
            before the damage have been yielded by then.
    """
    with readable(shard), remote_files.opened(shard) as file:
        end = file.seek(0, os.SEEK_END)
        _refuse_compressed(shard, file)
        count = 0
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # there may be 300,000
                suffix = os.path.splitext(info.name)[1].lower()
                if suffix not in suffixes or not info.isreg() or info.issparse():
                    continue
                member = Member(shard, info.offset_data, info.size, info.name)
                if member.offset + member.size > end:
                    raise DataError(f"{shard}: cut off in {member.name}")
                if member.size > remote_files.MAX_BYTES:
                    allowed = f"allowed: {remote_files.MAX_BYTES} bytes"
                    raise DataError(f"{shard}: {member.name} has {member.size} bytes, {allowed}")
                file.seek(member.offset)
                yield member, file.read(member.size)
                count += 1
            stop = tar.offset
        # tarfile mistakes damage between two members for the end.
        file.seek(stop)
        if file.read(BLOCK) != bytes(BLOCK):
            raise DataError(f"{shard}: damaged or cut off after {stop} of {end} bytes")
        if not count:
            raise DataError(f"{shard}: holds no audio, searched for {', '.join(sorted(suffixes))}")


def _refuse_compressed(shard: str, file: IO[bytes]) -> None:
    """Raise an error for a compressed tar, whatever its name: it cannot be read from the middle."""
    file.seek(0)
    head = file.read(6)
    file.seek(0)
    for kind, magic in PACKED.items():
        if head.startswith(magic):
            raise DataError(f"{shard}: is compressed ({kind}), which has no random access; uncompress it")
