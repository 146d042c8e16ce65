"""Manifests: lists of audio files with their lengths."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..errors import DataError
from ..files import replacing
from .audio import SAMPLE_RATE, SUFFIXES, probe, read

HEADER = "path\tsamples"
DIGITS = 15  # of a sample count at most; more is no length, and int() refuses very long numbers


@dataclass(frozen=True)
class Entry:
    """One utterance: absolute path, samples at 16 kHz."""

    path: str
    samples: int


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str


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
    folders: Sequence[str | Path],
    min_seconds: float = 0.1,
    splits: Mapping[str, str] | None = None,
    check: bool = False,
) -> tuple[dict[str, Manifest], list[Skipped]]:
    """List the audio below folders, sorted by path.

    Args:
        folders: searched recursively.
        min_seconds: shorter files are skipped.
        splits: name -> glob over the path; the first that matches takes the file.
        check: decode every file once instead of reading its header only.

    Returns:
        Manifests by split name, ``""`` for files that no glob matches; and the skipped files.

    Raises:
        DataError: a folder is missing or holds no usable audio, or a split is empty or badly named.
    """
    _check_splits(splits or {})
    paths = _find(folders)
    names = {**(splits or {}), "": "*"}
    entries: dict[str, list[Entry]] = {name: [] for name in names}
    skipped = []
    for path in tqdm(paths, desc="manifest", unit="file", mininterval=0.5):
        try:
            samples = _measure(path, min_seconds, check)
        except DataError as error:
            skipped.append(Skipped(path, str(error).removeprefix(f"{path}: ")))
            continue
        name = next(name for name, glob in names.items() if fnmatch.fnmatch(path, glob))
        entries[name].append(Entry(path, samples))
    if not any(entries.values()):
        first = skipped[0]
        raise DataError(f"none of {len(paths)} files can be used, the first: {first.path}: {first.reason}")
    for name, found in entries.items():
        if name and not found:
            raise DataError(f"split {name}: the glob {names[name]!r} matches no usable file")
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
    """Probe every file; returns the bad ones.

    Raises:
        DataError: more than ``max_bad_fraction`` of them are bad.
    """
    bad = []
    for entry in tqdm(manifest.entries, desc="check", unit="file", mininterval=0.5):
        try:
            probe(entry.path)
        except DataError as error:
            bad.append(Skipped(entry.path, str(error).removeprefix(f"{entry.path}: ")))
    if len(bad) > max_bad_fraction * len(manifest.entries):
        some = "; ".join(f"{item.path}: {item.reason}" for item in bad[:3])
        share = f"{len(bad)} of {len(manifest.entries)} files are bad, allowed: {max_bad_fraction:.0%}"
        raise DataError(f"{share}; {some}")
    return bad


def _find(folders: Sequence[str | Path]) -> list[str]:
    paths: set[str] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        found = {os.path.abspath(file) for file in _walk(folder) if file.suffix.lower() in SUFFIXES}
        if not found:
            raise DataError(f"{folder}: holds no audio, searched for {', '.join(sorted(SUFFIXES))}")
        paths |= found
    once: dict[str, str] = {}
    for path in sorted(paths):
        once.setdefault(os.path.realpath(path), path)
    return list(once.values())


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder; links are followed, but no folder is entered twice, so loops end."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(root, name) for name in names)


def _measure(path: str, min_seconds: float, check: bool) -> int:
    """Samples at 16 kHz of a file that may be used."""
    _check_name(path)
    samples = len(read(path)) if check else probe(path).samples_16k
    if samples < min_seconds * SAMPLE_RATE:
        raise DataError(f"{path}: too short ({samples / SAMPLE_RATE:.3f} s)")
    return samples


def _check_splits(splits: Iterable[str]) -> None:
    for name in splits:
        if not re.fullmatch(r"[\w-]+", name) or name == "skipped":
            raise DataError(f"split is {name!r}, allowed: letters, digits, _ and -, but not 'skipped'")


def _check_name(path: str) -> None:
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
