"""The released ``.pth`` format: names, configuration keys and gates of the published code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import build_model, checked_config, load_weights_only
from ..pruning.gated_model import GateConfig, Student
from ..utils.files import replacing

TABLE = "encoder.transformer.relative_positions.rel_attn_embed.weight"
RELEASED_TABLE = "encoder.transformer.layers.0.attention.rel_attn_embed.weight"
_GATE = re.compile(
    r"^(?:feature_extractor\.conv_layers\.(?P<conv>\d+)\.hard_concrete"
    r"|encoder\.transformer\.layers\.(?P<layer>\d+)\.(?P<block>attention|feed_forward)"
    r"\.hard_concrete_for_(?P<kind>heads|intermediate|layer))\.log_alpha$"
)
_RENAMES = (
    (re.compile(f"^{re.escape(RELEASED_TABLE)}$"), TABLE),
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


def write(model: SpeechModel, path: str | Path, dtype: torch.dtype | None = None) -> dict[str, int]:
    """Write a model in the released format, so that the published code loads it with strict keys.

    That code knows no sublayer of which only the bias is left: such a one is written as one head or
    unit of zero weights beside the bias, which computes the same. The position table of WavLM lies in
    its first layer there, which gets a head of zeros if it has no attention and a later layer has.

    Args:
        model: what to write.
        path: file that does not exist yet.
        dtype: store weights in that type.

    Returns:
        Parameters that were added to the model's own, by the names of their tensors.

    Raises:
        CheckpointError: ``path`` exists or cannot be written, or the format cannot say the model.
    """
    path = Path(path)
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose another place or remove it first")
    depth = model.config.pos_conv_depth
    if depth != 1:
        raise CheckpointError(
            f"the released format has no data2vec positional block: pos_conv_depth is {depth}, allowed: 1"
        )
    heads, ffn = _without_empty_sublayers(model.config)
    own = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    state = _released_state(model.config, own, heads, ffn)
    added = {name: tensor.numel() - _size_of(own, name) for name, tensor in state.items()}
    content = {
        "state_dict": {name: tensor.to(dtype or tensor.dtype) for name, tensor in state.items()},
        "config": _released_config(model.config, heads, ffn),
        "distill_linear_projs": {},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
        raise CheckpointError(f"{path}: cannot be written ({error})") from error
    return {name: count for name, count in added.items() if count}


def _size_of(own: dict[str, Tensor], released_name: str) -> int:
    name = TABLE if released_name == RELEASED_TABLE else released_name
    return own[name].numel() if name in own else 0


def _without_empty_sublayers(
    config: ModelConfig,
) -> tuple[list[tuple[int, ...] | None], list[int | None]]:
    """Heads and units per layer as they are written, the stand-ins for empty sublayers included."""
    heads = [(0,) if kept == () else kept for kept in config.heads]
    if config.num_buckets and heads[0] is None and any(heads):
        heads[0] = (0,)
    return heads, [1 if width == 0 else width for width in config.ffn]


def _released_config(
    config: ModelConfig, heads: list[tuple[int, ...] | None], ffn: list[int | None]
) -> dict[str, Any]:
    layers = config.num_layers
    values = {
        "extractor_mode": config.extractor_mode,
        "extractor_conv_layer_config": list(
            zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True)
        ),
        "extractor_conv_bias": config.conv_bias,
        "encoder_embed_dim": config.embed_dim,
        "encoder_projection_dropout": config.projection_dropout,
        "encoder_pos_conv_kernel": config.pos_conv_kernel,
        "encoder_pos_conv_groups": config.pos_conv_groups,
        "encoder_num_layers": layers,
        "encoder_use_attention": [kept is not None for kept in heads],
        "encoder_use_feed_forward": [width is not None for width in ffn],
        "encoder_attention_dropout": config.attention_dropout,
        "encoder_ff_interm_features": [width or 0 for width in ffn],
        "encoder_ff_interm_dropout": config.ffn_dropout,
        "encoder_dropout": config.dropout,
        "encoder_layer_norm_first": config.layer_norm_first,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
        "normalize_waveform": config.normalize_waveform,
        "extractor_prune_conv_channels": False,
        "encoder_prune_attention_heads": False,
        "encoder_prune_attention_layer": False,
        "encoder_prune_feed_forward_intermediate": False,
        "encoder_prune_feed_forward_layer": False,
    }
    if not config.num_buckets:
        counts = [len(kept or ()) for kept in heads]
        return values | {"encoder_num_heads": counts, "encoder_head_dim": config.head_dim}
    return values | {
        "encoder_total_num_heads": [config.total_heads] * layers,
        "encoder_remaining_heads": [list(kept or ()) for kept in heads],
        "encoder_num_buckets": config.num_buckets,
        "encoder_max_distance": config.max_distance,
    }


def _released_state(
    config: ModelConfig, own: dict[str, Tensor], heads: list[tuple[int, ...] | None], ffn: list[int | None]
) -> dict[str, Tensor]:
    state = {name: tensor for name, tensor in own.items() if name != TABLE}
    for index, (kept, width) in enumerate(zip(heads, ffn, strict=True)):
        layer = f"encoder.transformer.layers.{index}"
        if kept is not None and not config.heads[index]:
            state |= _zero_head(config, f"{layer}.attention", own)
        if width is not None and not config.ffn[index]:
            bias = f"{layer}.feed_forward.output_dense.bias"
            state |= _zero_linear(f"{layer}.feed_forward.intermediate_dense", config.embed_dim, 1)
            state |= _zero_linear(f"{layer}.feed_forward.output_dense", 1, config.embed_dim)
            state[bias] = own[bias]
    if config.num_buckets and heads[0] is not None:
        empty = torch.zeros(config.num_buckets, config.total_heads)
        state[RELEASED_TABLE] = own.get(TABLE, empty)
    return state


def _zero_linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.zeros(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


def _zero_head(config: ModelConfig, name: str, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """One head that adds nothing but the output bias, if there is one."""
    width, total = config.head_dim, config.total_heads
    state = _zero_linear(f"{name}.out_proj", width, config.embed_dim)
    for projection in ("q_proj", "k_proj", "v_proj"):
        state |= _zero_linear(f"{name}.{projection}", config.embed_dim, width)
    if config.num_buckets:
        state |= _zero_linear(f"{name}.gru_rel_pos_linear", width, 8)
        state[f"{name}.gru_rel_pos_const"] = torch.ones(1, total, 1, 1)
    bias = f"{name}.out_proj.bias"
    return state | {bias: own.get(bias, state[bias])}


def load_student(source: str | Path, exact: bool = True) -> Student:
    """Load a student in stage 1, with its gates, from a ``.pth`` of the published code.

    Raises:
        CheckpointError: as :func:`load_model`, or there are no gates.
    """
    source = Path(source)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file")
    config, state, log_alphas = read_released(source)
    if not log_alphas:
        raise CheckpointError(f"{source}: holds no gates (hard_concrete.log_alpha)")
    kinds = tuple(dict.fromkeys(kind for kind, _ in log_alphas))
    student = Student(build_model(config, state, source), GateConfig(kinds=kinds, exact=exact))
    for kind, layer, gate in student.gates.items():
        if (kind, layer) not in log_alphas:
            raise CheckpointError(f"{source}: log_alpha of {kind} {layer} is missing")
        found, wanted = log_alphas[kind, layer].shape, gate.log_alpha.shape
        if found != wanted:
            message = f"log_alpha of {kind} {layer} has shape {tuple(found)}, expected {tuple(wanted)}"
            raise CheckpointError(f"{source}: {message}")
        gate.log_alpha.data.copy_(log_alphas[kind, layer])
    return student.eval()


def read_released(source: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    content = load_weights_only(source)
    for name in ("state_dict", "config"):
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise CheckpointError(f"{source}: {name} is missing; not a released checkpoint")
    config = checked_config(lambda: read_config(content["config"]), source)
    weights, gates = read_state(content["state_dict"])
    return config, weights, gates
