"""A check that decodes every utterance of a manifest once and tells what is wrong with which."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import DataError
from .audio import TOLERANCE, read
from .manifest import Entry, Manifest, Skipped

log = logging.getLogger(__name__)
CHUNK = 32  # utterances a process is given at a time
CEILING = 0.9999  # a sample this large or larger counts as clipped
CLIPPED_FILE = 0.01  # share of clipped samples above which a file is counted as clipped
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class _Finding:
    """What one utterance is like: samples decoded and clipped, and the fault if there is one."""

    samples: int = 0
    clipped: int = 0
    fault: str = ""


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        bad: utterances not to be used, and why, in the order of the manifest.
        files: utterances in the manifest.
        seconds: length of the good ones together.
        quantiles: seconds below which 0, 5, 50, 95 and 100 % of the good ones are long; none if
            there are no good ones.
        clipped: share of all good samples at full scale.
        clipped_files: good utterances with more than 1 % of their samples at full scale.
    """

    bad: list[Skipped]
    files: int
    seconds: float
    quantiles: tuple[float, ...]
    clipped: float
    clipped_files: int

    def text(self) -> str:
        """A summary of a few lines, then one line for each bad utterance."""
        lines = [f"{self.files - len(self.bad)} of {self.files} utterances are good, {len(self.bad)} are bad"]
        lines.append(f"{self.seconds / 3600:.2f} h of good audio")
        if self.quantiles:
            shown = ", ".join(f"{q:.0%} {s:.2f} s" for q, s in zip(QUANTILES, self.quantiles, strict=True))
            lines.append(f"lengths: {shown}")
        lines.append(
            f"clipped: {self.clipped:.3%} of the samples; more than {CLIPPED_FILE:.0%} of them in "
            f"{self.clipped_files} utterances"
        )
        return "\n".join([*lines, *(f"bad: {item.path}: {item.reason}" for item in self.bad)])


def check(manifest: Manifest, num_workers: int = 0) -> CheckReport:
    """Decode every utterance of a manifest once; no bad file stops it.

    Bad is what cannot be read, holds non-finite samples or nothing but zeros, is not as long as the
    manifest says, or is listed for the second time.

    Args:
        manifest: what to check.
        num_workers: processes that decode; 0 decodes in this one, where a file that crashes the
            decoder would end the check.
    """
    first: dict[str, Entry] = {}
    for entry in manifest.entries:
        first.setdefault(entry.path, entry)
    entries = list(first.values())
    chunks = [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
    findings: dict[str, _Finding] = {}
    with tqdm(total=len(entries), desc="check", unit="file", mininterval=0.5) as bar:
        for chunk, found in _inspected(chunks, num_workers):
            findings |= {entry.path: finding for entry, finding in zip(chunk, found, strict=True)}
            bar.update(len(chunk))
    return _report(manifest, findings)


def _report(manifest: Manifest, findings: dict[str, _Finding]) -> CheckReport:
    bad, good, seen = [], [], set()
    for entry in manifest.entries:
        finding = findings[entry.path]
        if entry.path in seen:
            bad.append(Skipped(entry.path, "is listed more than once"))
        elif finding.fault:
            bad.append(Skipped(entry.path, finding.fault))
        else:
            good.append(finding)
        seen.add(entry.path)
    samples = np.array([finding.samples for finding in good], dtype=np.int64)
    clipped = np.array([finding.clipped for finding in good], dtype=np.int64)
    return CheckReport(
        bad=bad,
        files=len(manifest.entries),
        seconds=float(samples.sum()) / SAMPLE_RATE,
        quantiles=tuple((np.quantile(samples, QUANTILES) / SAMPLE_RATE).tolist()) if good else (),
        clipped=float(clipped.sum() / samples.sum()) if good else math.nan,
        clipped_files=int((clipped > CLIPPED_FILE * samples).sum()),
    )


def _inspect(entries: Sequence[Entry]) -> list[_Finding]:
    return [_inspect_one(entry) for entry in entries]


def _inspect_one(entry: Entry) -> _Finding:
    try:
        audio = read(entry.path)
    except DataError as error:
        return _Finding(fault=Skipped.because(entry.path, error).reason)
    difference = len(audio) - entry.samples
    if abs(difference) > TOLERANCE:
        kind = "longer" if difference > 0 else "shorter"
        fault = f"{kind} than listed: {len(audio)} samples, the manifest says {entry.samples}"
        return _Finding(fault=fault)
    if not audio.any():
        return _Finding(fault="silent, all samples are zero")
    return _Finding(len(audio), int((np.abs(audio) >= CEILING).sum()))


def _inspected(chunks: list[list[Entry]], num_workers: int) -> Iterator[tuple[list[Entry], list[_Finding]]]:
    """Chunks with their findings, as they get ready."""
    if num_workers < 1:
        yield from ((chunk, _inspect(chunk)) for chunk in chunks)
        return
    suspects: list[list[Entry]] = []
    left = iter(chunks)
    while batch := list(islice(left, 16 * num_workers)):
        yield from _pooled(batch, num_workers, suspects)
    # A crash takes down every chunk under way; alone in its process, each shows whose fault it was.
    for chunk in suspects:
        yield chunk, [_isolated(entry) for entry in chunk]


def _pooled(
    chunks: list[list[Entry]], num_workers: int, suspects: list[list[Entry]]
) -> Iterator[tuple[list[Entry], list[_Finding]]]:
    """Chunks with their findings; those that a crash took down go to ``suspects``."""
    with ProcessPoolExecutor(num_workers) as pool:
        futures: dict[Future[list[_Finding]], list[Entry]] = {}
        try:
            for chunk in chunks:
                futures[pool.submit(_inspect, chunk)] = chunk
        except BrokenProcessPool:
            suspects += chunks[len(futures) :]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:
                    suspects.append(futures[future])


def _isolated(entry: Entry) -> _Finding:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(_inspect_one, entry).result()
    except BrokenProcessPool:
        log.warning("%s: crashes the decoder", entry.path)
        return _Finding(fault="crashes the decoder")
