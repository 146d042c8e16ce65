"""Manifests: lists of audio files with their lengths."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import DataError
from ..utils.files import replacing
from . import remote_files
from .audio import MAX_SECONDS, SUFFIXES, decode, probe
from .shards import MEMBER, Member, is_shard, members
from .sources import expand, find

HEADER = "path\tsamples"
MAX_SAMPLES = MAX_SECONDS * SAMPLE_RATE  # of an utterance
THREADS, CHUNK = 16, 64  # threads that check headers, and files that each takes at a time
MAX_DIGITS = 15  # of a sample count; int() refuses very long numbers


@dataclass(frozen=True, slots=True)  # of which a manifest may have millions
class Entry:
    """An utterance: its absolute path, URL or place in a shard, and its samples at 16 kHz."""

    path: str
    samples: int


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and the reason."""

    path: str
    reason: str

    @classmethod
    def because(cls, path: str, error: DataError) -> Skipped:
        """Take an error's message as the reason, without the path that it begins with."""
        return cls(path, str(error).removeprefix(f"{path}: "))


@dataclass(frozen=True)
class Manifest:
    """Utterances in a fixed order."""

    entries: tuple[Entry, ...]

    @property
    def seconds(self) -> float:
        """Total length of all utterances in seconds."""
        return sum(entry.samples for entry in self.entries) / SAMPLE_RATE

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest.

        Raises:
            DataError: the file is missing, empty or malformed; the message names the line.
        """
        try:
            # Not splitlines: a file name may hold other line ends, such as U+2028.
            lines = Path(path).read_text(encoding="utf8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not readable as a manifest ({error})") from error
        if lines[0] != HEADER:
            raise DataError(f"{path}: line 1 is {lines[0][:60]!r}, expected the columns path and samples")
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            name, tab, samples = line.rpartition("\t")
            is_count = samples.isascii() and samples.isdigit() and len(samples) <= MAX_DIGITS
            if not (tab and name and is_count and 0 < int(samples) <= MAX_SAMPLES):
                expected = f"a path, a tab and a sample count from 1 to {MAX_SAMPLES}"
                raise DataError(f"{path}: line {number} is {line[:80]!r}, expected {expected}")
            entries.append(Entry(name, int(samples)))
        if not entries:
            raise DataError(f"{path}: lists no audio")
        return cls(tuple(entries))

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the manifest atomically.

        Raises:
            DataError: the file exists with other content and ``overwrite`` is off, or it cannot be written.
        """
        _write({Path(path): self._text()}, overwrite)

    def _text(self) -> str:
        return _table(HEADER, ((entry.path, str(entry.samples)) for entry in self.entries))


def scan(
    sources: Sequence[str | Path],
    min_seconds: float = 0.1,
    splits: Mapping[str, str] | None = None,
    check: bool = False,
) -> tuple[dict[str, Manifest], list[Skipped]]:
    """List the audio in folders, files and tar shards, sorted by path and by place in a shard.

    Args:
        sources: as for :func:`.sources.find`; folders are searched recursively.
        min_seconds: shorter utterances are skipped.
        splits: name -> glob over the path, or name of a folder on it, with or without braces:
            ``{"valid": "{dev-clean,dev-other}"}``. An utterance goes to the first split that matches.
        check: decode every utterance rather than only reading its header.

    Returns:
        Split name -> manifest, with ``""`` for utterances that no glob matches; and the skipped files.

    Raises:
        DataError: a source is missing or holds no usable audio, or a split is empty or has an invalid name.
    """
    _check_splits(splits or {})
    paths = find(sources)
    globs = {name: _globs(glob) for name, glob in {**(splits or {}), "": "*"}.items()}
    entries: dict[str, list[Entry]] = {name: [] for name in globs}
    skipped: list[Skipped] = []
    total = None if any(map(is_shard, paths)) else len(paths)
    utterances = _utterances(paths, skipped)
    for path, data in tqdm(utterances, desc="manifest", unit="file", total=total, mininterval=0.5):
        try:
            samples = _measure(path, data, min_seconds, check)
        except DataError as error:
            skipped.append(Skipped.because(path, error))
            continue
        name = next(n for n, g in globs.items() if any(fnmatch.fnmatch(path, one) for one in g))
        entries[name].append(Entry(path, samples))
    if not any(entries.values()):
        first = skipped[0]
        raise DataError(f"none of {len(skipped)} files can be used, the first: {first.path}: {first.reason}")
    for name, listed in entries.items():
        if name and not listed:
            raise DataError(f"split {name}: the glob {(splits or {})[name]!r} matches no usable file")
    return {name: Manifest(tuple(listed)) for name, listed in entries.items() if listed}, skipped


def write(
    out: str | Path, manifests: Mapping[str, Manifest], skipped: Sequence[Skipped], overwrite: bool = False
) -> str:
    """Write manifests and the list of skipped files.

    Args:
        out: path of the manifest without a split name; ``STEM.NAME.tsv`` beside it for each split, and
            ``STEM.skipped.tsv``.
        manifests: split name -> manifest.
        skipped: files that were left out.
        overwrite: replace existing files.

    Returns:
        A summary with a line for each file.

    Raises:
        DataError: a file exists with other content and ``overwrite`` is off; then none is written.
    """
    out = Path(out)
    texts, lines = {}, []
    for name, manifest in sorted(manifests.items()):
        path = out if not name else out.with_suffix(f".{name}.tsv")
        texts[path] = manifest._text()
        lines.append(f"{path}  {len(manifest.entries)} files, {manifest.seconds / 60:.1f} min")
    path = out.with_suffix(".skipped.tsv")
    texts[path] = _table("path\treason", ((_escape(bad.path), _escape(bad.reason)) for bad in skipped))
    _write(texts, overwrite)
    if skipped:
        lines.append(f"{path}  {len(skipped)} files skipped, the first: {skipped[0].reason}")
    return "\n".join(lines)


def check_headers(manifest: Manifest, max_bad_fraction: float) -> list[Skipped]:
    """Check every file without decoding it, and return the bad ones.

    Of a shard only the size is checked, since reading the header of a member means reading all of it. Threads
    share the work, as files on a network are slow to answer.

    Raises:
        DataError: more than ``max_bad_fraction`` of the files are bad.
    """
    bad: list[Skipped] = []
    sizes: dict[str, int | str] = {}

    def check(entries: Sequence[Entry]) -> list[Skipped]:
        faults = []
        for entry in entries:
            try:
                _check_header(entry.path, sizes)
            except DataError as error:
                faults.append(Skipped.because(entry.path, error))
        return faults

    chunks = [manifest.entries[start : start + CHUNK] for start in range(0, len(manifest.entries), CHUNK)]
    with (
        tqdm(total=len(manifest.entries), desc="check", unit="file", mininterval=0.5) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for chunk, faults in zip(chunks, pool.map(check, chunks), strict=True):
            bad += faults
            bar.update(len(chunk))
    if len(bad) > max_bad_fraction * len(manifest.entries):
        some = "; ".join(f"{item.path}: {item.reason}" for item in bad[:3])
        share = f"{len(bad)} of {len(manifest.entries)} files are bad, allowed: {max_bad_fraction:.0%}"
        raise DataError(f"{share}; {some}")
    return bad


def _check_header(path: str, sizes: dict[str, int | str]) -> None:
    """Probe a local file; look up the size or the fault of a shard or URL once, and keep it in ``sizes``."""
    member = Member.parse(path)
    if not member and not remote_files.is_url(path):
        probe(path)
        return
    place = member.shard if member else path
    if place not in sizes:
        try:
            with remote_files.readable(place):
                sizes[place] = remote_files.length(place)
        except DataError as error:
            sizes[place] = str(error).removeprefix(f"{path}: ")
    size = sizes[place]
    if isinstance(size, str):
        raise DataError(f"{path}: {size}")
    if member and member.offset + member.size > size:
        raise DataError(f"{path}: the shard is cut off, it has {size} bytes")


def _utterances(paths: Sequence[str], skipped: list[Skipped]) -> Iterator[tuple[str, bytes | None]]:
    """Yield the paths of all utterances, with their bytes if they lie in a shard; note damaged shards."""
    for path in paths:
        if not is_shard(path):
            yield path, None
            continue
        try:
            for member, data in members(path, SUFFIXES):
                yield str(member), data
        except DataError as error:
            skipped.append(Skipped.because(path, error))


def _globs(glob: str) -> list[str]:
    """Turn a split's glob into globs over a whole path; without wildcards it also names a folder on it."""
    parts = expand(glob)
    return parts + [f"*/{part.strip('/')}/*" for part in parts if not remote_files.MAGIC.search(part)]


def _measure(path: str, data: bytes | None, min_seconds: float, check: bool) -> int:
    """Return the samples at 16 kHz of a usable file."""
    _check_name(path, inside=data is not None)
    samples = sum(map(len, decode(path, data))) if check else probe(path, data).samples_16k
    if samples < min_seconds * SAMPLE_RATE:
        raise DataError(f"{path}: too short ({samples / SAMPLE_RATE:.3f} s)")
    return samples


def _check_splits(splits: Iterable[str]) -> None:
    for name in splits:
        if not re.fullmatch(r"[\w-]+", name) or name == "skipped":
            raise DataError(f"split is {name!r}, allowed: letters, digits, _ and -, but not 'skipped'")


def _check_name(path: str, inside: bool) -> None:
    if not inside and MEMBER.fullmatch(path):
        raise DataError(f"{path}: its name looks like a place inside a shard; rename it")
    if re.search(r"[\t\r\n\ud800-\udfff]", path):
        raise DataError(
            f"{path}: its name holds a tab, a line end or invalid UTF-8, which a manifest cannot hold"
        )


def _escape(text: str) -> str:
    """Escape what a column of a table cannot hold."""
    text = text.encode("utf8", "backslashreplace").decode("utf8")
    return text.replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


def _table(header: str, rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{line}\n" for line in [header, *("\t".join(row) for row in rows)])


def _write(texts: Mapping[Path, str], overwrite: bool) -> None:
    """Write every file atomically, or none if one of them may not be overwritten."""
    try:
        for path, text in texts.items():
            if path.exists() and not overwrite and path.read_bytes() != text.encode("utf8"):
                raise DataError(f"{path}: exists already with other content; choose another or overwrite it")
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_bytes(text.encode("utf8"))
    except (OSError, UnicodeEncodeError) as error:
        raise DataError(f"{path}: cannot be written ({error})") from error
