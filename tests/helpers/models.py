"""Tiny models that tests prune, save and compare."""

from __future__ import annotations

import torch

from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.model_config import dense_heads
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import GateConfig

SHAPES = {
    "hubert": {},
    "large": {
        "extractor_mode": "layer_norm",
        "conv_bias": True,
        "layer_norm_first": True,
        "normalize_waveform": True,
    },
    "wavlm": {"num_buckets": 32, "max_distance": 80},
    "data2vec": {"extractor_mode": "layer_norm", "pos_conv_kernel": 5, "pos_conv_depth": 3},
    # BatchNorm as in mHuBERT, no norm before the projection as in DistilHuBERT.
    "mhubert": {"pos_conv_batch_norm": True, "projection_norm": False, "layer_norm_eps": 1e-3},
    "mms": {"extractor_mode": "layer_norm", "conv_bias": True, "layer_norm_first": True, "adapter_dim": 6},
}

_LARGE = {
    "extractor_mode": "layer_norm",
    "embed_dim": 1024,
    "total_heads": 16,
    "heads": dense_heads(24, 16),
    "ffn": (4096,) * 24,
}
_PRE_NORM = {"layer_norm_first": True, "normalize_waveform": True}
_POSITIONS = {"pos_conv_kernel": 19, "pos_conv_depth": 5}
FAMILIES = {
    "hubert_base": ModelConfig(),
    "hubert_large": ModelConfig(conv_bias=True, **_LARGE, **_PRE_NORM),
    "wav2vec2_base": ModelConfig(),
    "wav2vec2_large": ModelConfig(conv_bias=True, **_LARGE, **_PRE_NORM),
    "wavlm_base": ModelConfig(num_buckets=320),
    "wavlm_large": ModelConfig(num_buckets=320, **_LARGE, **_PRE_NORM),
    "data2vec_base": ModelConfig(extractor_mode="layer_norm", normalize_waveform=True, **_POSITIONS),
    "data2vec_large": ModelConfig(normalize_waveform=True, **_LARGE, **_POSITIONS),
}
"""Shapes of the published models."""


def tiny(shape: str, seed: int = 0) -> SpeechModel:
    torch.manual_seed(seed)
    values = {
        "conv_channels": (12,) * 7,
        "embed_dim": 32,
        "total_heads": 4,
        "head_dim": 8,
        "heads": ((0, 1, 2, 3),) * 3,
        "ffn": (24,) * 3,
        "pos_conv_kernel": 16,
        "pos_conv_groups": 4,
    }
    model = SpeechModel(ModelConfig(**values | SHAPES[shape]))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.3)
        elif "batch_norm" in name:
            parameter.data.uniform_(0.5, 2)
    return model.eval()


def gated(model: SpeechModel, spread: float = 2.0, kinds=("conv", "heads", "ffn")) -> GatedModel:
    student = GatedModel(model, GateConfig(kinds=kinds))
    for _, _, gate in student.gates.items():
        gate.log_alpha.data.normal_(0, spread)
    return student.eval()


@torch.no_grad()
def outputs(model, masks=None):
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(7))
    lengths = torch.tensor([4000, 2500])
    kwargs = {} if masks is None else {"masks": masks}
    whole, _ = model.extract_features(waveforms, **kwargs)
    padded, frames = model.extract_features(waveforms, lengths, **kwargs)
    return whole + [state[i, : frames[i]] for state in padded for i in (0, 1)]


def assert_same(a, b, tolerance=1e-4):
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=tolerance, rtol=tolerance)
