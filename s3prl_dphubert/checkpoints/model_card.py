"""Parts of model cards: what a model is, its costs and its units."""

from __future__ import annotations

from ..model import ModelConfig
from ..model.cost import macs, parameters, superb_macs
from ..utils import markdown


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


def rows_of(values: dict[str, str]) -> str:
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
