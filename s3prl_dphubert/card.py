"""The model card that a checkpoint carries."""

from __future__ import annotations

from . import pages
from .config import CompressConfig
from .cost import macs, parameters, superb_macs
from .model import ModelConfig, SpeechModel


def kind(config: ModelConfig) -> str:
    """What a model is, in words: family, place of the norms, dense or pruned, size."""
    family = "HuBERT or wav2vec 2.0"
    if config.num_buckets:
        family = "WavLM"
    elif config.pos_conv_depth > 1:
        family = "data2vec"
    norm = "pre-norm" if config.layer_norm_first else "post-norm"
    state = "dense" if config.is_dense else "pruned"
    return f"{family}, {norm}, {state}, {config.num_layers} layers of width {config.embed_dim}"


def facts(config: ModelConfig) -> dict[str, str]:
    """What a model is and costs, by name."""
    count = parameters(config)
    return {
        "model": kind(config),
        "parameters": f"{count:,}",
        "MACs of 10 s": f"{macs(config, 160_000):,}",
        "SUPERB MACs": f"{sum(superb_macs(config).values()):,}",
        "bytes in memory": f"{4 * count:,} in float32, {2 * count:,} in float16",
    }


def rows_of(values: dict[str, str]) -> str:
    """Rows of a Markdown table of two columns."""
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())


def units_table(config: ModelConfig) -> str:
    """Markdown table of the conv channels, heads and feed-forward units per layer."""
    channels = ", ".join(map(str, config.conv_channels))
    rows = []
    for index, (heads, width) in enumerate(zip(config.heads, config.ffn, strict=True), start=1):
        count, ids = (
            ("none", "–") if heads is None else (str(len(heads)), " ".join(map(str, heads)) or "bias only")
        )
        rows.append([str(index), count, ids, "none" if width is None else str(width)])
    table = pages.table(["layer", "heads", "ids of the heads", "feed-forward units"], rows)
    return f"Conv channels: {channels}\n\n{table}"


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
    rows = {"teacher": config.teacher}
    if config.student is not None:
        rows["student"] = str(config.student)
    if config.stage1 is not None:
        rows["budget"] = str(config.budget)
    rows["training"] = f"{steps}, seed {config.seed}"
    return f"""---
library_name: s3prl-dphubert
tags: [speech, self-supervised, compression]
---

# {config.teacher}, {titles[state]}

| | |
|---|---|
{rows_of(rows | facts(shape))}

## Units

{units_table(shape)}

## Use

```python
from s3prl_dphubert import load_model

hidden, _ = load_model("this-directory").extract_features(waveforms)  # (B, T) at 16 kHz
```
"""
