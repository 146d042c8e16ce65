"""How much audio a second reaches a trainer: from files to batches, through the loader and its processes.

``python -m s3prl_dphubert.bench.loading [MANIFEST]``; without one, FLAC files of 8 to 16 s are made of the
embedded speech. The files are in the page cache, so that decoding is measured and no disk.
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
    """Write FLAC files of embedded speech, each 8 to 16 s, and list them."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    clips = [read(path) for path in sorted(resources.find("assets/speech").rglob("*.ogg"))]
    for number in range(files):
        wanted = int(random.uniform(8, 16) * SAMPLE_RATE)
        audio = np.concatenate([clips[i] for i in random.permutation(len(clips))])[:wanted]
        soundfile.write(folder / f"{number:04d}.flac", audio, SAMPLE_RATE)
    return scan([folder])[0][""]


def rates(stream: BatchStream, batches: int, workers: int) -> tuple[float, float]:
    """Seconds of audio a second by the clock, and a second of computing of this process."""
    warm = max(1, 2 * workers)
    audio, began = 0.0, (0.0, 0.0)
    for index, batch in enumerate(loader(stream, 0, warm + batches, workers)):
        if index < warm:
            began = time.perf_counter(), time.process_time()
        else:
            audio += batch.waveforms.numel() / SAMPLE_RATE
    return audio / (time.perf_counter() - began[0]), audio / (time.process_time() - began[1])


def table(manifest: Manifest, seconds: float, batches: int, workers: list[int]) -> str:
    """Audio-seconds a second for each number of processes that read, as Markdown.

    Seconds of the training process's own computing tell what a free core would do, and with other
    processes what is left for it to do.
    """
    stream = BatchStream(manifest, BatchConfig(seconds_per_batch=seconds))
    lines = [f"| processes that read | audio-s/s, batches of {seconds:g} s | a CPU second of the trainer |"]
    lines.append("|---|---|---|")
    for count in workers:
        wall, cpu = rates(stream, batches, count)
        lines.append(f"| {count} | {wall:,.0f} | {cpu:,.0f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.loading", description=__doc__)
    parser.add_argument("manifest", nargs="?", type=Path, help="a .tsv file")
    parser.add_argument("--seconds", type=float, default=160.0, help="audio a micro-batch (default 160)")
    parser.add_argument("--batches", type=int, default=30, help="micro-batches to time (default 30)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes (default 0 1 2)")
    arguments = parser.parse_args(argv)
    settings = arguments.seconds, arguments.batches, arguments.workers
    with tempfile.TemporaryDirectory() as place:
        given = arguments.manifest
        manifest = make_corpus(Path(place)) if given is None else Manifest.load(given)
        print(table(manifest, *settings))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
