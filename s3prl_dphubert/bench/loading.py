"""Benchmark of data loading: the audio that reaches a trainer per second, from files to batches.

``python -m s3prl_dphubert.bench.loading [MANIFEST]``; without a manifest, FLAC files of 8 to 16 s are made
from the embedded speech. The files are in the page cache, so that decoding is measured rather than the disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..data.batches import BatchConfig, BatchStream, loader
from ..data.manifest import Manifest, scan
from ..utils import resources


def make_corpus(folder: Path, files: int = 120, seed: int = 0) -> Manifest:
    """Write FLAC files of embedded speech, 8 to 16 s each, and return their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    clips = [read(path) for path in sorted(resources.find("assets/speech").rglob("*.ogg"))]
    for number in range(files):
        length = int(random.uniform(8, 16) * SAMPLE_RATE)
        audio = np.concatenate([clips[i] for i in random.permutation(len(clips))])[:length]
        soundfile.write(folder / f"{number:04d}.flac", audio, SAMPLE_RATE)
    return scan([folder])[0][""]


def rates(stream: BatchStream, batches: int, workers: int) -> tuple[float, float]:
    """Return the seconds of audio per wall-clock second, and per CPU second of this process."""
    warm_up = max(1, 2 * workers)
    audio, began = 0.0, (0.0, 0.0)
    for index, batch in enumerate(loader(stream, 0, warm_up + batches, workers)):
        if index < warm_up:
            began = time.perf_counter(), time.process_time()
        else:
            audio += batch.waveforms.numel() / SAMPLE_RATE
    return audio / (time.perf_counter() - began[0]), audio / (time.process_time() - began[1])


def table(manifest: Manifest, seconds: float, batches: int, workers: list[int]) -> str:
    """Tabulate the audio-seconds per second for each number of reader processes, in Markdown.

    The rate per CPU second of the training process shows what a free core would achieve or, with reader
    processes, how much work is left to the trainer.

    Args:
        manifest: audio to read.
        seconds: audio per batch.
        batches: batches to time.
        workers: numbers of reader processes.
    """
    stream = BatchStream(manifest, BatchConfig(seconds_per_batch=seconds))
    lines = [f"| processes that read | audio-s/s, batches of {seconds:g} s | a CPU second of the trainer |"]
    lines.append("|---|---|---|")
    for count in workers:
        wall, cpu = rates(stream, batches, count)
        lines.append(f"| {count} | {wall:,.0f} | {cpu:,.0f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.loading", description=__doc__)
    parser.add_argument("manifest", nargs="?", type=Path, help="a .tsv file")
    parser.add_argument("--seconds", type=float, default=160.0, help="audio a micro-batch (default 160)")
    parser.add_argument("--batches", type=int, default=30, help="micro-batches to time (default 30)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes (default 0 1 2)")
    arguments = parser.parse_args(argv)
    settings = arguments.seconds, arguments.batches, arguments.workers
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.manifest
        manifest = make_corpus(Path(folder)) if path is None else Manifest.load(path)
        print(table(manifest, *settings))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
