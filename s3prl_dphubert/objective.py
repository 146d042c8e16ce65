"""What the student learns from its teacher: which hidden states are matched and how."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ConfigError


@dataclass(frozen=True)
class ObjectiveConfig:
    """Distillation objective (Peng et al. 2023, section 2.2).

    Args:
        mode: ``layer2layer`` (student layer i against teacher layer i through a linear map) or
            ``predlayer`` (every target predicted from the student's last layer by its own
            linear map and GELU, as DistilHuBERT).
        groups: hidden states to match, grouped; layers of a group share one linear map in
            ``layer2layer``. 0 is the feature projection's output.
        l1: weight of the L1 distance.
        l2: weight of the mean squared error.
        cos: weight of the cosine term.
        cos_type: ``raw`` (minus cosine) or ``log_sig`` (minus log-sigmoid of the cosine).
    """

    mode: str = "layer2layer"
    groups: tuple[tuple[int, ...], ...] = ((0,), (4, 8, 12))
    l1: float = 1.0
    l2: float = 0.0
    cos: float = 1.0
    cos_type: str = "raw"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))
        faults = []
        if self.mode not in ("layer2layer", "predlayer"):
            faults.append(f"mode is {self.mode!r}, allowed: layer2layer, predlayer")
        if self.cos_type not in ("raw", "log_sig"):
            faults.append(f"cos_type is {self.cos_type!r}, allowed: raw, log_sig")
        layers = self.layers
        if not layers or len(set(layers)) != len(layers) or min(layers) < 0:
            faults.append(f"groups is {self.groups}, allowed: each layer from 0 at most once, at least one")
        weights = {"l1": self.l1, "l2": self.l2, "cos": self.cos}
        faults += [f"{name} is {value}, allowed: 0 or more" for name, value in weights.items() if value < 0]
        if not any(weights.values()):
            faults.append("l1, l2 and cos are all 0, allowed: at least one above 0")
        ConfigError.raise_for("objective", faults)

    @property
    def layers(self) -> list[int]:
        """Matched layers in the order of their projections."""
        return [layer for group in self.groups for layer in group]


def distances(student: Tensor, teacher: Tensor, config: ObjectiveConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Compare hidden states.

    Args:
        student: (B, L, F, D) projected hidden states.
        teacher: (B, L, F, D) targets.
        config: weights and kind of cosine; terms of weight 0 are not computed.

    Returns:
        The weighted sum and its terms, means over batch, layer and time.
    """
    terms: dict[str, Tensor] = {}
    if config.l2:
        terms["l2"] = F.mse_loss(student, teacher)
    if config.l1:
        terms["l1"] = F.l1_loss(student, teacher)
    if config.cos:
        cosine = F.cosine_similarity(student, teacher, dim=-1)
        terms["cos"] = -(F.logsigmoid(cosine) if config.cos_type == "log_sig" else cosine).mean()
    total = torch.stack([getattr(config, name) * value for name, value in terms.items()]).sum()
    return total, terms


class Objective(nn.Module):
    """Projections from student to teacher width, and the distance between the two.

    Args:
        config: what is matched.
        student_dim: width of the student.
        teacher_dim: width of the teacher.
        student_layers: layers of the student.
        teacher_layers: layers of the teacher.

    Raises:
        ConfigError: a matched layer does not exist.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        student_dim: int,
        teacher_dim: int,
        student_layers: int,
        teacher_layers: int,
    ) -> None:
        super().__init__()
        self.config = config
        deepest = teacher_layers if config.mode == "predlayer" else min(student_layers, teacher_layers)
        faults = [f"groups names layer {n}, allowed: 0 to {deepest}" for n in config.layers if n > deepest]
        ConfigError.raise_for("objective", faults)
        count = len(config.layers) if config.mode == "predlayer" else len(config.groups)
        self.projections = nn.ModuleList(nn.Linear(student_dim, teacher_dim) for _ in range(count))
        if student_dim == teacher_dim:
            for projection in self.projections:
                nn.init.eye_(projection.weight)  # type: ignore[arg-type]
                nn.init.zeros_(projection.bias)  # type: ignore[arg-type]

    @property
    def depth(self) -> int:
        """Teacher layers that have to run."""
        return max(self.config.layers)

    def project(self, hidden: list[Tensor]) -> Tensor:
        """Student's hidden states [L+1] (B, F, D) -> predictions (B, matched layers, F, D)."""
        if self.config.mode == "predlayer":
            return torch.stack([F.gelu(projection(hidden[-1])) for projection in self.projections], dim=1)
        pairs = zip(self.config.groups, self.projections, strict=True)
        return torch.stack([projection(hidden[n]) for group, projection in pairs for n in group], dim=1)

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Hidden states of both, each [L+1] (B, F, D) -> loss and its terms, in float32."""
        targets = torch.stack([teacher[n] for n in self.config.layers], dim=1)
        predicted = self.project(student)
        return distances(predicted.float(), targets.float(), self.config)
