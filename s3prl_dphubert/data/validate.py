"""Check of a manifest that decodes every utterance."""

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
from .audio import TOLERANCE, decode
from .manifest import Entry, Manifest, Skipped

log = logging.getLogger(__name__)
CHUNK = 32  # utterances that a process checks at a time
CEILING = 0.9999  # samples of this magnitude or more count as clipped
CLIPPED_FILE = 0.01  # share of clipped samples above which a file is counted as clipped
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class _Finding:
    """Result for one utterance: samples at 16 kHz, clipped samples, and the fault if there is one."""

    samples: int = 0
    clipped: int = 0
    fault: str = ""


@dataclass(frozen=True)
class CheckReport:
    """Result of a check.

    Args:
        bad: unusable utterances and the reasons, in the order of the manifest.
        files: number of utterances in the manifest.
        seconds: total length of the good utterances.
        quantiles: 0, 5, 50, 95 and 100 % quantiles of the lengths of the good utterances in seconds; empty
            if there are none.
        clipped: share of the samples of good utterances that are at full scale.
        clipped_files: number of good utterances with more than 1 % of their samples at full scale.
    """

    bad: list[Skipped]
    files: int
    seconds: float
    quantiles: tuple[float, ...]
    clipped: float
    clipped_files: int

    def text(self) -> str:
        """Return a summary of a few lines, then a line for each bad utterance."""
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
    """Decode every utterance of a manifest; bad files do not stop the check.

    An utterance is bad if it cannot be read, has non-finite samples or only zeros, has another length than
    the manifest says, or is listed for the second time.

    Args:
        manifest: manifest to check.
        num_workers: processes that decode; 0 decodes in this one, where a file that crashes the
            decoder ends the check.
    """
    first: dict[str, Entry] = {}
    for entry in manifest.entries:
        first.setdefault(entry.path, entry)
    entries = list(first.values())
    chunks = [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
    findings: dict[str, _Finding] = {}
    with tqdm(total=len(entries), desc="check", unit="file", mininterval=0.5) as bar:
        for chunk, results in _inspect_all(chunks, num_workers):
            findings |= {entry.path: result for entry, result in zip(chunk, results, strict=True)}
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
    samples = clipped = 0
    silent = True
    try:
        for block in decode(entry.path):
            samples += len(block)
            clipped += int((np.abs(block) >= CEILING).sum())
            silent = silent and not block.any()
    except DataError as error:
        return _Finding(fault=Skipped.because(entry.path, error).reason)
    difference = samples - entry.samples
    if abs(difference) > TOLERANCE:
        kind = "longer" if difference > 0 else "shorter"
        fault = f"{kind} than listed: {samples} samples, the manifest says {entry.samples}"
        return _Finding(fault=fault)
    if silent:
        return _Finding(fault="silent, all samples are zero")
    return _Finding(samples, clipped)


def _inspect_all(chunks: list[list[Entry]], num_workers: int) -> Iterator[tuple[list[Entry], list[_Finding]]]:
    """Yield chunks with their findings, as they are completed."""
    if num_workers < 1:
        yield from ((chunk, _inspect(chunk)) for chunk in chunks)
        return
    suspects: list[list[Entry]] = []
    remaining = iter(chunks)
    while batch := list(islice(remaining, 16 * num_workers)):
        yield from _inspect_in_pool(batch, num_workers, suspects)
    # A crash ends all chunks in progress; a process for each file shows which of them caused it.
    for chunk in suspects:
        yield chunk, [_inspect_alone(entry) for entry in chunk]


def _inspect_in_pool(
    chunks: list[list[Entry]], num_workers: int, suspects: list[list[Entry]]
) -> Iterator[tuple[list[Entry], list[_Finding]]]:
    """Yield chunks with their findings; those that were in progress at a crash go to ``suspects``."""
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


def _inspect_alone(entry: Entry) -> _Finding:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(_inspect_one, entry).result()
    except BrokenProcessPool:
        log.warning("%s: crashes the decoder", entry.path)
        return _Finding(fault="crashes the decoder")
