"""Manifests: lists of audio files with their lengths."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..errors import DataError
from .audio import SAMPLE_RATE, SUFFIXES, probe, read

HEADER = "path\tsamples"


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
            lines = Path(path).read_text(encoding="utf8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not readable as a manifest ({error})") from error
        if not lines or lines[0] != HEADER:
            first = lines[0][:60] if lines else ""
            raise DataError(f"{path}: line 1 is {first!r}, expected the columns path and samples")
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            name, tab, samples = line.rpartition("\t")
            if not (tab and name and samples.isascii() and samples.isdigit() and int(samples) > 0):
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
            DataError: another file is there and ``overwrite`` is off.
        """
        _write(Path(path), HEADER, ((entry.path, str(entry.samples)) for entry in self.entries), overwrite)


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
        DataError: a folder does not exist, holds no usable audio, or a split stayed empty.
    """
    paths = _find(folders)
    names = {**dict(splits or {}), "": "*"}
    entries: dict[str, list[Entry]] = {name: [] for name in names}
    skipped = []
    for path in tqdm(paths, desc="manifest", unit="file", mininterval=0.5):
        try:
            samples = len(read(path)) if check else probe(path).samples_16k
        except DataError as error:
            skipped.append(Skipped(path, str(error).removeprefix(f"{path}: ")))
            continue
        if samples < min_seconds * SAMPLE_RATE:
            skipped.append(Skipped(path, f"too short ({samples / SAMPLE_RATE:.3f} s)"))
            continue
        name = next(name for name, glob in names.items() if fnmatch.fnmatch(path, glob))
        entries[name].append(Entry(path, samples))
    if not any(entries.values()):
        raise DataError(
            f"none of {len(paths)} files can be used, the first: {skipped[0].path}: {skipped[0].reason}"
        )
    for name, found in entries.items():
        if name and not found:
            raise DataError(f"split {name}: the glob {names[name]!r} matches no usable file")
    return {name: Manifest(tuple(found)) for name, found in entries.items() if found}, skipped


def write(
    out: str | Path, manifests: Mapping[str, Manifest], skipped: Sequence[Skipped], overwrite: bool = False
) -> str:
    """Write ``OUT``, ``OUT.NAME.tsv`` for every split and ``OUT.skipped.tsv``; returns a summary."""
    out = Path(out)
    lines = []
    for name, manifest in sorted(manifests.items()):
        path = out if not name else out.with_suffix(f".{name}.tsv")
        manifest.save(path, overwrite)
        lines.append(f"{path}  {len(manifest.entries)} files, {manifest.seconds / 60:.1f} min")
    if skipped:
        path = out.with_suffix(".skipped.tsv")
        _write(path, "path\treason", ((bad.path, bad.reason) for bad in skipped), overwrite)
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
        files = (Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names)
        found = {os.path.abspath(file) for file in files if file.suffix.lower() in SUFFIXES}
        if not found:
            raise DataError(f"{folder}: holds no audio, searched for {', '.join(sorted(SUFFIXES))}")
        paths |= found
    return sorted(paths)


def _write(path: Path, header: str, rows: Iterable[tuple[str, str]], overwrite: bool) -> None:
    text = "".join(f"{line}\n" for line in [header, *("\t".join(row) for row in rows)])
    if path.exists() and not overwrite and path.read_text(encoding="utf8") != text:
        raise DataError(f"{path}: exists already with other content; choose another place or overwrite it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf8")
    os.replace(partial, path)
