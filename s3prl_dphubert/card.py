"""The model card that a checkpoint carries."""

from __future__ import annotations

from .config import CompressConfig
from .cost import macs, parameters
from .model import ModelConfig, SpeechModel


def units_table(config: ModelConfig) -> str:
    """Markdown table of the conv channels, heads and feed-forward units per layer."""
    channels = ", ".join(map(str, config.conv_channels))
    rows = [
        f"Conv channels: {channels}",
        "",
        "| layer | heads | ids of the heads | feed-forward units |",
        "|---|---|---|---|",
    ]
    for index, (heads, width) in enumerate(zip(config.heads, config.ffn, strict=True), start=1):
        count, ids = (
            ("none", "–") if heads is None else (str(len(heads)), " ".join(map(str, heads)) or "bias only")
        )
        rows.append(f"| {index} | {count} | {ids} | {'none' if width is None else width} |")
    return "\n".join(rows)


def render(config: CompressConfig, model: SpeechModel, state: str) -> str:
    """Model card of a run's result.

    Args:
        config: the run.
        model: what the card describes.
        state: ``compressed`` or ``pruned`` (stage 2 still to come).
    """
    shape = model.config
    steps = f"stage 1: {config.stage1.updates} updates, stage 2: {config.stage2.updates} updates"
    return f"""---
library_name: s3prl-dphubert
tags: [speech, self-supervised, compression]
---

# {config.teacher}, {state} to {config.budget}

| | |
|---|---|
| teacher | {config.teacher} |
| budget | {config.budget} |
| training | {steps}, seed {config.seed} |
| parameters | {parameters(shape):,} |
| MACs of 10 s | {macs(shape, 160_000):,} |

## Kept units

{units_table(shape)}

## Use

```python
from s3prl_dphubert import load_model

hidden, _ = load_model("this-directory").extract_features(waveforms)  # (B, T) at 16 kHz
```
"""
