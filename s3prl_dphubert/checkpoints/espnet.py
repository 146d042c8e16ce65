"""HuBERT checkpoints of ESPnet: a state dict beside the ``config.yaml`` of its experiment.

ESPnet's recipes ``hubert1`` and ``ssl1`` train torchaudio's HuBERT (``encoder: torchaudio_hubert``) or
fairseq's (``encoder: hubert_pretrain``). ESPnet itself is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shown
from ..model import ModelConfig
from ..model.model_config import dense_heads
from ..utils.readers import LARGEST_YAML, parse_yaml, read_limited, reading
from . import fairseq, torchaudio
from .key_mapping import Weights, add_extractor_scale, count_faults

Sibling = Callable[[str], Path | None]
"""Name of a file -> its path in the folder of the checkpoint, ``None`` if there is no such file."""

CONFIG = "config.yaml"
TORCHAUDIO, FAIRSEQ = "encoder.hubert_pretrain_model.wav2vec2.", "encoder.encoder."
"""Prefixes of the encoder's tensors in the two kinds of models."""
_OUTSIDE = ("frontend", "normalize", "preencoder")  # what ESPnet may put before the encoder

_TORCHAUDIO_DEFAULTS = {  # of ESPnet's class, for fields that encoder_conf leaves out
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[512, 10, 5], *[[512, 3, 2]] * 4, *[[512, 2, 2]] * 2],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 768,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 128,
    "encoder_pos_conv_groups": 16,
    "encoder_num_layers": 12,
    "encoder_num_heads": 12,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 3072,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
}
_FAIRSEQ_NAMES = {  # name of ESPnet's class -> fairseq's, and ESPnet's default
    "output_size": ("encoder_embed_dim", 1024),
    "linear_units": ("encoder_ffn_embed_dim", 1024),
    "attention_heads": ("encoder_attention_heads", 12),
    "num_blocks": ("encoder_layers", 12),
    "dropout_rate": ("dropout", 0.0),
    "attention_dropout_rate": ("attention_dropout", 0.0),
}


def is_espnet(content: Any) -> bool:
    """Return whether the content of a file has the tensors of one of ESPnet's HuBERT encoders."""
    return any(str(name).startswith((TORCHAUDIO, FAIRSEQ)) for name in _tensors(content))


def read(content: Any, sibling: Sibling, source: str) -> Weights:
    """Return the configuration and tensors, by our names, of a checkpoint that :func:`is_espnet` recognises.

    Loss, mask embedding and whatever else is outside of the encoder are left out.

    Args:
        content: result of :func:`~s3prl_dphubert.checkpoints.unpickler.read_foreign_pickle`: a state dict
            (``valid.loss.ave.pth``), or ``checkpoint.pth`` of ESPnet's trainer.
        sibling: locates files in the folder of the checkpoint.
        source: origin of the content, for messages.

    Raises:
        CheckpointError: ``config.yaml`` is missing or has a part that would change the result and has no
            counterpart here, or a tensor is unknown; the message names it.
    """
    values = _read_config_file(sibling, source)
    settings = values.get("encoder_conf") or {}
    faults = [
        f"{name} is {shown(values[name])}, allowed: null" for name in _OUTSIDE if _is_used(values, name)
    ]
    if not isinstance(settings, dict):
        faults.append(f"encoder_conf is {shown(settings)}, expected a mapping")
    if faults:
        raise CheckpointError(f"{source}: {CONFIG}: " + "; ".join(faults))
    tensors = _tensors(content)
    prefix = next(p for p in (TORCHAUDIO, FAIRSEQ) if any(name.startswith(p) for name in tensors))
    state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if prefix == FAIRSEQ:
        return fairseq.read_parts(_fairseq_settings(settings), {}, state, source)
    config = read_torchaudio_config(settings, source)
    return config, add_extractor_scale(torchaudio.MAPPING.translate(state, source), config)


def read_torchaudio_config(settings: dict[str, Any], source: str) -> ModelConfig:
    """Convert ``encoder_conf`` of ``encoder: torchaudio_hubert``."""
    v = {**_TORCHAUDIO_DEFAULTS, **settings}
    if faults := count_faults(v, "encoder_num_layers", "encoder_num_heads"):
        raise CheckpointError(f"{source}: {CONFIG}: encoder_conf: " + "; ".join(faults))
    channels, kernels, strides = zip(*v["extractor_conv_layer_config"], strict=True)
    layers, heads = v["encoder_num_layers"], v["encoder_num_heads"]
    return ModelConfig(
        extractor_mode=v["extractor_mode"],
        conv_channels=channels,
        conv_kernels=kernels,
        conv_strides=strides,
        conv_bias=v["extractor_conv_bias"],
        embed_dim=v["encoder_embed_dim"],
        total_heads=heads,
        head_dim=v["encoder_embed_dim"] // heads,
        heads=dense_heads(layers, heads),
        ffn=(v["encoder_ff_interm_features"],) * layers,
        pos_conv_kernel=v["encoder_pos_conv_kernel"],
        pos_conv_groups=v["encoder_pos_conv_groups"],
        layer_norm_first=v["encoder_layer_norm_first"],
        projection_dropout=v["encoder_projection_dropout"],
        attention_dropout=v["encoder_attention_dropout"],
        ffn_dropout=v["encoder_ff_interm_dropout"],
        dropout=v["encoder_dropout"],
    )


def _fairseq_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Convert ``encoder_conf`` of ``encoder: hubert_pretrain``; other names than ESPnet's are fairseq's."""
    named = {theirs: settings.get(name, default) for name, (theirs, default) in _FAIRSEQ_NAMES.items()}
    others = {name: value for name, value in settings.items() if name not in (*_FAIRSEQ_NAMES, "normalize")}
    return named | others


def _tensors(content: Any) -> dict[str, Any]:
    """Return the state dict in a file; of ESPnet's trainer it is one of several parts."""
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    return content if isinstance(content, dict) and all(isinstance(name, str) for name in content) else {}


def _read_config_file(sibling: Sibling, source: str) -> dict[str, Any]:
    path = sibling(CONFIG)
    if path is None:
        raise CheckpointError(f"{source}: a checkpoint of ESPnet, whose {CONFIG} is missing beside it")
    with reading(path, CheckpointError, "YAML"):
        values = parse_yaml(read_limited(path, LARGEST_YAML))
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {shown(values)}, expected a mapping")
    return values


def _is_used(values: dict[str, Any], name: str) -> bool:
    """Return whether ESPnet puts this part before the encoder; ``input_size`` switches the frontend off."""
    return values.get(name) is not None and not (name == "frontend" and values.get("input_size") is not None)
