"""Cost of a run on other hardware: GPU hours, network and disk, by a cost model that is checked here.

``python -m s3prl_dphubert.bench.scaling --out docs/results/scaling.md`` measures an update at two sizes on
this machine, compares them with the model, and writes all figures of that page.

In the model, an update computes the teacher forward and the student forward and backward, with two
floating-point operations per multiply-accumulate; everything but matrix products takes a fixed time per
activation. On GPUs the rate is that of the published run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..constants import SAMPLE_RATE
from ..model import ModelConfig, SpeechModel
from ..model.cost import expected_widths, macs, parameters
from ..model.inference.precision_choice import processor
from ..model.model_config import dense_heads
from ..pruning.gates import GateConfig, Gates
from ..utils.files import write_text
from ..utils.stopwatch import Stopwatch
from .own_update import OwnUpdate

HOUR = 3600
UPDATES = (50_000, 25_000)  # updates of the two stages
BATCH = 640  # seconds of audio per update, over all GPUs
REMAINING = 0.39  # share of the MACs that the student of stage 2 has
PUBLISHED_HOURS = 24  # GPU hours of the published run of HuBERT Base, on A100
BYTES_PER_SAMPLE = 1.2  # 16 kHz FLAC, measured on the embedded speech
DECODED = 4000  # audio-seconds of FLAC per second and core (bench.loading)
CACHED = 4 * 768 * 2 * 50  # bytes of targets per second of audio: layers, width, float16, frames
CORPORA = {"LibriSpeech, 960 h": 960, "Libri-Light, 60,000 h": 60_000}
LINKS = {"NVLink": 300e9, "InfiniBand 200": 25e9, "Ethernet 25": 3.1e9}  # bytes per second and direction
LARGE = ModelConfig(
    extractor_mode="layer_norm",
    conv_bias=True,
    embed_dim=1024,
    total_heads=16,
    heads=dense_heads(24, 16),
    ffn=(4096,) * 24,
    layer_norm_first=True,
    normalize_waveform=True,
)
MODELS = {"HuBERT Base": ModelConfig(), "HuBERT Large": LARGE}
SMALL = ModelConfig(
    conv_channels=(256,) * 7,
    embed_dim=384,
    total_heads=6,
    heads=dense_heads(6, 6),
    ffn=(1536,) * 6,
    pos_conv_groups=8,
)


def operations(config: ModelConfig, seconds: float, share: float = 1.0, gates: bool = False) -> float:
    """Return the floating-point operations of teacher and student for an utterance.

    Args:
        config: shape of both.
        seconds: length of the utterance.
        share: share of its MACs that the student has left.
        gates: leave out the units that gates close at the start of stage 1.
    """
    samples = round(seconds * SAMPLE_RATE)
    teacher = float(macs(config, samples))
    student = share * teacher
    if gates:
        opened = Gates(config, GateConfig()).expected()
        student = float(macs(config, samples, expected_widths(config, opened)).detach())
    return 2 * (teacher + 3 * student)


def activations(config: ModelConfig, seconds: float) -> float:
    """Return the number of outputs of all layers of a model for an utterance, with attention weights."""
    samples, total = round(seconds * SAMPLE_RATE), 0
    for kernel, stride, channels in zip(
        config.conv_kernels, config.conv_strides, config.conv_channels, strict=True
    ):
        samples = (samples - kernel) // stride + 1
        total += samples * channels
    for heads, units in zip(config.heads, config.ffn, strict=True):
        total += samples * (8 * config.embed_dim + 2 * (units or 0)) + samples * samples * len(heads or ())
    return float(total)


@dataclass(frozen=True)
class MeasuredUpdate:
    """An update measured on this machine, with the inputs of the cost model.

    Args:
        name: name of the size.
        batch: number of utterances.
        seconds: length of each utterance.
        took: CPU seconds of the update.
        products: CPU seconds of matrix products with as many operations.
        numbers: activations of teacher and student.
    """

    name: str
    batch: int
    seconds: float
    took: float
    products: float
    numbers: float


def measure(repeats: int = 3, precision: str = "fp32") -> list[MeasuredUpdate]:
    """Time updates of two sizes and plain matrix products, in turns, in CPU seconds of one thread."""
    torch.set_num_threads(1)
    cases = {"half width, 6 layers": (SMALL, 4, 4.0), "HuBERT Base": (ModelConfig(), 2, 4.0)}
    torch.manual_seed(0)
    runs = {name: OwnUpdate(SpeechModel(config), precision) for name, (config, _, _) in cases.items()}
    took: dict[str, list[float]] = {name: [] for name in runs}
    speeds = []
    for turn in range(repeats + 1):
        speeds.append(_product_rate())
        for name, (_, batch, seconds) in cases.items():
            watch = Stopwatch()
            runs[name].update(torch.randn(batch, round(seconds * SAMPLE_RATE)), watch)
            if turn:
                took[name].append(sum(watch.cpu.values()))
    speed = statistics.median(speeds)
    updates = []
    for name, (config, batch, seconds) in cases.items():
        needed = batch * operations(config, seconds, gates=True)
        numbers = batch * 2 * activations(config, seconds)
        updates.append(MeasuredUpdate(name, batch, seconds, min(took[name]), needed / speed, numbers))
    return updates


def _product_rate(size: int = 1536) -> float:
    """Return the operations of float32 matrix products per second of CPU time."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    began = time.process_time()
    for _ in range(3):
        a @ b
    return 3 * 2 * size**3 / (time.process_time() - began)


def check_rows(updates: list[MeasuredUpdate]) -> Iterator[str]:
    """Yield the measured table: the cost of an activation is fitted to the first size only."""
    first = updates[0]
    each = max(0.0, first.took - first.products) / first.numbers
    yield "| size | audio | measured, s | matrix products, s | model, s | model / measured |"
    yield "|---|---|---|---|---|---|"
    for row in updates:
        predicted = row.products + each * row.numbers
        audio = f"{row.batch} × {row.seconds:g} s"
        yield (
            f"| {row.name} | {audio} | {row.took:.2f} | {row.products:.2f} | {predicted:.2f} "
            f"| {predicted / row.took:.2f}{' (fitted)' if row is first else ''} |"
        )


def total_operations(config: ModelConfig) -> tuple[float, float]:
    """Return the floating-point operations of the two stages of the published recipe."""
    dense, pruned = operations(config, 10.0) / 10, operations(config, 10.0, REMAINING) / 10
    return UPDATES[0] * BATCH * dense, UPDATES[1] * BATCH * pruned


def gpu_rate() -> float:
    """Return the operations per second and GPU of the published run."""
    return sum(total_operations(ModelConfig())) / (PUBLISHED_HOURS * HOUR)


def gpu_rows(counts: tuple[int, ...] = (1, 4, 32)) -> Iterator[str]:
    """Yield the table of GPU hours, hours and network traffic."""
    rate = gpu_rate()
    yield "| model | GPUs | GPU hours | hours | seconds an update | micro-batches a GPU | " + (
        "sent an update and GPU | " + " | ".join(f"over {link}, s" for link in LINKS) + " |"
    )
    yield "|---" * (7 + len(LINKS)) + "|"
    for name, config in MODELS.items():
        stages = total_operations(config)
        hours = sum(stages) / rate / HOUR
        size = 4 * parameters(config)
        for count in counts:
            sent = 2 * (count - 1) / count * size
            share = BATCH / count
            micro = f"{max(1, round(share / 160))} × {min(160.0, share):g} s"
            times = " | ".join(f"{sent / speed:.3f}" for speed in LINKS.values())
            update = stages[0] / UPDATES[0] / rate / count
            yield (
                f"| {name} | {count} | {hours:.0f} | {hours / count:.1f} | {update:.2f} | {micro} "
                f"| {sent / 1e9:.2f} GB | {times} |"
            )


def disk_rows() -> Iterator[str]:
    """Yield the table of disk space and reading rates of the corpora."""
    audio = sum(UPDATES) * BATCH / HOUR
    rate = gpu_rate()
    heads = ("corpus", "FLAC", "epochs of 75,000 updates", "read in all")
    yield f"| {' | '.join(heads)} | audio-s/s at 32 GPUs | MB/s | cores that decode |"
    yield "|---|---|---|---|---|---|---|"
    fastest = 32 * rate / (operations(ModelConfig(), 10.0, REMAINING) / 10)
    for name, hours in CORPORA.items():
        size = hours * HOUR * SAMPLE_RATE * BYTES_PER_SAMPLE
        read = audio * HOUR * SAMPLE_RATE * BYTES_PER_SAMPLE
        speed = fastest * SAMPLE_RATE * BYTES_PER_SAMPLE / 1e6
        yield (
            f"| {name} | {size / 1e12:.2f} TB | {audio / hours:.1f} | {read / 1e12:.2f} TB "
            f"| {fastest:,.0f} | {speed:.0f} | {fastest / DECODED:.1f} |"
        )


def checkpoint_rows() -> Iterator[str]:
    """Yield the table of the sizes of checkpoints."""
    yield "| model | a checkpoint (weights, two moments) | two kept and the best weights |"
    yield "|---|---|---|"
    for name, config in MODELS.items():
        size = 4 * parameters(config) / 1e9
        yield f"| {name} | {3 * size:.2f} GB | {7 * size:.2f} GB |"


def page(updates: list[MeasuredUpdate]) -> str:
    """Return docs/results/scaling.md."""
    dense = {name: operations(config, 10.0) / 10 / 1e9 for name, config in MODELS.items()}
    per_second = ", ".join(f"{name} {value:.0f}" for name, value in dense.items())
    return TEMPLATE.format(
        check="\n".join(check_rows(updates)),
        gpus="\n".join(gpu_rows()),
        disk="\n".join(disk_rows()),
        checkpoints="\n".join(checkpoint_rows()),
        per_second=per_second,
        rate=gpu_rate() / 1e12,
        hours=PUBLISHED_HOURS,
        machine=f"{processor()}, torch {torch.__version__}",
        decoded=DECODED,
        cached=CACHED / 1e3,
        hour=CACHED * HOUR / 1e9,
        libri=CACHED * HOUR * 960 / 1e12,
        grows=sum(total_operations(LARGE)) / sum(total_operations(ModelConfig())),
    )


TEMPLATE = """# Scaling

This page estimates what a run of the published recipe costs on 1, 4 and 32 GPUs. No GPU was at hand, so the
estimate is a model of the cost that is checked on a CPU. `python -m s3prl_dphubert.bench.scaling --out
docs/results/scaling.md` makes all of its figures.

## The model

An update of stage 1 runs the teacher forward (1 part), the student forward (1) and the student backward (2).
Each part has the MACs that [`cost.py`](../../s3prl_dphubert/model/cost.py) counts, at 2 operations a MAC. In
GFLOP for a second of audio that is {per_second}. In stage 2 the student has 39 % of its MACs left, as
DPHuBERT has.

On the CPU, units whose sampled gate is 0 are not computed; on a GPU they are. Everything but matrix products
is taken to cost a fixed time for each number that a layer puts out.

## Checked here

CPU seconds of one update of stage 1 in float32 on one thread of {machine},
dropout and gates on. The fixed time is fitted to the first size and predicts the second:

{check}

## GPU hours

The published recipe has 50,000 and 25,000 updates of 640 s of audio. The rate is that of the published run
of HuBERT Base (about {hours} GPU hours on A100, fp16): {rate:.1f} TFLOP/s a GPU. Fused attention and a
trainer that does not wait for the host should do better. HuBERT Large does {grows:.1f} times the operations
of Base.

Gradients are added up in float32 while the backward pass goes on, which makes half of an update. The seconds
that they take over a link, which it hides as far as they are fewer:

{gpus}

## Disk and network

Reading is sequential inside a file and random over files; an utterance in a shard is one ranged request.
Stage 2 on 32 GPUs reads the fastest. A core decodes about {decoded} s of FLAC a second (`python -m
s3prl_dphubert.bench.loading`):

{disk}

{checkpoints}

## What to set where

- **1 GPU**: `accumulate: 4` with `seconds_per_batch: 160` and `num_workers: 2` makes the published update,
  four times as slow. Use `precision: bf16` (`fp16` before Ampere).
- **4 GPUs**: `accumulate: 1`. Over NVLink the gradients cost less than a tenth of an update.
- **32 GPUs**: `seconds_per_batch: 20` and `accumulate: 1` make the same update. Between machines use
  InfiniBand: over Ethernet the gradients take several times as long as computing the update. A larger batch
  with fewer updates is another recipe, and not tested.
- **960 h** fit on any local disk.
- **60,000 h**: keep tar shards in object storage, with `num_workers` such that processes times {decoded} s/s
  exceed what the GPUs take. 75,000 updates see each hour less than once, so copying it first gains nothing.
- **CPU**: `precision: auto`, which takes bf16 where that is faster, and one process per socket.
- `teacher_precision: bf16` with a float32 student saves over half of the teacher's time and memory traffic.
- `cache_teacher: true` with `crops: fixed` keeps {cached:.0f} kB for each second of audio in the run's
  folder: {hour:.1f} GB an hour, {libri:.1f} TB for 960 h. On the CPU, reading targets takes a thousandth of
  the time of computing them; on a GPU it may take longer. It pays for corpora of some hours that are seen
  dozens of times, not for one that is seen 14 times.
- `save_every` so that a checkpoint is written every ten minutes or so.
"""


def main(argv: list[str] | None = None) -> int:
    """Measure and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.scaling", description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown to write (default: print it)")
    parser.add_argument("--repeats", type=int, default=3, help="updates to measure (default 3)")
    arguments = parser.parse_args(argv)
    text = page(measure(arguments.repeats))
    if arguments.out is None:
        print(text)
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.out, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
