"""What a model costs here: real-time factor, measured."""

from __future__ import annotations

import time

import torch

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
