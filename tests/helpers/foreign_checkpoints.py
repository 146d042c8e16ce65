"""The tiny HuBERT as other projects name and describe it."""

from __future__ import annotations

import re

from tests.helpers.models import tiny

CONV_LAYERS = [(12, 10, 5), *[(12, 3, 2)] * 4, *[(12, 2, 2)] * 2]
FAIRSEQ_NAMES = {  # ours -> fairseq's
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
TRANSFORMERS_NAMES = {
    r"^encoder\.(?:transformer\.)?": "encoder.",
    r"encoder\.feature_projection": "feature_projection",
}
TORCHAUDIO_NAMES = {
    r"pos_conv_embed\.conv\.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    r"pos_conv_embed\.conv\.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}


def renamed(names):
    """Tensors of the tiny HuBERT under the names of another project."""
    state = {}
    for name, tensor in tiny("hubert").state_dict().items():
        for pattern, theirs in names.items():
            name = re.sub(pattern, theirs, name)
        state[name] = tensor
    del state["feature_extractor.dummy_weight"]
    return state


def fairseq():
    """Settings and tensors of fairseq."""
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
    return settings, renamed(FAIRSEQ_NAMES)


def transformers():
    """Values of config.json and tensors of transformers."""
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
    return values, renamed(TRANSFORMERS_NAMES)


def torchaudio():
    """Arguments of ``wav2vec2_model`` and tensors of torchaudio."""
    arguments = {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": CONV_LAYERS,
        "extractor_conv_bias": False,
        "encoder_embed_dim": 32,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 4,
        "encoder_num_layers": 3,
        "encoder_num_heads": 4,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 24,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }
    return arguments, renamed(TORCHAUDIO_NAMES)
