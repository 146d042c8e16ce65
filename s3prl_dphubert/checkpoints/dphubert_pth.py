"""The ``.pth`` format of the published DPHuBERT code: names, configuration keys and gates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError, shown
from ..model import ModelConfig, SpeechModel
from ..model.model_config import MAX_CONVOLUTIONS, MAX_HEADS, MAX_LAYERS
from ..model.state_dict import build_model, checkpoint_errors, not_tensors, raise_tensor_faults
from ..pruning.gated_model import GatedModel
from ..pruning.gates import GateConfig
from ..utils.config_io import is_int
from ..utils.files import replacing
from .key_mapping import State, Weights
from .unpickler import read_foreign_pickle

Gates = dict[tuple[str, int], Tensor]
"""(kind of gate, layer) -> its log_alpha."""

TABLE = "encoder.transformer.relative_positions.rel_attn_embed.weight"
PUBLISHED_TABLE = "encoder.transformer.layers.0.attention.rel_attn_embed.weight"
_GATE = re.compile(
    r"^(?:feature_extractor\.conv_layers\.(?P<conv>\d+)\.hard_concrete"
    r"|encoder\.transformer\.layers\.(?P<layer>\d+)\.(?P<block>attention|feed_forward)"
    r"\.hard_concrete_for_(?P<kind>heads|intermediate|layer))\.log_alpha$"
)
_RENAMES = (
    (re.compile(f"^{re.escape(PUBLISHED_TABLE)}$"), TABLE),
    (re.compile(r"\.parametrizations\.weight\.original0$"), ".weight_g"),
    (re.compile(r"\.parametrizations\.weight\.original1$"), ".weight_v"),
)


def read(content: Any, source: str) -> Weights:
    """Return the configuration and the tensors, by our names, of a published model.

    Args:
        content: content of the file.
        source: origin of the content, for messages.

    Raises:
        CheckpointError: a part is missing, or the file holds a student with gates.
    """
    config, state, gates = _parse(content, source)
    if gates:
        raise CheckpointError(f"{source}: holds the gates of a student in training; prune it first")
    return config, state


def load_student(source: str | Path, exact: bool = True) -> GatedModel:
    """Load a student in stage 1 of the published code, with its gates.

    Args:
        source: ``.pth`` file.
        exact: whether pruning keeps the biases of emptied sublayers, see :class:`GateConfig`.

    Raises:
        CheckpointError: the file is missing or damaged, a tensor or gate is missing or has another
            shape, or there are no gates.
    """
    source = Path(source)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file")
    config, state, log_alphas = _parse(read_foreign_pickle(source), str(source))
    if not log_alphas:
        raise CheckpointError(f"{source}: holds no gates (hard_concrete.log_alpha)")
    kinds = tuple(dict.fromkeys(kind for kind, _ in log_alphas))
    student = GatedModel(build_model(config, state, source), GateConfig(kinds=kinds, exact=exact))
    for kind, layer, gate in student.gates.items():
        log_alpha = log_alphas.get((kind, layer))
        if log_alpha is None:
            raise CheckpointError(f"{source}: log_alpha of {kind} {layer} is missing")
        if log_alpha.shape != gate.log_alpha.shape:
            shapes = f"shape {tuple(log_alpha.shape)}, expected {tuple(gate.log_alpha.shape)}"
            raise CheckpointError(f"{source}: log_alpha of {kind} {layer} has {shapes}")
        gate.log_alpha.data.copy_(log_alpha)
    return student.eval()


def _parse(content: Any, source: str) -> tuple[ModelConfig, State, Gates]:
    for name in ("state_dict", "config"):
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise CheckpointError(f"{source}: {name} is missing; not a published DPHuBERT checkpoint")
    with checkpoint_errors(source):
        try:
            config = _read_config(content["config"])
        except KeyError as error:
            raise CheckpointError(f"{source}: config: {error.args[0]} is missing") from error
        weights, gates = split_state(content["state_dict"])
        log_alphas = {f"log_alpha of {kind} {layer}": gate for (kind, layer), gate in gates.items()}
        raise_tensor_faults(source, not_tensors(log_alphas))
        return config, weights, gates


def _read_config(v: dict[str, Any]) -> ModelConfig:
    wavlm = "encoder_remaining_heads" in v
    rows = v["encoder_remaining_heads" if wavlm else "encoder_num_heads"]
    _check_counts(v, rows)
    layers = range(v["encoder_num_layers"])
    if wavlm:
        heads = [tuple(row) for row in rows]
        total = max(v["encoder_total_num_heads"])
        head_dim = v["encoder_embed_dim"] // total
    else:
        head_dim = v["encoder_head_dim"]
        heads = [tuple(range(n)) for n in rows]
        total = max(v["encoder_embed_dim"] // head_dim, *rows)
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
        heads=tuple(heads[i] if attention[i] else None for i in layers),
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


def _check_counts(v: dict[str, Any], rows: Any) -> None:
    """Refuse numbers of layers, heads or convolutions beyond any model's, before anything is made of them."""
    heads = [row if is_int(row) else len(row) for row in rows[:MAX_LAYERS]]
    counts = (
        ("layers", v["encoder_num_layers"], MAX_LAYERS),
        ("rows of heads", len(rows), MAX_LAYERS),
        ("heads in a layer", max(heads, default=0), MAX_HEADS),
        ("convolutions", len(v["extractor_conv_layer_config"]), MAX_CONVOLUTIONS),
    )
    faults = (
        f"{shown(count)} {what}, allowed: up to {most}"
        for what, count, most in counts
        if not is_int(count) or count > most
    )
    ConfigError.raise_for("config", faults)


def split_state(state: State) -> tuple[State, Gates]:
    """Split a published state into the tensors, by our names, and the gates."""
    weights: State = {}
    gates: Gates = {}
    for name, tensor in state.items():
        if match := _GATE.match(name):
            if match["conv"] is not None:
                gates["conv", int(match["conv"])] = tensor
            else:
                kinds = {"heads": "heads", "intermediate": "ffn", "layer": match["block"]}
                gates[kinds[match["kind"]], int(match["layer"])] = tensor
            continue
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        weights[name] = tensor
    return weights, gates


def write(model: SpeechModel, path: str | Path, dtype: torch.dtype | None = None) -> dict[str, int]:
    """Write a model in the published format, so that the published code loads it with strict keys.

    That code has no sublayer of which only the bias is left: such a sublayer is written as one head or
    unit of zero weights beside the bias, which computes the same. It keeps WavLM's position table in the
    first layer, which gets a head of zeros if it has no attention and a later layer does.

    Args:
        model: model to write.
        path: file that does not exist yet.
        dtype: type of the stored weights; unchanged by default.

    Returns:
        Name of a tensor -> parameters that were added to it.

    Raises:
        CheckpointError: ``path`` exists or cannot be written, or the format cannot express the model.
    """
    path = Path(path)
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose another place or remove it first")
    _raise_if_inexpressible(model.config)
    heads, ffn = _without_empty_sublayers(model.config)
    own = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    state = _published_state(model.config, own, heads, ffn)
    sizes = {name: tensor.numel() for name, tensor in own.items()}
    sizes[PUBLISHED_TABLE] = sizes.get(TABLE, 0)
    added = {name: tensor.numel() - sizes.get(name, 0) for name, tensor in state.items()}
    content = {
        "state_dict": {name: tensor.to(dtype or tensor.dtype) for name, tensor in state.items()},
        "config": _published_config(model.config, heads, ffn),
        "distill_linear_projs": {},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
        raise CheckpointError(f"{path}: cannot be written ({error})") from error
    return {name: count for name, count in added.items() if count}


def _raise_if_inexpressible(config: ModelConfig) -> None:
    """Refuse a model that the published code would compute in another way, naming the reason."""
    only: dict[str, int | float] = {
        "pos_conv_depth": 1,
        "pos_conv_batch_norm": False,
        "projection_norm": True,
        "layer_norm_eps": 1e-5,
        "adapter_dim": 0,
    }
    faults = [
        f"{name} is {getattr(config, name)}, allowed: {allowed}"
        for name, allowed in only.items()
        if getattr(config, name) != allowed
    ]
    if config.normalize_waveform and config.normalize_eps != 1e-5:
        faults.append(f"normalize_eps is {config.normalize_eps:g}, allowed: 1e-5")
    if faults:
        raise CheckpointError(f"the published format cannot express the model: {'; '.join(faults)}")


def _without_empty_sublayers(
    config: ModelConfig,
) -> tuple[list[tuple[int, ...] | None], list[int | None]]:
    """Return heads and units per layer as they are written, with stand-ins for empty sublayers."""
    heads = [(0,) if kept == () else kept for kept in config.heads]
    if config.num_buckets and heads[0] is None and any(heads):
        heads[0] = (0,)
    return heads, [1 if width == 0 else width for width in config.ffn]


def _published_config(
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


def _published_state(
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
        state[PUBLISHED_TABLE] = own.get(TABLE, empty)
    return state


def _zero_linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.zeros(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


def _zero_head(config: ModelConfig, name: str, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one head that adds nothing but the output bias, if there is one."""
    width, total = config.head_dim, config.total_heads
    state = _zero_linear(f"{name}.out_proj", width, config.embed_dim)
    for projection in ("q_proj", "k_proj", "v_proj"):
        state |= _zero_linear(f"{name}.{projection}", config.embed_dim, width)
    if config.num_buckets:
        state |= _zero_linear(f"{name}.gru_rel_pos_linear", width, 8)
        state[f"{name}.gru_rel_pos_const"] = torch.ones(1, total, 1, 1)
    bias = f"{name}.out_proj.bias"
    return state | {bias: own.get(bias, state[bias])}
