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
        state: ``compressed``, ``pruned`` (stage 2 is still to come) or ``student`` (all is).
    """
    shape = model.config
    titles = {"student": "student before training", "pruned": f"pruned to {config.budget}"}
    titles["compressed"] = "distilled" if config.stage1 is None else f"compressed to {config.budget}"
    stages = [("stage 1", config.stage1), ("stage 2", config.stage2)]
    steps = ", ".join(f"{name}: {stage.updates} updates" for name, stage in stages if stage is not None)
    rows = [f"| teacher | {config.teacher} |"]
    if config.student is not None:
        rows.append(f"| student | {config.student} |")
    if config.stage1 is not None:
        rows.append(f"| budget | {config.budget} |")
    rows += [
        f"| training | {steps}, seed {config.seed} |",
        f"| parameters | {parameters(shape):,} |",
        f"| MACs of 10 s | {macs(shape, 160_000):,} |",
    ]
    table = "\n".join(rows)
    return f"""---
library_name: s3prl-dphubert
tags: [speech, self-supervised, compression]
---

# {config.teacher}, {titles[state]}

| | |
|---|---|
{table}

## Units

{units_table(shape)}

## Use

```python
from s3prl_dphubert import load_model

hidden, _ = load_model("this-directory").extract_features(waveforms)  # (B, T) at 16 kHz
```
"""
