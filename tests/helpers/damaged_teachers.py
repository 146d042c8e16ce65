"""Damaged teachers of other projects; cases of ``damage.py``."""

from __future__ import annotations

import argparse
import json
import re

import torch
from safetensors.torch import save_file

from s3prl_dphubert.checkpoints.load import load_teacher
from s3prl_dphubert.errors import CheckpointError
from tests.helpers.damage import changed, damaged, ended, flip, reshaped, runs
from tests.helpers.models import tiny

NAMES = {  # ours -> fairseq's
    r"feature_extractor\.conv_layers\.(\d+)\.conv\.": r"feature_extractor.conv_layers.\1.0.",
    r"feature_extractor\.conv_layers\.0\.layer_norm\.": "feature_extractor.conv_layers.0.2.",
    r"encoder\.feature_projection\.layer_norm\.": "layer_norm.",
    r"encoder\.feature_projection\.projection\.": "post_extract_proj.",
    r"encoder\.transformer\.pos_conv_embed\.conv\.": "encoder.pos_conv.0.",
    r"encoder\.transformer\.": "encoder.",
    r"\.attention\.": ".self_attn.",
    r"(layers\.\d+)\.layer_norm\.": r"\1.self_attn_layer_norm.",
    r"feed_forward\.intermediate_dense\.": "fc1.",
    r"feed_forward\.output_dense\.": "fc2.",
}


def fairseq(random, folder):
    """A damaged file of fairseq's form, in either of torch's formats."""
    model = tiny("hubert")
    state = {}
    for name, tensor in model.state_dict().items():
        for pattern, theirs in NAMES.items():
            name = re.sub(pattern, theirs, name)
        state[name] = tensor
    del state["feature_extractor.dummy_weight"]
    settings = {
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 4,
        "conv_feature_layers": "[(12,10,5)] + [(12,3,2)] * 4 + [(12,2,2)] * 2",
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "normalize": False,
    }
    way, place = random.integers(5), folder / "a.pt"
    settings = changed(settings, random) if way == 0 else settings
    state = reshaped(state, random) if way == 1 else state
    zipped = bool(random.integers(2))
    content = {"args": argparse.Namespace(**settings), "model": state}
    torch.save(content, place, _use_new_zipfile_serialization=zipped)
    data = place.read_bytes()
    if way == 2:
        place.write_bytes(damaged(data, random))
    elif way == 3:  # the pickle lies in front in both formats
        place.write_bytes(flip(data, random, 6000))
    elif way == 4:
        place.write_bytes(data[:-3000] + flip(data[-3000:], random))
    return place


def huggingface(random, folder):
    """A damaged directory as transformers writes it."""
    model = tiny("hubert")
    state = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^encoder\.(?:transformer\.)?", "encoder.", name)
        state[name.replace("encoder.feature_projection", "feature_projection")] = tensor
    del state["feature_extractor.dummy_weight"]
    values = {
        "model_type": "hubert",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "conv_dim": [12] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    way = random.integers(4)
    text = json.dumps(changed(values, random) if way == 0 else values).encode()
    (folder / "config.json").write_bytes(damaged(text, random) if way == 1 else text)
    state = reshaped(state, random) if way == 2 else state
    weights = folder / str(random.choice(["model.safetensors", "pytorch_model.bin"]))
    save_file(state, weights) if weights.suffix == ".safetensors" else torch.save(state, weights)
    if way == 3:
        weights.write_bytes(damaged(weights.read_bytes(), random))
    return folder


def teacher(index, random, folder):
    """One damaged teacher of another project."""
    place = (fairseq if index % 2 else huggingface)(random, folder)
    return ended(lambda: load_teacher(place), CheckpointError, runs)
