"""Models of Hugging Face's ``transformers``: ``config.json`` with safetensors or ``.bin`` files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..constants import SAMPLE_RATE
from ..errors import CheckpointError, shown
from ..model import ModelConfig
from ..model.model_config import dense_heads
from ..utils import readers
from .directory import read_tensors
from .dphubert_pth import TABLE
from .key_mapping import (
    KeyMapping,
    Weights,
    add_extractor_scale,
    batch_norm_conv,
    count_faults,
    fold_batch_norm,
    positional_conv,
)
from .teachers import recognize
from .unpickler import read_foreign_pickle

Find = Callable[[str], Path | None]
"""File name -> its path in a directory or in the Hub's cache, ``None`` if there is no such file."""

PREFIXES = {
    "hubert": "hubert.",
    "wav2vec2": "wav2vec2.",
    "wavlm": "wavlm.",
    "data2vec-audio": "data2vec_audio.",
    "unispeech": "unispeech.",
    "unispeech-sat": "unispeech_sat.",
}
"""Model type in config.json -> prefix of the encoder's tensors in a model with heads."""

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"

_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "feat_proj_layer_norm": True,
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": (512,) * 7,
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "conv_pos_batch_norm": False,
    "do_stable_layer_norm": False,
    "adapter_attn_dim": None,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
_DATA2VEC_DEFAULTS = {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19}
_ONLY = {  # what would change the result and has no counterpart here
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "feat_extract_norm": ("group", "layer"),
    "feat_proj_layer_norm": (True, False),
    "conv_pos_batch_norm": (True, False),
}
_OF_HUBERT = {"feat_proj_layer_norm": True, "conv_pos_batch_norm": False}  # which other families ignore
_WITHOUT_ADAPTERS = ("wavlm", "data2vec-audio")  # families that ignore adapter_attn_dim

_LAYER = r"encoder\.layers\.(\d+)\."
_OURS = r"encoder.transformer.layers.\1."
ENCODER = KeyMapping(
    {
        r"(feature_extractor\.conv_layers\.\d+\.(?:conv|layer_norm)\.(?:weight|bias))": r"\1",
        r"(feature_projection\.(?:layer_norm|projection)\.(?:weight|bias))": r"encoder.\1",
        **positional_conv(r"encoder\.pos_conv_embed\.conv\."),
        r"encoder\.(pos_conv_embed\.layers\.\d+\.conv\.(?:weight|bias))": r"encoder.transformer.\1",
        r"encoder\.(layer_norm\.(?:weight|bias))": r"encoder.transformer.\1",
        r"encoder\.layers\.0\.attention\.rel_attn_embed\.weight": TABLE,
        rf"{_LAYER}(attention\.(?:[qkv]|out)_proj\.(?:weight|bias))": rf"{_OURS}\2",
        rf"{_LAYER}(attention\.gru_rel_pos_(?:const|linear\.weight|linear\.bias))": rf"{_OURS}\2",
        rf"{_LAYER}(feed_forward\.(?:intermediate|output)_dense\.(?:weight|bias))": rf"{_OURS}\2",
        rf"{_LAYER}((?:final_)?layer_norm\.(?:weight|bias))": rf"{_OURS}\2",
        rf"{_LAYER}adapter_layer\.((?:norm|linear_[12])\.(?:weight|bias))": rf"{_OURS}adapter.\2",
    },
    ignored=("masked_spec_embed", r"adapter\..*"),  # the adapter comes after the last layer
)

BATCH_NORM_ENCODER = KeyMapping(
    batch_norm_conv(r"encoder\.pos_conv_embed\.batch_norm\.", r"encoder\.pos_conv_embed\.conv\.")
    | ENCODER.renames,
    ignored=(*ENCODER.ignored, r"encoder\.pos_conv_embed\.batch_norm\.num_batches_tracked"),
)


def read(find: Find, source: str, repository: str = "") -> Weights:
    """Read the configuration and tensors, by our names, of a model of one of these families.

    They are those of :data:`PREFIXES`: HuBERT, wav2vec 2.0, WavLM, data2vec, UniSpeech and UniSpeech-SAT.

    Heads for training and recognition are left out. Hidden state 0 of our model is the output of
    ``feature_projection`` and the others are those of the layers; the ``hidden_states`` of
    ``transformers`` are other tensors.

    Waveforms are normalised as preprocessor_config.json says or, without that file, exactly if every conv
    layer has a LayerNorm. A published model, or a copy of it, has the normalisation and dropout of its
    training instead (:func:`~.teachers.recognize`).

    Args:
        find: locates the files.
        source: origin of the files, for messages.
        repository: ``user/repo`` that the files come from, if they are on the Hub.

    Raises:
        CheckpointError: a file is missing or damaged, or the model has a part that would change
            the result and has no counterpart here; the message names it.
    """
    values = read_json(find, CONFIG, source)
    kind = values.get("model_type")
    if kind not in PREFIXES:
        raise CheckpointError(
            f"{source}: model_type is {shown(kind)}, allowed: dphubert, {', '.join(PREFIXES)}"
        )
    teacher = recognize(values, repository)
    if teacher is None:
        config = read_config(kind, values, source, _normalizes(find, source))
    else:
        config = teacher.as_trained(read_config(kind, values, source, teacher.normalize))
    tensors = _encoder(_weights(find, source), PREFIXES[kind])
    if config.pos_conv_batch_norm:
        state = fold_batch_norm(BATCH_NORM_ENCODER.translate(tensors, source), source)
    else:
        state = ENCODER.translate(tensors, source)
    return config, add_extractor_scale(state, config)


def read_json(find: Find, name: str, source: str) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    path = find(name)
    if path is None:
        raise CheckpointError(f"{source}: {name} is missing")
    return readers.read_json(path, CheckpointError, source=source)


def read_config(kind: str, values: dict[str, Any], source: str, normalize: bool | None) -> ModelConfig:
    """Convert the values of config.json; fields that it leaves out get the defaults of ``transformers``."""
    data2vec = kind == "data2vec-audio"
    v = {**_DEFAULTS, **(_DATA2VEC_DEFAULTS if data2vec else {}), **values}
    if data2vec:  # its code implements only these, whatever the fields say
        v |= {"feat_extract_norm": "layer", "do_stable_layer_norm": False}
    if kind != "hubert":
        v |= _OF_HUBERT
    if kind in _WITHOUT_ADAPTERS or not v["do_stable_layer_norm"]:
        v["adapter_attn_dim"] = None
    faults = [
        f"{name} is {shown(v[name])}, allowed: {', '.join(map(repr, allowed))}"
        for name, allowed in _ONLY.items()
        if v[name] not in allowed
    ]
    faults += count_faults(v, "num_hidden_layers", "num_attention_heads")
    if data2vec:
        faults += count_faults(v, "num_conv_pos_embeddings")
    if data2vec and v["num_conv_pos_embeddings"] == 1:
        faults.append("num_conv_pos_embeddings is 1, allowed for data2vec: 2 or more")
    if faults:
        raise CheckpointError(f"{source}: {CONFIG}: " + "; ".join(faults))
    layer_norm = v["feat_extract_norm"] == "layer"
    heads, layers = v["num_attention_heads"], v["num_hidden_layers"]
    return ModelConfig(
        extractor_mode="layer_norm" if layer_norm else "group_norm",
        conv_channels=v["conv_dim"],
        conv_kernels=v["conv_kernel"],
        conv_strides=v["conv_stride"],
        conv_bias=v["conv_bias"],
        embed_dim=v["hidden_size"],
        total_heads=heads,
        head_dim=v["hidden_size"] // heads,
        heads=dense_heads(layers, heads),
        ffn=(v["intermediate_size"],) * layers,
        pos_conv_kernel=v["conv_pos_kernel_size"] if data2vec else v["num_conv_pos_embeddings"],
        pos_conv_groups=v["num_conv_pos_embedding_groups"],
        pos_conv_depth=v["num_conv_pos_embeddings"] if data2vec else 1,
        pos_conv_batch_norm=v["conv_pos_batch_norm"],
        projection_norm=v["feat_proj_layer_norm"],
        layer_norm_first=v["do_stable_layer_norm"],
        layer_norm_eps=v["layer_norm_eps"],
        adapter_dim=v["adapter_attn_dim"] or 0,
        normalize_waveform=layer_norm if normalize is None else normalize,
        normalize_eps=1e-7,  # of Wav2Vec2FeatureExtractor
        num_buckets=v["num_buckets"] if kind == "wavlm" else 0,
        max_distance=v["max_bucket_distance"],
        projection_dropout=v["feat_proj_dropout"],
        attention_dropout=v["attention_dropout"],
        ffn_dropout=v["activation_dropout"],
        dropout=v["hidden_dropout"],
    )


def _normalizes(find: Find, source: str) -> bool | None:
    """Return whether preprocessor_config.json asks for normalised waveforms, ``None`` without that file."""
    if find(PREPROCESSOR) is None:
        return None
    values = read_json(find, PREPROCESSOR, source)
    rate, normalize = values.get("sampling_rate", SAMPLE_RATE), values.get("do_normalize", True)
    if rate != SAMPLE_RATE:
        raise CheckpointError(f"{source}: sampling_rate is {shown(rate)}, allowed: {SAMPLE_RATE}")
    if not isinstance(normalize, bool):
        raise CheckpointError(f"{source}: do_normalize is {shown(normalize)}, allowed: true, false")
    return normalize


def _encoder(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the encoder's tensors without the prefix that they have in a model with heads.

    What is outside the prefix, such as heads of any kind, cannot change the encoder and is passed over.
    """
    encoder = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    return encoder or state


def _weights(find: Find, source: str) -> dict[str, Any]:
    """Read all tensors, from one file or from those that an index lists; safetensors are preferred."""
    for name in WEIGHTS:
        path = find(name)
        if path is not None:
            return _read_weights(path)
        if find(name + INDEX) is not None:
            return _shards(find, name + INDEX, source)
    raise CheckpointError(f"{source}: {' or '.join(WEIGHTS)} is missing, whole or in parts with {INDEX}")


def _shards(find: Find, index: str, source: str) -> dict[str, Any]:
    names = read_json(find, index, source).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise CheckpointError(f"{source}: {index} has no weight_map from tensors to files")
    state: dict[str, Any] = {}
    for file in sorted(set(names.values())):
        path = find(file) if Path(file).name == file else None
        if path is None:
            raise CheckpointError(f"{source}: {shown(file)}, which {index} lists, is missing")
        state |= _read_weights(path)
    return state


def _read_weights(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return dict(read_tensors(path))
    content = read_foreign_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{path}: expected tensors by name")
    if isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: its tensors are inside state_dict; save that mapping alone")
    if content and all(name.startswith("module.") for name in content):
        raise CheckpointError(f"{path}: its names begin with module.; save model.module.state_dict()")
    return content
