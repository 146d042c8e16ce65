"""The released ``.pth`` format: names, configuration keys and gates of the published code."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from .errors import CheckpointError
from .model.config import ModelConfig

TABLE = "encoder.transformer.relative_positions.rel_attn_embed.weight"
_GATE = re.compile(
    r"^(?:feature_extractor\.conv_layers\.(?P<conv>\d+)\.hard_concrete"
    r"|encoder\.transformer\.layers\.(?P<layer>\d+)\.(?P<block>attention|feed_forward)"
    r"\.hard_concrete_for_(?P<kind>heads|intermediate|layer))\.log_alpha$"
)
_RENAMES = (
    (re.compile(r"^encoder\.transformer\.layers\.0\.attention\.rel_attn_embed\.weight$"), TABLE),
    (re.compile(r"\.parametrizations\.weight\.original0$"), ".weight_g"),
    (re.compile(r"\.parametrizations\.weight\.original1$"), ".weight_v"),
)


def read_config(values: dict[str, Any]) -> ModelConfig:
    """Translate the keyword arguments stored in a released checkpoint.

    Raises:
        CheckpointError: a key is missing.
    """
    try:
        return _read_config(values)
    except KeyError as error:
        raise CheckpointError(f"config: {error.args[0]} is missing") from error


def _read_config(v: dict[str, Any]) -> ModelConfig:
    layers = range(v["encoder_num_layers"])
    wavlm = "encoder_remaining_heads" in v
    if wavlm:
        kept = [tuple(row) for row in v["encoder_remaining_heads"]]
        total = max(v["encoder_total_num_heads"])
        head_dim = v["encoder_embed_dim"] // total
    else:
        counts, head_dim = v["encoder_num_heads"], v["encoder_head_dim"]
        kept = [tuple(range(n)) for n in counts]
        total = max(v["encoder_embed_dim"] // head_dim, *counts)
    attention, feed_forward = v["encoder_use_attention"], v["encoder_use_feed_forward"]
    channels, kernels, strides = zip(*v["extractor_conv_layer_config"], strict=True)
    return ModelConfig(
        extractor_mode=v["extractor_mode"],
        conv_channels=channels,
        conv_kernels=kernels,
        conv_strides=strides,
        conv_bias=v["extractor_conv_bias"],
        embed_dim=v["encoder_embed_dim"],
        total_heads=total,
        head_dim=head_dim,
        heads=tuple(kept[i] if attention[i] else None for i in layers),
        ffn=tuple(v["encoder_ff_interm_features"][i] if feed_forward[i] else None for i in layers),
        pos_conv_kernel=v["encoder_pos_conv_kernel"],
        pos_conv_groups=v["encoder_pos_conv_groups"],
        pos_conv_depth=1,
        layer_norm_first=v["encoder_layer_norm_first"],
        normalize_waveform=v["normalize_waveform"],
        num_buckets=v["encoder_num_buckets"] if wavlm else 0,
        max_distance=v["encoder_max_distance"] if wavlm else 800,
        projection_dropout=v["encoder_projection_dropout"],
        attention_dropout=v["encoder_attention_dropout"],
        ffn_dropout=v["encoder_ff_interm_dropout"],
        dropout=v["encoder_dropout"],
    )


def read_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    """Split a released state into (tensors by our names, (kind, layer) -> log_alpha of its gates)."""
    weights: dict[str, Tensor] = {}
    gates: dict[tuple[str, int], Tensor] = {}
    for name, tensor in state.items():
        if match := _GATE.match(name):
            gates[_gate_key(match)] = tensor
            continue
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        weights[name] = tensor
    return weights, gates


def _gate_key(match: re.Match[str]) -> tuple[str, int]:
    if match["conv"] is not None:
        return "conv", int(match["conv"])
    kind = {"heads": "heads", "intermediate": "ffn", "layer": match["block"]}[match["kind"]]
    return kind, int(match["layer"])
