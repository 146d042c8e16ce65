"""Cost in time of a conv channel, a head and a feed-forward unit on this machine, for budgets in time.

``python -m s3prl_dphubert.bench.units OUT.json --model hubert_base`` runs the parts of the folded model
(:func:`..model.inference.folded.fold`) at a quarter, half, three quarters and all of their widths. A line
through the times of a part gives its fixed time and the time per unit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.inference.folded import FoldedModel, fold
from ..model.inference.folded_extractor import STRETCH
from ..model.packing import Packing
from ..pruning.latency import LatencyLine, LatencyTable, shape_of
from ..utils.environment import environment

SHARES = (0.25, 0.5, 0.75, 1.0)
ALIGN = 8


@dataclass(frozen=True)
class Settings:
    """Options of the measurement.

    Args:
        seconds: length of the utterance.
        precision: precision of :func:`..model.inference.folded.fold`.
        threads: threads of torch.
        repeats: runs of each part, of which the fastest counts; with one thread, by CPU time, which other
            processes disturb less.

    Raises:
        ConfigError: fields are invalid; the message lists all of them.
    """

    seconds: float = 10.0
    precision: str = "fp32"
    threads: int = 1
    repeats: int = 7

    def __post_init__(self) -> None:
        minima = {"seconds": 0.1, "threads": 1, "repeats": 1}
        faults = [
            f"{name} is {getattr(self, name)}, allowed: {minimum:g} or more"
            for name, minimum in minima.items()
            if not getattr(self, name) >= minimum
        ]
        ConfigError.raise_for("bench", faults)


def measure(config: ModelConfig, settings: Settings) -> LatencyTable:
    """Time the parts of a dense model at several widths.

    Raises:
        ConfigError: the model is pruned, so its layers differ.
    """
    if not config.is_dense:
        raise ConfigError("bench: the model is pruned, allowed: a teacher, whose layers are alike")
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        shapes = [_narrow(config, share) for share in SHARES]
        rows = [_times(shape, settings) for shape in tqdm(shapes, desc="widths", unit="width")]
    finally:
        torch.set_num_threads(threads)
    conv = [(1, *shape.conv_channels) for shape in shapes]
    lines = {
        f"conv {i}": fit([c[i] * c[i + 1] for c in conv], [row[f"conv {i}"] for row in rows])
        for i in range(len(config.conv_channels))
    }
    count, full = config.num_layers, rows[-1]
    machine: dict[str, Any] = dict(environment(torch.device("cpu"), settings.precision, 1, 1))
    attention = fit([len(shape.heads[0] or ()) for shape in shapes], [row["attention"] for row in rows])
    feed = fit([shape.ffn[0] or 0 for shape in shapes], [row["feed_forward"] for row in rows])
    return LatencyTable(
        seconds=settings.seconds,
        shape=shape_of(config),
        conv=tuple(lines.values()),
        projection=fit([shape.conv_channels[-1] for shape in shapes], [row["projection"] for row in rows]),
        positions=full["positions"],
        rest=(min(row["rest"] for row in rows),) * count,
        attention=(attention,) * count,
        feed_forward=(feed,) * count,
        machine=machine | {"threads": settings.threads},
    )


def fit(units: list[int], seconds: list[float]) -> LatencyLine:
    """Fit a line with the least relative error to times; neither of its coefficients is negative.

    Args:
        units: number of units in each measurement.
        seconds: time of each measurement.
    """
    x, y = torch.tensor(units, dtype=torch.float64), torch.tensor(seconds, dtype=torch.float64)
    design = torch.stack([1 / y, x / y], 1)
    fixed, each = torch.linalg.lstsq(design, torch.ones_like(y)[:, None]).solution[:, 0].tolist()
    if fixed < 0:
        return LatencyLine(0.0, float((x / y).sum() / (x / y).square().sum()))
    if each < 0:
        return LatencyLine(float(y.mean()), 0.0)
    return LatencyLine(fixed, each)


def _narrow(config: ModelConfig, share: float) -> ModelConfig:
    """Return the configuration with one layer and a share of each kind of unit."""

    def part(width: int) -> int:
        return max(ALIGN, round(width * share / ALIGN) * ALIGN) if share < 1 else width

    heads = max(1, round(config.total_heads * share))
    return replace(
        config,
        conv_channels=tuple(part(width) for width in config.conv_channels),
        heads=(tuple(range(heads)),),
        ffn=(part(config.ffn[0] or ALIGN),),
    )


@torch.inference_mode()
def _times(config: ModelConfig, settings: Settings) -> dict[str, float]:
    """Return the seconds of each part of a model with one layer, for one utterance."""
    torch.manual_seed(0)
    model = fold(SpeechModel(config).eval(), settings.precision)
    frames = config.frames(round(settings.seconds * SAMPLE_RATE))
    times, x = _front_times(model, config, frames, settings.repeats)
    packing = Packing([frames])
    x = x.repeat(-(-frames // len(x)), 1)[:frames].float()

    def best(call: Callable[[], object]) -> float:
        return _best_time(call, settings.repeats)

    times["projection"] = best(lambda: model.project(x))
    x = torch.randn(frames, config.embed_dim)
    times["positions"] = best(lambda: model.positional(x, packing, frames))
    layer: Any = model.layers[0]
    tables = None if model.relative_positions is None else [model.relative_positions(frames)]
    attention, feed = layer.attention, layer.feed_forward
    if attention is None or feed is None:
        raise ConfigError("bench: the model has a layer without attention or feed-forward units")
    times["attention"] = best(lambda: attention(x, packing, tables))
    times["feed_forward"] = best(lambda: feed(x))
    times["rest"] = best(lambda: layer.final_layer_norm(x + layer.layer_norm(x + x)))
    return times


def _front_times(
    model: FoldedModel, config: ModelConfig, frames: int, repeats: int
) -> tuple[dict[str, float], Tensor]:
    """Return the seconds of each conv layer for an utterance, and the frames (F', C) of its first stretch."""
    front, size = model.extractor, min(STRETCH, frames)
    waveform = torch.randn((size - 1) * config.stride + config.min_samples)
    weight, bias = front.first_weights(waveform)
    times = {"conv 0": _best_time(lambda: front.first(waveform, weight, bias), repeats) * frames / size}
    x = front.first(waveform, weight, bias)
    for index, conv in enumerate(front.others, start=1):
        times[f"conv {index}"] = _best_time(lambda conv=conv, x=x: conv(x), repeats) * frames / size  # type: ignore[misc]
        x = conv(x)
    return times, x


def _best_time(call: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of several calls, after one to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    call()
    best = float("inf")
    for _ in range(repeats):
        began = clock()
        call()
        best = min(best, clock() - began)
    return best


def main(argv: list[str] | None = None) -> int:
    """Measure and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.units", description=__doc__)
    parser.add_argument("out", type=Path, help="a .json file")
    parser.add_argument("--model", default="hubert_base", help="teacher, as in a run (default hubert_base)")
    for name in ("seconds", "precision", "threads", "repeats"):
        default = getattr(Settings, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    arguments = parser.parse_args(argv)
    from ..checkpoints.load import load_model

    names = ("seconds", "precision", "threads", "repeats")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    config = ModelConfig() if arguments.model == "hubert_base" else load_model(arguments.model).config
    measure(config, settings).write(arguments.out)
    print(f"{arguments.out}: written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
