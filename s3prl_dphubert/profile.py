"""What a model costs here: real-time factor, measured."""

from __future__ import annotations

import time

import torch

from .cost import parameters, superb_macs
from .model import SpeechModel


@torch.inference_mode()
def real_time_factors(
    models: dict[str, SpeechModel], seconds: float = 10.0, repeats: int = 5
) -> dict[str, float]:
    """Seconds of compute per second of audio, batch 1, the best of interleaved runs.

    Args:
        models: name -> model on the CPU.
        seconds: length of the utterance.
        repeats: runs of each model, after one to warm up.
    """
    waveforms = torch.randn(1, round(seconds * 16_000), generator=torch.Generator().manual_seed(0))
    best: dict[str, float] = {}
    for run in range(repeats + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model.extract_features(waveforms)
            took = (time.perf_counter() - began) / seconds
            if run:
                best[name] = min(took, best.get(name, took))
    return best


def table(models: dict[str, SpeechModel], seconds: float = 10.0, repeats: int = 5) -> str:
    """Parameters, MACs by SUPERB bucket and real-time factor of each model, as Markdown."""
    speed = real_time_factors(models, seconds, repeats)
    rows: dict[str, list[str]] = {"": list(models)}
    rows["parameters"] = [f"{parameters(model.config):,}" for model in models.values()]
    buckets = [superb_macs(model.config) for model in models.values()]
    for name in buckets[0]:
        rows[f"SUPERB MACs, {name}"] = [f"{bucket[name]:,}" for bucket in buckets]
    rows["SUPERB MACs"] = [f"{sum(bucket.values()):,}" for bucket in buckets]
    rows[f"real-time factor ({seconds:g} s, {torch.get_num_threads()} threads)"] = [
        f"{speed[name]:.4f}" for name in models
    ]
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([lines[0], "|---" * (len(models) + 1) + "|", *lines[1:]])
