"""Convert models of ``torchaudio.models`` (wav2vec 2.0, HuBERT, WavLM) and of its bundles."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError
from ..model import ModelConfig
from ..model.model_config import dense_heads
from .dphubert_pth import TABLE
from .key_mapping import KeyMapping, State, Weights, add_extractor_scale, positional_conv

_LAYER = r"(encoder\.transformer\.layers\.\d+\."
MAPPING = KeyMapping(
    {
        r"(feature_extractor\.conv_layers\.\d+\.(?:conv|layer_norm)\.(?:weight|bias))": r"\1",
        r"(encoder\.feature_projection\.(?:layer_norm|projection)\.(?:weight|bias))": r"\1",
        **positional_conv(r"encoder\.transformer\.pos_conv_embed\.conv\."),
        r"(encoder\.transformer\.layer_norm\.(?:weight|bias))": r"\1",
        r"encoder\.transformer\.layers\.0\.attention\.rel_attn_embed\.weight": TABLE,
        rf"{_LAYER}attention\.(?:[qkv]|out)_proj\.(?:weight|bias))": r"\1",
        rf"{_LAYER}attention\.gru_rel_pos_(?:const|linear\.weight|linear\.bias))": r"\1",
        rf"{_LAYER}feed_forward\.(?:intermediate|output)_dense\.(?:weight|bias))": r"\1",
        rf"{_LAYER}(?:final_)?layer_norm\.(?:weight|bias))": r"\1",
    },
    ignored=(r"aux\..*",),
)
_IN_PROJECTION = "attention.attention.in_proj_"
_OUT_PROJECTION = "attention.attention.out_proj."


def read(model: nn.Module, source: str) -> Weights:
    """Return the configuration and tensors, by our names, of a torchaudio model.

    Args:
        model: ``Wav2Vec2Model``, the wrapper that bundles put around it to normalise waveforms, or
            ``HuBERTPretrainModel``; the projection for recognition is left out.
        source: name of the model, for messages.

    Raises:
        CheckpointError: the model is of another class, or has an unknown tensor.
    """
    normalize = bool(getattr(model, "normalize_waveform", False))
    for attribute in ("model", "wav2vec2"):
        model = getattr(model, attribute, model)
    if not (hasattr(model, "feature_extractor") and hasattr(model, "encoder")):
        raise CheckpointError(f"{source}: {type(model).__name__} is not a wav2vec2, HuBERT or WavLM model")
    config = read_config(model, normalize)
    state = _split_projections(model.state_dict())
    return config, add_extractor_scale(MAPPING.translate(state, source), config)


def read_config(model: Any, normalize: bool) -> ModelConfig:
    """Derive the configuration from a model's modules, torchaudio's only record of its shape."""
    convolutions = model.feature_extractor.conv_layers
    encoder, transformer = model.encoder, model.encoder.transformer
    first = transformer.layers[0]
    attention, feed_forward = first.attention, first.feed_forward
    wavlm = hasattr(attention, "gru_rel_pos")
    layer_norm = not isinstance(convolutions[0].layer_norm, nn.GroupNorm)
    dropout = attention.dropout
    return ModelConfig(
        extractor_mode="layer_norm" if layer_norm else "group_norm",
        conv_channels=tuple(layer.conv.out_channels for layer in convolutions),
        conv_kernels=tuple(layer.kernel_size for layer in convolutions),
        conv_strides=tuple(layer.stride for layer in convolutions),
        conv_bias=convolutions[0].conv.bias is not None,
        embed_dim=attention.embed_dim,
        total_heads=attention.num_heads,
        head_dim=attention.embed_dim // attention.num_heads,
        heads=dense_heads(len(transformer.layers), attention.num_heads),
        ffn=(feed_forward.intermediate_dense.out_features,) * len(transformer.layers),
        pos_conv_kernel=transformer.pos_conv_embed.conv.kernel_size[0],
        pos_conv_groups=transformer.pos_conv_embed.conv.groups,
        pos_conv_depth=1,
        layer_norm_first=first.layer_norm_first,
        normalize_waveform=normalize,
        num_buckets=attention.num_buckets if wavlm else 0,
        max_distance=attention.max_distance if wavlm else 800,
        projection_dropout=encoder.feature_projection.dropout.p,
        attention_dropout=dropout.p if isinstance(dropout, nn.Dropout) else dropout,
        ffn_dropout=feed_forward.intermediate_dropout.p,
        dropout=first.dropout.p,
    )


def _split_projections(state: dict[str, Tensor]) -> State:
    """Split the one matrix in which WavLM's queries, keys and values are stored."""
    split: State = {}
    for name, tensor in state.items():
        if _IN_PROJECTION in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                split[name.replace(_IN_PROJECTION, f"attention.{part}_proj.")] = piece
        else:
            split[name.replace(_OUT_PROJECTION, "attention.out_proj.")] = tensor
    return split
