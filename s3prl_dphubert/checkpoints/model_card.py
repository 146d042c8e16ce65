"""Model cards: what a model is, its costs and units, its scores, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from ..model import ModelConfig
from ..model.cost import macs, parameters, superb_macs
from ..modeling.single_file import FILE
from ..utils import markdown
from ..utils.files import write_text
from .card_metadata import CardMetadata, has_block, hub_data
from .directory import CARD, Card

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FIGURE = "units.png"
BEGIN, END = "<!-- scores -->\n", "<!-- end of scores -->\n"


@dataclass(frozen=True)
class CardScore:
    """One score of a model.

    Args:
        benchmark: its name (``SUPERB``).
        task: name of the task there (``KS``).
        title: of the task (``keyword spotting``).
        metric: key of the metric (``acc``).
        metric_title: of the metric, with its unit (``Acc, %``).
        value: mean over seeds.
        seeds: how many.
    """

    benchmark: str
    task: str
    title: str
    metric: str
    metric_title: str
    value: float
    seeds: int = 1

    def eval_result(self) -> EvalResult:
        """Return the score as the Hub's model-index has it."""
        from huggingface_hub import EvalResult

        return EvalResult(
            task_type=self.title.replace(" ", "-"),
            task_name=self.title,
            dataset_type=self.benchmark.split()[0].lower(),
            dataset_name=f"{self.benchmark} {self.task}",
            dataset_config=self.task.lower(),
            metric_type=self.metric,
            metric_name=self.metric_title,
            metric_value=round(self.value, 4),
        )


def kind(config: ModelConfig) -> str:
    """Describe a model in words: family, place of the norms, dense or pruned, size."""
    family = "HuBERT or wav2vec 2.0"
    if config.num_buckets:
        family = "WavLM"
    elif config.pos_conv_depth > 1:
        family = "data2vec"
    norm = "pre-norm" if config.layer_norm_first else "post-norm"
    state = "dense" if config.is_dense else "pruned"
    return f"{family}, {norm}, {state}, {config.num_layers} layers of width {config.embed_dim}"


def facts(config: ModelConfig) -> dict[str, str]:
    """Return a model's description and costs, by name."""
    count = parameters(config)
    return {
        "model": kind(config),
        "parameters": f"{count:,}",
        "MACs of 10 s": f"{macs(config, 160_000):,}",
        "SUPERB MACs": f"{sum(superb_macs(config).values()):,}",
        "bytes in memory": f"{4 * count:,} in float32, {2 * count:,} in float16",
    }


def rows_of(values: Mapping[str, str]) -> str:
    """Return the rows of a Markdown table of two columns."""
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())


def units_table(config: ModelConfig) -> str:
    """Return the conv channels, and a Markdown table of heads and feed-forward units per layer."""
    channels = ", ".join(map(str, config.conv_channels))
    rows = []
    for index, (heads, width) in enumerate(zip(config.heads, config.ffn, strict=True), start=1):
        count, ids = (
            ("none", "–") if heads is None else (str(len(heads)), " ".join(map(str, heads)) or "bias only")
        )
        rows.append([str(index), count, ids, "none" if width is None else str(width)])
    table = markdown.table(["layer", "heads", "ids of the heads", "feed-forward units"], rows)
    return f"Conv channels: {channels}\n\n{table}"


def model_card(
    title: str,
    config: ModelConfig,
    metadata: CardMetadata,
    rows: Mapping[str, str] | None = None,
    teacher: ModelConfig | None = None,
    native: bool = False,
) -> Card:
    """Return a model card with the Hub's metadata and a picture of the units.

    Args:
        title: heading.
        config: shape of the model.
        metadata: licence, base model and so on; what is unknown is said to be.
        rows: lines of the table before the facts, by name.
        teacher: shape of the teacher, for the picture.
        native: whether the folder is for transformers' own classes, and holds no code.
    """
    from ..utils.plot_style import png  # matplotlib takes half a second to import
    from .units_figure import UnitCounts, units_figure

    origin = {
        "base model on the Hub": metadata.base_model or "none stated",
        "licence of the weights": metadata.license or "unknown",
    }
    text = _TEMPLATE.format(
        metadata=hub_data(metadata, title, remote_code=not native).to_yaml(),
        title=title,
        table=rows_of({**(rows or {}), **origin, **facts(config)}),
        figure=FIGURE,
        units=units_table(config),
        begin=BEGIN,
        end=END,
        scores=_scores_table(()),
        licence=_licence(metadata, native),
        by_code="" if native else f", which runs `{FILE}` of this folder",
        trust="" if native else ", trust_remote_code=True",
    )
    figure = units_figure(UnitCounts.of(config), None if teacher is None else UnitCounts.of(teacher))
    return Card(text, {FIGURE: png(figure)})


def update_card(folder: Path, metadata: CardMetadata, scores: Sequence[CardScore] | None = None) -> Path:
    """Change the metadata and the scores in the model card of a directory; its other text stays.

    Args:
        folder: checkpoint directory.
        metadata: fields that are empty leave those of the card.
        scores: replace those of the card; ``None`` leaves them.

    Returns:
        Path of the card.

    Raises:
        CheckpointError: there is no card, or its metadata cannot be read.
    """
    from huggingface_hub import ModelCard

    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the directory of a model with its card")
    try:
        text = path.read_text(encoding="utf8")
        card = ModelCard(text if has_block(text) else f"---\n\n---\n{text}", ignore_metadata_errors=True)
    except Exception as error:  # the client raises whatever malformed metadata provokes
        raise CheckpointError(f"{path}: its metadata cannot be read ({error})") from error
    results = [score.eval_result() for score in scores or ()]
    changes = vars(hub_data(metadata, folder.resolve().name, results))
    changes["tags"] = list(dict.fromkeys([*(card.data.get("tags") or ()), *changes["tags"]]))
    for name, value in changes.items():
        if value:
            card.data[name] = value
    text = card.text.lstrip("\n")
    if scores is not None:
        if BEGIN not in text:
            text = f"{text.rstrip()}\n\n## Scores\n\n{BEGIN}{END}"
        text = markdown.fill(text, BEGIN, END, _scores_table(scores), str(path))
    write_text(path, f"---\n{card.data.to_yaml()}\n---\n\n{text}")
    return path


def _scores_table(scores: Sequence[CardScore]) -> str:
    if not scores:
        return "None yet. `s3prl-dphubert card FOLDER --scores RUN` writes those of `superb run` here."
    rows = [[s.benchmark, s.task, s.metric_title, f"{s.value:.2f}", str(s.seeds)] for s in scores]
    return markdown.table(["benchmark", "task", "metric", "mean", "seeds"], rows)


def _licence(metadata: CardMetadata, native: bool) -> str:
    weights = f"The weights are under `{metadata.license}`."
    if metadata.license is None:
        weights = (
            "The licence of the weights is **unknown**: none is stated of the model that they come from."
        )
    return weights if native else f"{weights} `{FILE}` is under the Apache License 2.0."


_TEMPLATE = """---
{metadata}
---

# {title}

A speech encoder made by [s3prl-dphubert](https://arxiv.org/abs/2305.17651): waveforms at 16 kHz in, hidden
states of every layer out.

| | |
|---|---|
{table}

## Use

With s3prl-dphubert:

```python
from s3prl_dphubert import load_model

hidden, frames = load_model("FOLDER or USER/REPO").extract_features(waveforms)  # (B, T) -> L + 1 of (B, F, D)
```

With transformers{by_code}:

```python
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("FOLDER or USER/REPO"{trust})
model = AutoModel.from_pretrained("FOLDER or USER/REPO"{trust})
inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
hidden = model(**inputs, output_hidden_states=True).hidden_states
```

In s3prl, with s3prl-dphubert installed:

```sh
python -m s3prl.run_downstream -m train -n NAME -d DOWNSTREAM -c CONFIG -u dphubert_local -k FOLDER
```

With torch.hub, from a clone of s3prl-dphubert:

```python
upstream = torch.hub.load("CLONE", "dphubert_local", source="local", ckpt="FOLDER")
hidden = upstream([waveform])["hidden_states"]
```

Exported to ONNX Runtime or OpenVINO, without torch:

```sh
s3prl-dphubert export FOLDER model.onnx --format onnx
```

## Scores

{begin}
{scores}
{end}
## Units

![Units of each layer]({figure})

{units}

## Licence

{licence}

## Citation

```bibtex
@inproceedings{{peng2023dphubert,
  author    = {{Peng, Yifan and Sudo, Yui and Muhammad, Shakeel and Watanabe, Shinji}},
  title     = {{{{DPHuBERT}}: Joint Distillation and Pruning of Self-Supervised Speech Models}},
  booktitle = {{Proc. Interspeech}},
  year      = {{2023}},
}}
```
"""
