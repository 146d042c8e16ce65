"""Distillation objective: the matched hidden states, their projections and their distance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.config_io import is_int

Match = int | tuple[int, int]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Distillation objective (Peng et al. 2023, section 2.2).

    Args:
        mode: ``layer2layer`` (student layer i against teacher layer i through a linear map) or
            ``predlayer`` (every target predicted from the student's last layer by a linear map of its
            own and GELU, as in DistilHuBERT).
        groups: layers to match, grouped; layers of a group share one linear map in ``layer2layer``. Layer 0
            is the output of the feature projection. A pair ``[student, teacher]`` matches layers of
            different numbers.
        l1: weight of the L1 distance.
        l2: weight of the mean squared error.
        cos: weight of the cosine term.
        cos_type: ``raw`` (minus cosine) or ``log_sig`` (minus log-sigmoid of the cosine).

    Raises:
        ConfigError: listing every field that is wrong.
    """

    mode: str = "layer2layer"
    groups: tuple[tuple[Match, ...], ...] = ((0,), (4, 8, 12))
    l1: float = 1.0
    l2: float = 0.0
    cos: float = 1.0
    cos_type: str = "raw"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _frozen(self.groups))
        faults = self._group_faults()
        if self.mode not in ("layer2layer", "predlayer"):
            faults.append(f"mode is {self.mode!r}, allowed: layer2layer, predlayer")
        if self.cos_type not in ("raw", "log_sig"):
            faults.append(f"cos_type is {self.cos_type!r}, allowed: raw, log_sig")
        weights = {"l1": self.l1, "l2": self.l2, "cos": self.cos}
        faults += [f"{name} is {value}, allowed: 0 or more" for name, value in weights.items() if value < 0]
        if not any(weights.values()):
            faults.append("l1, l2 and cos are all 0, allowed: at least one above 0")
        ConfigError.raise_for("objective", faults)

    def _group_faults(self) -> list[str]:
        groups: Any = self.groups
        if not isinstance(groups, tuple) or not all(isinstance(group, tuple) for group in groups):
            return [f"groups is {groups!r}, allowed: lists of layers"]
        entries = [entry for group in groups for entry in group]
        invalid = [e for e in entries if not (_is_layer(e) or (isinstance(e, tuple) and _is_pair(e)))]
        if invalid:
            return [
                f"groups has {invalid}, allowed: layers from 0, or pairs of student's and teacher's layer"
            ]
        faults = []
        if not entries or len(set(self.layers)) != len(entries):
            faults.append(f"groups is {groups}, allowed: each layer from 0 at most once, at least one")
        if self.mode == "predlayer" and any(isinstance(entry, tuple) for entry in entries):
            faults.append("groups has pairs, allowed in predlayer: the teacher's layers alone")
        return faults

    @property
    def pairs(self) -> list[list[tuple[int, int]]]:
        """Layers (student, teacher) of each group."""
        return [[entry if isinstance(entry, tuple) else (entry, entry) for entry in g] for g in self.groups]

    @property
    def layers(self) -> list[int]:
        """Matched layers of the teacher, in the order of the predictions."""
        return [teacher for group in self.pairs for _, teacher in group]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list | tuple) else value


def _is_layer(value: Any) -> bool:
    return is_int(value) and value >= 0


def _is_pair(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and all(_is_layer(layer) for layer in value)


def distances(student: Tensor, teacher: Tensor, config: ObjectiveConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the distance between predicted and actual hidden states.

    Args:
        student: predictions (..., F, D).
        teacher: targets (..., F, D).
        config: weights and kind of cosine; terms of weight 0 are not computed.

    Returns:
        The weighted sum, and its terms; the cosine is averaged over all but D, the others over all of them.
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
    """Projections from student to teacher width, and the distance between predictions and targets.

    Args:
        config: matched layers and weights of the distance.
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
        matched = [pair for group in config.pairs for pair in group]
        depths = {"teacher": [teacher for _, teacher in matched]}
        if config.mode == "layer2layer":
            depths["student"] = [student for student, _ in matched]
        limits = {"teacher": teacher_layers, "student": student_layers}
        faults = [
            f"groups has the {model}'s layer {layer}, allowed: 0 to {limits[model]}"
            for model, layers in depths.items()
            for layer in layers
            if layer > limits[model]
        ]
        ConfigError.raise_for("objective", faults)
        count = len(config.layers) if config.mode == "predlayer" else len(config.groups)
        self.projections = nn.ModuleList(nn.Linear(student_dim, teacher_dim) for _ in range(count))
        if student_dim == teacher_dim:
            for projection in self.projections:
                nn.init.eye_(projection.weight)  # type: ignore[arg-type]
                nn.init.zeros_(projection.bias)  # type: ignore[arg-type]

    @property
    def depth(self) -> int:
        """Number of teacher layers to run."""
        return max(self.config.layers)

    def predictions(self, hidden: list[Tensor]) -> Iterator[Tensor]:
        """Yield a prediction (B, F, D) of each matched layer from the hidden states [L+1] (B, F, D)."""
        if self.config.mode == "predlayer":
            yield from (F.gelu(projection(hidden[-1])) for projection in self.projections)
            return
        for group, projection in zip(self.config.pairs, self.projections, strict=True):
            yield from (projection(hidden[n]) for n, _ in group)

    def forward(
        self, student: list[Tensor], teacher: Sequence[Tensor] | Mapping[int, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (0-d, float32) and its terms.

        Args:
            student: hidden states [L+1] (B, F, D).
            teacher: hidden states (B, F, D) by layer.
        """
        rows = [
            distances(predicted.float(), teacher[n].float(), self.config)
            for predicted, n in zip(self.predictions(student), self.config.layers, strict=True)
        ]
        terms = {name: torch.stack([terms[name] for _, terms in rows]).mean() for name in rows[0][1]}
        return torch.stack([total for total, _ in rows]).mean(), terms
