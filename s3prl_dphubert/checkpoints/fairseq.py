"""Convert checkpoints of fairseq (HuBERT, wav2vec 2.0, data2vec audio) and WavLM, and s3prl's copies of them.

fairseq itself is not needed: the settings and tensors are read from the file without its classes.
"""

from __future__ import annotations

import ast
from typing import Any

import torch

from ..errors import CheckpointError, shown
from ..model import ModelConfig
from ..model.model_config import MAX_CONVOLUTIONS, dense_heads
from .dphubert_pth import TABLE
from .key_mapping import (
    KeyMapping,
    State,
    Weights,
    add_extractor_scale,
    batch_norm_conv,
    count_faults,
    fold_batch_norm,
    positional_conv,
)
from .teachers import TEACHERS, is_hubert_large
from .unpickler import plain

_DEFAULTS = {  # fairseq's own, for fields that a checkpoint leaves out
    "extractor_mode": "default",
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "layer_norm_first": False,
    "conv_feature_layers": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2",
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "pos_conv_depth": 1,
    "conv_pos_batch_norm": False,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
}
_ONLY = {  # what would change the result and has no counterpart here
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "quantize_input": False,
    "crop_seq_to_multiple": 1,
}
_LONGEST_TEXT = 10_000  # of the convolutions
_MODES = {"default": "group_norm", "layer_norm": "layer_norm"}
_DATA2VEC_2 = "modality_encoders."
_FINE_TUNED = ("w2v_encoder.w2v_model.", "encoder.w2v_model.")  # prefixes of CTC and seq2seq models

_LAYER = r"encoder\.layers\.(\d+)\."
_OURS = r"encoder.transformer.layers.\1."
MAPPING = KeyMapping(
    {
        r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)": (
            r"feature_extractor.conv_layers.\1.conv.\2"
        ),
        r"feature_extractor\.conv_layers\.(0)\.2\.(weight|bias)": (
            r"feature_extractor.conv_layers.\1.layer_norm.\2"
        ),
        r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.(weight|bias)": (
            r"feature_extractor.conv_layers.\1.layer_norm.\2"
        ),
        r"layer_norm\.(weight|bias)": r"encoder.feature_projection.layer_norm.\1",
        r"post_extract_proj\.(weight|bias)": r"encoder.feature_projection.projection.\1",
        **positional_conv(r"encoder\.pos_conv\.0\."),
        r"encoder\.pos_conv\.(\d+)\.0\.(weight|bias)": (
            r"encoder.transformer.pos_conv_embed.layers.\1.conv.\2"
        ),
        r"encoder\.(layer_norm\.(?:weight|bias))": r"encoder.transformer.\1",
        r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight": TABLE,
        rf"{_LAYER}self_attn\.((?:[qkv]|out)_proj\.(?:weight|bias))": rf"{_OURS}attention.\2",
        rf"{_LAYER}self_attn\.grep_a": rf"{_OURS}attention.gru_rel_pos_const",
        rf"{_LAYER}self_attn\.grep_linear\.(weight|bias)": rf"{_OURS}attention.gru_rel_pos_linear.\2",
        rf"{_LAYER}self_attn_layer_norm\.(weight|bias)": rf"{_OURS}layer_norm.\2",
        rf"{_LAYER}final_layer_norm\.(weight|bias)": rf"{_OURS}final_layer_norm.\2",
        rf"{_LAYER}fc1\.(weight|bias)": rf"{_OURS}feed_forward.intermediate_dense.\2",
        rf"{_LAYER}fc2\.(weight|bias)": rf"{_OURS}feed_forward.output_dense.\2",
    },
    ignored=(
        "mask_emb",
        "label_embs_concat",
        "_ema",
        r"(?:final_proj|quantizer|project_q|target_glu)\..*",
    ),
)

BATCH_NORM_MAPPING = KeyMapping(
    batch_norm_conv(r"encoder\.pos_conv\.0\.", r"encoder\.pos_conv\.1\.") | MAPPING.renames,
    ignored=(*MAPPING.ignored, r"encoder\.pos_conv\.0\.num_batches_tracked"),
)


def is_fairseq(content: Any) -> bool:
    """Return whether the content of a file has one of the three forms."""
    return isinstance(content, dict) and (
        {"model_cfg", "model_weight"} <= set(content)
        or ("model" in content and not {"cfg", "args"}.isdisjoint(content))
    )


def read(content: dict[str, Any], source: str) -> Weights:
    """Return the configuration and tensors, by our names, of a checkpoint that :func:`is_fairseq` recognises.

    Quantiser, heads, mask embedding and averaged weights (EMA) are left out. HuBERT Large, which was trained
    without dropout, gets that of its published compression, as the model of this name on the Hub does.

    Args:
        content: result of :func:`~s3prl_dphubert.checkpoints.unpickler.read_foreign_pickle`.
        source: origin of the content, for messages.

    Raises:
        CheckpointError: the model has a part that would change the result and has no counterpart
            here, or a tensor is unknown; the message names it.
    """
    model, task = _settings(content, source)
    state = content.get("model_weight", content.get("model"))
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{source}: expected tensors by name")
    if any(name.startswith(_DATA2VEC_2) for name in state):
        raise CheckpointError(
            f"{source}: data2vec 2.0 ({_DATA2VEC_2}*), whose attention biases (ALiBi) have no counterpart "
            "here; data2vec 1.0 can be loaded"
        )
    for prefix in _FINE_TUNED:
        if any(name.startswith(prefix) for name in state):
            state, model, task = _fine_tuned(state, prefix, model, task, source)
            return read_parts(model, task, state, source)
    config, state = read_parts(model, task, state, source)
    if _is_hubert(model, content) and is_hubert_large(config):
        config = TEACHERS["hubert_large"].as_trained(config)
    return config, state


def read_parts(model: dict[str, Any], task: dict[str, Any], state: dict[str, Any], source: str) -> Weights:
    """Return the configuration and tensors, by our names, given fairseq's settings and tensors.

    Args:
        model: settings of the model.
        task: settings of its task.
        state: tensors of the encoder.
        source: their origin, for messages.

    Raises:
        CheckpointError: as :func:`read`.
    """
    config = read_config(model, task, source)
    if config.pos_conv_batch_norm:
        translated = fold_batch_norm(BATCH_NORM_MAPPING.translate(state, source), source)
    else:
        translated = MAPPING.translate(state, source)
    return config, add_extractor_scale(_projected(translated, config), config)


def _settings(content: dict[str, Any], source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a checkpoint's settings of the model and of the task."""
    if "model_weight" in content:
        model, task = plain(content["model_cfg"]), plain(content.get("task_cfg", {}))
    else:
        settings = plain(content.get("cfg") or content.get("args"))
        model, task = _parts(settings)
    if not isinstance(model, dict) or not isinstance(task, dict):
        raise CheckpointError(f"{source}: the settings of the model (cfg or args) are missing")
    return model, task


def _is_hubert(model: dict[str, Any], content: dict[str, Any]) -> bool:
    """Return whether a pre-trained model is a HuBERT, by its name or by the embeddings of its clusters."""
    state = content.get("model_weight", content.get("model"))
    name = model.get("_name") or model.get("arch")
    return str(name).startswith("hubert") or "label_embs_concat" in (state or {})


def _parts(settings: Any) -> tuple[Any, Any]:
    """Model and task: apart since fairseq 0.10, in one before and in WavLM."""
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        return settings["model"], settings.get("task", {})
    return settings, settings


def _fine_tuned(
    state: dict[str, Any], prefix: str, model: dict[str, Any], task: dict[str, Any], source: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the encoder inside a recogniser, with the settings of its own checkpoint."""
    encoder = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    nested, nested_task = _parts(model.get("w2v_args"))
    if not isinstance(nested, dict):
        raise CheckpointError(f"{source}: a fine-tuned model without the settings of its encoder (w2v_args)")
    return encoder, nested, nested_task if "normalize" in nested_task else task


def read_config(model: dict[str, Any], task: dict[str, Any], source: str) -> ModelConfig:
    """Convert fairseq's settings of a model and of its task."""
    v = {**_DEFAULTS, **model}
    faults = [
        f"{name} is {shown(v[name])}, allowed: {allowed!r}"
        for name, allowed in _ONLY.items()
        if v.get(name, allowed) not in (allowed, None)
    ]
    faults += count_faults(v, "encoder_layers", "encoder_attention_heads", "pos_conv_depth")
    if v["relative_position_embedding"] and not v.get("gru_rel_pos"):
        faults.append("gru_rel_pos is false, allowed: true, with relative positions")
    if v["extractor_mode"] not in _MODES:
        faults.append(f"extractor_mode is {shown(v['extractor_mode'])}, allowed: {', '.join(_MODES)}")
    normalize = task.get("normalize", model.get("normalize", False))
    if not isinstance(normalize, bool):
        faults.append(f"normalize is {shown(normalize)}, allowed: true, false")
    if faults:
        raise CheckpointError(f"{source}: " + "; ".join(faults))
    channels, kernels, strides = zip(*conv_layers(v["conv_feature_layers"]), strict=True)
    heads, layers, depth = v["encoder_attention_heads"], v["encoder_layers"], v["pos_conv_depth"]
    return ModelConfig(
        extractor_mode=_MODES[v["extractor_mode"]],
        conv_channels=channels,
        conv_kernels=kernels,
        conv_strides=strides,
        conv_bias=v["conv_bias"],
        embed_dim=v["encoder_embed_dim"],
        total_heads=heads,
        head_dim=v["encoder_embed_dim"] // heads,
        heads=dense_heads(layers, heads),
        ffn=(v["encoder_ffn_embed_dim"],) * layers,
        pos_conv_kernel=max(3, v["conv_pos"] // depth) if depth > 1 else v["conv_pos"],
        pos_conv_groups=v["conv_pos_groups"],
        pos_conv_depth=depth,
        pos_conv_batch_norm=depth == 1 and bool(v["conv_pos_batch_norm"]),
        layer_norm_first=v["layer_norm_first"],
        normalize_waveform=normalize,
        num_buckets=v["num_buckets"] if v["relative_position_embedding"] else 0,
        max_distance=v["max_distance"],
        projection_dropout=v["dropout_input"],
        attention_dropout=v["attention_dropout"],
        ffn_dropout=v["activation_dropout"],
        dropout=v["dropout"],
    )


def conv_layers(text: Any) -> list[tuple[int, int, int]]:
    """Parse fairseq's ``[(512,10,5)] + [(512,3,2)] * 4`` into channels, kernel and stride of each layer.

    Raises:
        CheckpointError: the text has anything but sums of lists and their multiples.
    """
    try:
        if isinstance(text, str):
            if len(text) > _LONGEST_TEXT:
                raise ValueError(len(text))
            text = _evaluate(ast.parse(text.strip(), mode="eval").body)
        if len(text) > MAX_CONVOLUTIONS:
            raise ValueError(len(text))
        return [(channels, kernel, stride) for channels, kernel, stride in text]
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"conv_feature_layers is {shown(text)}, expected a list") from error


def _evaluate(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        items = [_evaluate(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        times = right if isinstance(node.op, ast.Mult) and right in range(MAX_CONVOLUTIONS + 1) else None
        if times is not None and isinstance(left, list) and len(left) * times <= MAX_CONVOLUTIONS:
            return left * times
    raise ValueError(type(node).__name__)


def _projected(state: State, config: ModelConfig) -> State:
    """Add an identity projection where fairseq has none, because it would not change the width."""
    name = "encoder.feature_projection.projection"
    width = config.embed_dim
    if f"{name}.weight" in state or config.conv_channels[-1] != width:
        return state
    return {**state, f"{name}.weight": torch.eye(width), f"{name}.bias": torch.zeros(width)}
