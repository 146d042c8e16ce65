"""Parameters, MACs and measured time of models, as a whole and part by part."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..constants import SAMPLE_RATE
from ..utils import markdown
from . import SpeechModel
from .cost import mac_parts, parameter_parts, parameters, superb_macs

Times = dict[str, float]  # part -> seconds


def real_time_factors(models: dict[str, SpeechModel], seconds: float = 10.0, repeats: int = 5) -> Times:
    """Measure the compute time per second of audio, batch size 1.

    Args:
        models: name -> model on the CPU.
        seconds: length of the utterance.
        repeats: runs of each model, after one to warm up. The models take turns.

    Returns:
        Name -> real-time factor of the fastest run.
    """
    best = _fastest(models, seconds, repeats, _time_whole)
    return {name: times["whole"] / seconds for name, times in best.items()}


def part_times(models: dict[str, SpeechModel], seconds: float = 10.0, repeats: int = 5) -> dict[str, Times]:
    """Measure the time of each part of :func:`.cost.parameter_parts`, batch size 1.

    The rest is what a run spends outside the other parts: normalising the waveform, padding,
    the Transformer's LayerNorm, WavLM's position table. Arguments as for
    :func:`real_time_factors`.

    Returns:
        Name -> part -> seconds of its fastest run.
    """
    return _fastest(models, seconds, repeats, _time_parts)


def parts(model: SpeechModel) -> dict[str, nn.Module]:
    """Return the profiled modules by the names of :func:`.cost.parameter_parts`."""
    convs, transformer = model.feature_extractor.conv_layers, model.encoder.transformer
    return {
        **{f"conv {i}": layer for i, layer in enumerate(convs, start=1)},
        "projection": model.encoder.feature_projection,
        "positions": transformer.pos_conv_embed,
        **{f"layer {i}": layer for i, layer in enumerate(transformer.layers, start=1)},
    }


@torch.inference_mode()
def _fastest(
    models: dict[str, SpeechModel],
    seconds: float,
    repeats: int,
    run: Callable[[SpeechModel, Tensor], Times],
) -> dict[str, Times]:
    """Return the least of each time over all runs; models take turns, so that all meet the same noise."""
    samples = round(seconds * SAMPLE_RATE)
    waveforms = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    best: dict[str, Times] = {}
    for turn in range(repeats + 1):
        for name, model in models.items():
            times = run(model, waveforms)
            if turn:
                least = best.setdefault(name, times)
                best[name] = {part: min(value, least[part]) for part, value in times.items()}
    return best


def _time_whole(model: SpeechModel, waveforms: Tensor) -> Times:
    began = time.perf_counter()
    model.extract_features(waveforms)
    return {"whole": time.perf_counter() - began}


def _time_parts(model: SpeechModel, waveforms: Tensor) -> Times:
    marks: dict[str, list[float]] = {name: [] for name in parts(model)}
    hooks = []
    for name, module in parts(model).items():

        def mark(*_: object, name: str = name) -> None:
            marks[name].append(time.perf_counter())

        hooks += [module.register_forward_pre_hook(mark), module.register_forward_hook(mark)]
    try:
        whole = _time_whole(model, waveforms)["whole"]
    finally:
        for hook in hooks:
            hook.remove()
    times = {name: end - begin for name, (begin, end) in marks.items()}
    return {**times, "rest": whole - sum(times.values())}


def table(models: dict[str, SpeechModel], seconds: float = 10.0, repeats: int = 5) -> str:
    """Return parameters, MACs by SUPERB bucket and real-time factor of each model as a Markdown table."""
    speed = real_time_factors(models, seconds, repeats)
    rows = [["parameters", *(f"{parameters(model.config):,}" for model in models.values())]]
    buckets = [superb_macs(model.config) for model in models.values()]
    rows += [[f"SUPERB MACs, {name}", *(f"{bucket[name]:,}" for bucket in buckets)] for name in buckets[0]]
    rows.append(["SUPERB MACs", *(f"{sum(bucket.values()):,}" for bucket in buckets)])
    factor = f"real-time factor ({seconds:g} s, {torch.get_num_threads()} threads)"
    rows.append([factor, *(f"{speed[name]:.4f}" for name in models)])
    return markdown.table(["", *models], rows)


def part_tables(models: dict[str, SpeechModel], seconds: float = 10.0, repeats: int = 5) -> str:
    """Return parameters, MACs and time of every part of each model, with shares, as Markdown tables."""
    measured = part_times(models, seconds, repeats)
    costs = "parameters", f"MACs of {seconds:g} s", f"ms ({torch.get_num_threads()} threads)"
    head = ["part", *(cell for name in costs for cell in (name, "%"))]
    tables = []
    for name, model in models.items():
        config = model.config
        columns = [
            parameter_parts(config),
            mac_parts(config, round(seconds * SAMPLE_RATE)),
            {part: 1000 * value for part, value in measured[name].items()},
        ]
        totals = [sum(column.values()) for column in columns]
        rows = []
        for part in (*columns[0], "total"):
            row = [part]
            for column, total, shown in zip(columns, totals, (",", ",", ",.2f"), strict=True):
                value = total if part == "total" else column[part]
                row += [format(value, shown), f"{100 * value / total:.1f}"]
            rows.append(row)
        tables.append(f"## {name}\n\n{markdown.table(head, rows)}")
    return "\n\n".join(tables)
