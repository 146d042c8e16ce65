"""Manifests: lists of audio files with their lengths."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import DataError
from ..utils.files import replacing
from . import remote_files
from .audio import SUFFIXES, probe, read
from .shards import MEMBER, Member, is_shard, members
from .sources import expand, find

HEADER = "path\tsamples"
DIGITS = 15  # of a sample count at most; more is no length, and int() refuses very long numbers


@dataclass(frozen=True)
class Entry:
    """One utterance: its absolute path, URL or place in a shard, and its samples at 16 kHz."""

    path: str
    samples: int


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str

    @classmethod
    def because(cls, path: str, error: DataError) -> Skipped:
        """Without the path at the front of the error's text."""
        return cls(path, str(error).removeprefix(f"{path}: "))


@dataclass(frozen=True)
class Manifest:
    """Utterances in a fixed order."""

    entries: tuple[Entry, ...]

    @property
    def seconds(self) -> float:
        """Length of all utterances together."""
        return sum(entry.samples for entry in self.entries) / SAMPLE_RATE

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest.

        Raises:
            DataError: it is missing, empty or malformed; the message names the line.
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
            number_ok = samples.isascii() and samples.isdigit() and len(samples) <= DIGITS
            if not (tab and name and number_ok and int(samples) > 0):
                raise DataError(
                    f"{path}: line {number} is {line[:80]!r}, expected a path, a tab and a sample count"
                )
            entries.append(Entry(name, int(samples)))
        if not entries:
            raise DataError(f"{path}: lists no audio")
        return cls(tuple(entries))

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the manifest atomically.

        Raises:
            DataError: another file is there and ``overwrite`` is off, or it cannot be written.
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
    """List the audio in folders, files and tar shards, sorted by path, in a shard by place.

    Args:
        sources: as for :func:`.sources.find`; folders are searched recursively.
        min_seconds: shorter utterances are skipped.
        splits: name -> glob over the path, or the name of a folder on it; either may hold braces:
            ``{"valid": "{dev-clean,dev-other}"}``. The first that matches takes the utterance.
        check: decode every utterance once instead of reading its header only.

    Returns:
        Manifests by split name, ``""`` for utterances that no glob matches; and the skipped files.

    Raises:
        DataError: a source is missing or holds no usable audio, or a split is empty or badly named.
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
    for name, found in entries.items():
        if name and not found:
            raise DataError(f"split {name}: the glob {(splits or {})[name]!r} matches no usable file")
    return {name: Manifest(tuple(found)) for name, found in entries.items() if found}, skipped


def write(
    out: str | Path, manifests: Mapping[str, Manifest], skipped: Sequence[Skipped], overwrite: bool = False
) -> str:
    """Write ``OUT``, ``STEM.NAME.tsv`` for every split and ``STEM.skipped.tsv``; returns a summary.

    Raises:
        DataError: one of them is there with other content and ``overwrite`` is off; then none is written.
    """
    out = Path(out)
    texts, lines = {}, []
    for name, manifest in sorted(manifests.items()):
        path = out if not name else out.with_suffix(f".{name}.tsv")
        texts[path] = manifest._text()
        lines.append(f"{path}  {len(manifest.entries)} files, {manifest.seconds / 60:.1f} min")
    path = out.with_suffix(".skipped.tsv")
    texts[path] = _table("path\treason", ((_shown(bad.path), _shown(bad.reason)) for bad in skipped))
    _write(texts, overwrite)
    if skipped:
        lines.append(f"{path}  {len(skipped)} files skipped, the first: {skipped[0].reason}")
    return "\n".join(lines)


def check_headers(manifest: Manifest, max_bad_fraction: float) -> list[Skipped]:
    """Look at every file without decoding it; returns the bad ones.

    Of a shard only its size is looked at: to read the header of a member is to read all of it.

    Raises:
        DataError: more than ``max_bad_fraction`` of them are bad.
    """
    bad = []
    sizes: dict[str, int | str] = {}
    for entry in tqdm(manifest.entries, desc="check", unit="file", mininterval=0.5):
        try:
            _check_header(entry.path, sizes)
        except DataError as error:
            bad.append(Skipped.because(entry.path, error))
    if len(bad) > max_bad_fraction * len(manifest.entries):
        some = "; ".join(f"{item.path}: {item.reason}" for item in bad[:3])
        share = f"{len(bad)} of {len(manifest.entries)} files are bad, allowed: {max_bad_fraction:.0%}"
        raise DataError(f"{share}; {some}")
    return bad


def _check_header(path: str, sizes: dict[str, int | str]) -> None:
    """Probe a file here; of a shard or URL ask the size or the fault, once, and keep it in ``sizes``."""
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
    """Paths of all utterances, with their bytes where a shard was read anyway; damaged shards are noted."""
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
    """Globs over a whole path; a name without any of their signs is one of a folder on the path too."""
    parts = expand(glob)
    return parts + [f"*/{part.strip('/')}/*" for part in parts if not remote_files.MAGIC.search(part)]


def _measure(path: str, data: bytes | None, min_seconds: float, check: bool) -> int:
    """Samples at 16 kHz of a file that may be used."""
    _check_name(path, inside=data is not None)
    samples = len(read(path, data=data)) if check else probe(path, data).samples_16k
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
        raise DataError(f"{path}: its name holds a tab, a line end or no UTF-8, which a manifest cannot")


def _shown(text: str) -> str:
    """Text fit for a column: what a table cannot hold is escaped."""
    text = text.encode("utf8", "backslashreplace").decode("utf8")
    return text.replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


def _table(header: str, rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{line}\n" for line in [header, *("\t".join(row) for row in rows)])


def _write(texts: Mapping[Path, str], overwrite: bool) -> None:
    """Write every file atomically, or none if one may not be overwritten."""
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
