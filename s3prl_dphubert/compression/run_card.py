"""Model card of a run's result."""

from __future__ import annotations

from ..checkpoints.model_card import facts, rows_of, units_table
from ..model import SpeechModel
from .compress_config import CompressConfig


def render_card(config: CompressConfig, model: SpeechModel, state: str) -> str:
    """Return the model card of a run's result, in Markdown.

    Args:
        config: the run.
        model: model that the card describes.
        state: ``student`` (before stage 1), ``pruned`` (before stage 2) or ``compressed``.
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
