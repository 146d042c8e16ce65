"""Write dense models for transformers' own HubertModel, Wav2Vec2Model, WavLMModel and Data2VecAudioModel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..errors import CheckpointError
from ..model import ModelConfig, SpeechModel
from .directory import CONFIG, PREPROCESSOR, Card, json_text, write_folder
from .dphubert_pth import TABLE

ARCHITECTURES = {
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
}
"""Model type in config.json -> class that loads it."""

_SCALE = "feature_extractor.dummy_weight"
_PARTS = {
    TABLE: "encoder.layers.0.attention.rel_attn_embed.weight",
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
    "pos_conv_embed.conv.weight_k": "pos_conv_embed.conv.weight",
    "encoder.feature_projection.": "feature_projection.",
    "encoder.transformer.": "encoder.",
    ".adapter.": ".adapter_layer.",
}


def write(
    model: SpeechModel,
    target: str | Path,
    model_type: str | None = None,
    card: str | Card = "",
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a directory that transformers loads without code of this package; it appears whole or not at all.

    Its feature extractor normalises as the model does, but adds 1e-7 to the variance as all of transformers
    does, where models of fairseq add 1e-5.

    Args:
        model: dense model.
        target: directory that does not exist yet.
        model_type: one of :data:`ARCHITECTURES`. By default ``wavlm`` for relative positions,
            ``data2vec-audio`` for a stack of positional convolutions and otherwise ``hubert``; HuBERT and
            wav2vec 2.0 differ in their name alone.
        card: model card, in Markdown or with its pictures; a heading by default.
        dtype: type of the stored weights; unchanged by default.

    Returns:
        ``target``.

    Raises:
        CheckpointError: the model is pruned or has another part that the classes lack, ``model_type`` has
            another shape, or ``target`` exists or cannot be written.
    """
    target, config = Path(target), model.config
    default = "wavlm" if config.num_buckets else "data2vec-audio" if config.pos_conv_depth > 1 else "hubert"
    kind = model_type or default
    if faults := [*_kind_faults(kind, default), *_shape_faults(config, kind), *_scale_faults(model)]:
        raise CheckpointError(
            f"{target}: transformers' own classes cannot hold the model: {'; '.join(faults)}"
        )
    state = {
        name: t.detach().cpu().to(dtype if dtype and t.is_floating_point() else t.dtype).contiguous()
        for name, t in _state(model).items()
    }
    waveforms = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": config.normalize_waveform,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": SAMPLE_RATE,
    }
    files = {CONFIG: json_text(_values(config, kind)), PREPROCESSOR: json_text(waveforms)}
    write_folder(target, files, state, card)
    return target


def _kind_faults(kind: str, default: str) -> Iterator[str]:
    allowed = ("hubert", "wav2vec2") if default == "hubert" else (default,)
    if kind not in allowed:
        yield f"model_type is {kind!r}, allowed for this one: {', '.join(allowed)}"


def _shape_faults(config: ModelConfig, kind: str) -> Iterator[str]:
    """Yield what the classes of a model type have no place for."""
    whole = tuple(range(config.total_heads))
    for layer, (heads, width) in enumerate(zip(config.heads, config.ffn, strict=True)):
        if heads != whole:
            attention = "no attention" if heads is None else f"{len(heads)} of {config.total_heads} heads"
            yield f"layer {layer} has {attention}, allowed: all"
        if not width or width != config.ffn[0]:
            yield f"layer {layer} has {width or 'no'} feed-forward units, allowed: as many in all layers"
    if config.total_heads * config.head_dim != config.embed_dim:
        yield f"head_dim is {config.head_dim}, allowed: {config.embed_dim // config.total_heads}"
    if kind != "hubert":
        if config.pos_conv_batch_norm:
            yield f"pos_conv_batch_norm is True, allowed for {kind}: False"
        if not config.projection_norm:
            yield f"projection_norm is False, allowed for {kind}: True"
    if config.adapter_dim and kind not in ("hubert", "wav2vec2"):
        yield f"adapter_dim is {config.adapter_dim}, allowed for {kind}: 0"
    if kind == "data2vec-audio" and (config.extractor_mode, config.layer_norm_first) != ("layer_norm", False):
        yield "data2vec-audio needs extractor_mode layer_norm and layer_norm_first False"


def _scale_faults(model: SpeechModel) -> Iterator[str]:
    if not bool((model.feature_extractor.dummy_weight == 1).all()):
        yield f"{_SCALE} is not 1 throughout, as after pruning with soft masks"


def _values(config: ModelConfig, kind: str) -> dict[str, Any]:
    """Return the fields of ``config.json``."""
    depth = config.pos_conv_depth
    positions = {"num_conv_pos_embeddings": config.pos_conv_kernel}
    if kind == "data2vec-audio":
        positions = {"num_conv_pos_embeddings": depth, "conv_pos_kernel_size": config.pos_conv_kernel}
    values = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.total_heads,
        "intermediate_size": config.ffn[0],
        "hidden_dropout": config.dropout,
        "activation_dropout": config.ffn_dropout,
        "attention_dropout": config.attention_dropout,
        "feat_proj_dropout": config.projection_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "feat_extract_norm": "layer" if config.extractor_mode == "layer_norm" else "group",
        "conv_dim": list(config.conv_channels),
        "conv_stride": list(config.conv_strides),
        "conv_kernel": list(config.conv_kernels),
        "conv_bias": config.conv_bias,
        "num_feat_extract_layers": len(config.conv_channels),
        **positions,
        "num_conv_pos_embedding_groups": config.pos_conv_groups,
        "do_stable_layer_norm": config.layer_norm_first,
        "layerdrop": 0.0,
        "mask_time_prob": 0.0,  # the embedding of masked frames is no part of our models
        "mask_feature_prob": 0.0,
    }
    if kind == "hubert":
        values |= {
            "feat_proj_layer_norm": config.projection_norm,
            "conv_pos_batch_norm": config.pos_conv_batch_norm,
        }
    if kind == "wavlm":
        values |= {"num_buckets": config.num_buckets, "max_bucket_distance": config.max_distance}
    if config.adapter_dim:
        values["adapter_attn_dim"] = config.adapter_dim
    return values


def _state(model: SpeechModel) -> dict[str, Tensor]:
    """Return the tensors by the names of transformers."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name == _SCALE:
            continue
        for ours, theirs in _PARTS.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    if model.config.pos_conv_batch_norm:  # as the statistics are multiplied in, those of the norm are neutral
        norm, width = "encoder.pos_conv_embed.batch_norm.", model.config.embed_dim
        state[f"{norm}running_mean"] = torch.zeros(width)
        state[f"{norm}num_batches_tracked"] = torch.tensor(0)
        state[f"{norm}running_var"] = torch.full((width,), 1 - 1e-5)  # and torch's epsilon makes it 1
    return state
