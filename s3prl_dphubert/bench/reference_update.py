"""One update of the published implementation, run from a clone of its repository without Lightning."""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.dphubert_pth import write
from ..errors import ConfigError
from ..model import SpeechModel
from ..model.masks import Masks
from ..model.state_dict import load_weights_only
from ..pruning.gates import KINDS
from ..utils.stopwatch import Stopwatch


def matched(layers: int) -> tuple[int, ...]:
    """Return the indices of the matched hidden states: 0, 4, 8 and 12 for 12 layers."""
    return 0, layers // 3, 2 * layers // 3, layers


def is_clone(folder: Path) -> bool:
    """Return whether a folder is a clone of the published repository."""
    return (folder / "wav2vec2" / "model.py").is_file()


def import_published(folder: Path) -> Any:
    """Import the module ``wav2vec2.model`` of a clone.

    Raises:
        ConfigError: the folder has no such module.
    """
    if not is_clone(folder):
        raise ConfigError(f"reference: {folder} has no wav2vec2/model.py, allowed: a clone of pyf98/DPHuBERT")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("wav2vec2.model")
    finally:
        sys.path.remove(str(folder))


def published_model(folder: Path, model: SpeechModel) -> nn.Module:
    """Return the published implementation with the weights of a model, in eval mode."""
    state, config = _released(model)
    published: nn.Module = import_published(folder).wav2vec2_model(**config)
    published.load_state_dict(state)
    return published.eval()


def _released(model: SpeechModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights and configuration of a model as released checkpoints have them."""
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder, "model.pth"))
        saved = load_weights_only(Path(folder, "model.pth"))
    return saved["state_dict"], dict(saved["config"])


class PublishedUpdate:
    """Joint distillation and pruning as published: one loss, one backward pass, one step.

    Args:
        folder: folder of the clone.
        model: teacher, and initial student.
        rate: dropout probability of the student; by default that of HuBERT Base.
        device: device of both.
    """

    def __init__(
        self,
        folder: Path,
        model: SpeechModel,
        rate: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        build = import_published(folder).wav2vec2_model
        state, config = _released(model)
        if rate is not None:
            config |= {name: rate for name in config if name.endswith("dropout")}
        pruning = [
            "extractor_prune_conv_channels",
            "encoder_prune_attention_heads",
            "encoder_prune_feed_forward_intermediate",
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weight norm is deprecated
            self.teacher = build(**config).eval().requires_grad_(False).to(device)
            self.student = build(**config | dict.fromkeys(pruning, True)).train().to(device)
        self.teacher.load_state_dict(state)
        self.student.load_state_dict(state, strict=False)
        self.layers = matched(model.config.num_layers)
        self.full = sum(p.numel() for p in self.teacher.parameters())
        width = model.config.embed_dim
        shared = [nn.Linear(width, width, device=device) for _ in range(2)]
        for projection in shared:
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)
        self.projections = [shared[0], shared[1], shared[1], shared[1]]
        self.multipliers = nn.Parameter(torch.zeros(2, device=device))
        parameters = dict(self.student.named_parameters())
        gates = [p for name, p in parameters.items() if "log_alpha" in name]
        weights = [p for name, p in parameters.items() if "log_alpha" not in name and p.requires_grad]
        weights += [p for projection in shared for p in projection.parameters()]
        groups: list[dict[str, Any]] = [{"params": weights, "lr": 2e-4}, {"params": gates, "lr": 0.02}]
        groups.append({"params": [self.multipliers], "lr": 0.02, "maximize": True})
        self.parameters = [*weights, *gates, self.multipliers]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def set_gates(self, log_alphas: dict[str, dict[int, Tensor]]) -> None:
        """Set log_alpha of the gates, by kind and layer."""
        for kind, rows in log_alphas.items():
            for index, values in rows.items():
                self._gates(kind, index).log_alpha.data.copy_(values)

    def fix(self, masks: Masks) -> None:
        """Use fixed masks instead of samples from now on."""
        for kind in KINDS:
            for index, mask in getattr(masks, kind).items():
                self._gates(kind, index).forward = lambda mask=mask: mask

    def _gates(self, kind: str, index: int) -> Any:
        if kind == "conv":
            return self.student.feature_extractor.conv_layers[index].hard_concrete
        layer = self.student.encoder.transformer.layers[index]
        if kind == "heads":
            return layer.attention.hard_concrete_for_heads
        return layer.feed_forward.hard_concrete_for_intermediate

    def loss(self, waveforms: Tensor, watch: Stopwatch) -> tuple[Tensor, Tensor]:
        """Compute the loss of waveforms (B, T), and its distillation part."""
        lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        with watch("teacher"), torch.no_grad():
            hidden, _ = self.teacher.extract_features(waveforms, lengths)
            targets = torch.stack([hidden[layer] for layer in self.layers], dim=1)
        with watch("forward"):
            hidden, _ = self.student.extract_features(waveforms, lengths)
            pairs = zip(self.layers, self.projections, strict=True)
            predicted = torch.stack([projection(hidden[layer]) for layer, projection in pairs], dim=1)
            distillation = F.l1_loss(predicted, targets)
            distillation = distillation - F.cosine_similarity(predicted, targets, dim=-1).mean()
            gap = 1 - self.student.get_num_params() / self.full
            penalty = self.multipliers[0] * gap + self.multipliers[1] * gap.square()
        return distillation + penalty, distillation

    def update(self, waveforms: Tensor, watch: Stopwatch) -> None:
        """Make one update."""
        loss, _ = self.loss(waveforms, watch)
        with watch("backward"):
            self.optimizer.zero_grad()
            loss.backward()
        with watch("optimizer"):
            nn.utils.clip_grad_norm_(self.parameters, 10.0)
            self.optimizer.step()
