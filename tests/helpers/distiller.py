"""s3prl's distiller with the weights of a student and heads of this package."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import nn

from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.student_init import DROPOUTS, StudentConfig, init_student
from s3prl_dphubert.model import SpeechModel
from tests.helpers.models import tiny

LAYERS = (1, 2, 3)
OBJECTIVE = ObjectiveConfig(mode="distilhubert", groups=tuple((n,) for n in LAYERS), cos_type="log_sig")
CONFIG = {
    "extractor_mode": "default",
    "extractor_conv_feature_layers": "[(12,10,5)] + [(12,3,2)] * 4 + [(12,2,2)] * 2",
    "feature_grad_mult": 0.1,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 4,
    "final_dim": 32,
    "out_layer_type": "expand-last",
    "n_tasks": len(LAYERS),
    "task_emb_type": "expand-last",
    "loss_type": "l1",
    "cosine_loss": 1.0,
    "pred_layer_id": list(LAYERS),
}
"""``distiller`` of s3prl's config_model.yaml, for the tiny model."""
PREFIXES = {
    "feature_extractor.conv_layers.0.layer_norm.": "feature_extractor.conv_layers.0.2.",
    **{f"feature_extractor.conv_layers.{i}.conv.": f"feature_extractor.conv_layers.{i}.0." for i in range(7)},
    "encoder.feature_projection.projection.": "post_extract_proj.",
    "encoder.transformer.pos_conv_embed.conv.": "encoder.pos_conv.0.",
    "encoder.transformer.layer_norm.": "encoder.layer_norm.",
    "encoder.transformer.layers.": "encoder.layers.",
    "heads.inner.": "output_layer.0.",
    "heads.": "output_layer.2.",
}
"""Prefix of a name here -> in s3prl's distiller."""
PARTS = {
    ".attention.": ".self_attn.",
    ".feed_forward.intermediate_dense.": ".fc1.",
    ".feed_forward.output_dense.": ".fc2.",
}


def parts() -> tuple[SpeechModel, SpeechModel, Objective]:
    """A teacher of 3 layers, its student of 2 and the heads, with weights that any machine draws alike."""
    teacher = tiny("hubert")
    _draw(teacher, "teacher", 0.3)
    config = StudentConfig(layers=2, projection_norm=False, **dict.fromkeys(DROPOUTS, 0.0))
    student = init_student(teacher, config)
    objective = Objective(OBJECTIVE, 32, 32, 2, 3)
    _draw(objective, "heads", 0.2)
    return teacher, student, objective


def waveforms() -> torch.Tensor:
    """Two waveforms (2, 6400)."""
    return torch.from_numpy(np.random.RandomState(1).randn(2, 6400).astype(np.float32))


def _draw(module: nn.Module, seed: str, scale: float) -> None:
    for name, parameter in module.named_parameters():
        if not name.endswith("dummy_weight"):
            random = np.random.RandomState(
                zlib.crc32(f"{seed}.{name}".encode())
            )  # whose stream never changes
            drawn = torch.from_numpy(scale * random.randn(*parameter.shape)).float()
            parameter.data.copy_(drawn + (1 if "norm.weight" in name or "weight_g" in name else 0))


def name_in_s3prl(name: str) -> str:
    """Name of a parameter of ``student`` or ``objective`` in s3prl's distiller."""
    prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
    name = PREFIXES[prefix] + name.removeprefix(prefix)
    for own, other in PARTS.items():
        name = name.replace(own, other)
    if name.startswith("encoder.layers.") and name.split(".")[3] == "layer_norm":
        name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
    return name


def fill(model: Any, student: SpeechModel, objective: Objective) -> None:
    """Copy the weights into s3prl's ``DistillerModel``, and set it to eval mode."""
    state = {**student.state_dict(), **objective.state_dict()}
    del state["feature_extractor.dummy_weight"]
    own = model.state_dict()
    model.load_state_dict(
        {(to := name_in_s3prl(name)): tensor.view(own[to].shape) for name, tensor in state.items()}
    )
    model.eval()
