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
from .frame_masking import FrameMasking, MaskingConfig
from .prediction_heads import SplitHeads

MODES = ("layer2layer", "clusters", "predlayer", "distilhubert")
HEADS = ("predlayer", "distilhubert")
"""Modes that predict every target from the student's last layer."""
Match = int | tuple[int, int]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Distillation objective (Peng et al. 2023, section 2.2), and further terms.

    Args:
        mode: ``layer2layer``: student layer i against teacher layer i through a linear map. ``clusters``: the
            mean of a group's student layers against that of its teacher layers, as in SKILL (Zampierin et
            al. 2024, arXiv 2402.16830). ``distilhubert``: every target predicted from the student's last
            layer by the heads of s3prl's distiller, which end linear (Chang et al. 2022). ``predlayer``: the
            same with one linear map and GELU for each target, as the code of DPHuBERT has it, which cannot
            predict values below -0.17.
        groups: layers to match, grouped; layers of a group share one linear map in ``layer2layer`` and are
            averaged in ``clusters``. Layer 0 is the output of the feature projection. A pair ``[student,
            teacher]`` matches layers of different numbers.
        l1: weight of the L1 distance.
        l2: weight of the mean squared error.
        cos: weight of the cosine term.
        cos_type: ``raw`` (minus cosine) or ``log_sig`` (minus log-sigmoid of the cosine).
        gram: weight of the mean squared error between the temporal Gram matrices (F, F) of matched hidden
            states, without linear maps (layer-wise STaR: Jang et al. 2024, arXiv 2312.09040). They are
            divided by the width, in which student and teacher may differ.
        gram_intra: the same of the products of a matched layer's input and output (intra-layer STaR).
        masking: spans of frames that the student does not see; ``null`` for none.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    mode: str = "layer2layer"
    groups: tuple[tuple[Match, ...], ...] = ((0,), (4, 8, 12))
    l1: float = 1.0
    l2: float = 0.0
    cos: float = 1.0
    cos_type: str = "raw"
    gram: float = 0.0
    gram_intra: float = 0.0
    masking: MaskingConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _frozen(self.groups))
        faults = self._group_faults()
        if self.mode not in MODES:
            faults.append(f"mode is {self.mode!r}, allowed: {', '.join(MODES)}")
        if self.cos_type not in ("raw", "log_sig"):
            faults.append(f"cos_type is {self.cos_type!r}, allowed: raw, log_sig")
        weights = {"l1": self.l1, "l2": self.l2, "cos": self.cos}
        faults += [f"{name} is {value}, allowed: 0 or more" for name, value in weights.items() if value < 0]
        if not any(weights.values()):
            faults.append("l1, l2 and cos are all 0, allowed: at least one above 0")
        grams = {"gram": self.gram, "gram_intra": self.gram_intra}
        faults += [f"{name} is {value}, allowed: 0 or more" for name, value in grams.items() if value < 0]
        if self.mode in HEADS and any(grams.values()):
            faults.append(f"gram and gram_intra compare layers, allowed in {self.mode}: 0")
        if self.mode == "clusters" and self.gram_intra:
            faults.append(f"gram_intra is {self.gram_intra}, allowed in clusters: 0")
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
        if self.mode in HEADS and any(isinstance(entry, tuple) for entry in entries):
            faults.append(f"groups has pairs, allowed in {self.mode}: the teacher's layers alone")
        return faults

    @property
    def pairs(self) -> list[list[tuple[int, int]]]:
        """Layers (student, teacher) of each group."""
        return [[entry if isinstance(entry, tuple) else (entry, entry) for entry in g] for g in self.groups]

    @property
    def layers(self) -> list[int]:
        """Matched layers of the teacher, in the order of the predictions."""
        return [teacher for group in self.pairs for _, teacher in group]

    @property
    def target_layers(self) -> list[int]:
        """Layers of the teacher whose hidden states the objective reads."""
        inputs = {layer - 1 for layer in self.layers if layer} if self.gram_intra else set()
        return [*self.layers, *sorted(inputs - set(self.layers))]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list | tuple) else value


def _is_layer(value: Any) -> bool:
    return is_int(value) and value >= 0


def _is_pair(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and all(_is_layer(layer) for layer in value)


def distances(
    student: Tensor, teacher: Tensor, config: ObjectiveConfig, frames: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the distance between predicted and actual hidden states.

    Args:
        student: predictions (..., F, D).
        teacher: targets (..., F, D).
        config: weights and kind of cosine; terms of weight 0 are not computed.
        frames: (..., F), ``True`` for frames that count; by default all of them.

    Returns:
        The weighted sum, and its terms; the cosine is averaged over all but D, the others over all of them.
    """
    each: dict[str, Tensor] = {}
    if config.l2:
        each["l2"] = F.mse_loss(student, teacher, reduction="none")
    if config.l1:
        each["l1"] = F.l1_loss(student, teacher, reduction="none")
    if config.cos:
        cosine = F.cosine_similarity(student, teacher, dim=-1)
        each["cos"] = -(F.logsigmoid(cosine) if config.cos_type == "log_sig" else cosine)
    if frames is None:
        terms = {name: values.mean() for name, values in each.items()}
    else:
        by_frame = {name: v if name == "cos" else v.mean(-1) for name, v in each.items()}
        terms = {name: (v * frames).sum() / frames.sum() for name, v in by_frame.items()}
    total = torch.stack([getattr(config, name) * value for name, value in terms.items()]).sum()
    return total, terms


def gram_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Compute the mean squared error, 0-d, between the temporal Gram matrices of two pairs of hidden states.

    Args:
        student: two hidden states (B, F, D), which may be the same.
        teacher: likewise of the teacher, whose width may be another.
    """
    with torch.autocast(student[0].device.type, enabled=False):  # which would multiply in half precision
        own, target = (
            first.float() @ second.float().transpose(-1, -2) / first.shape[-1]
            for first, second in (student, teacher)
        )
    return F.mse_loss(own, target)


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
        if config.mode not in HEADS:
            depths["student"] = [student for student, _ in matched]
        limits = {"teacher": teacher_layers, "student": student_layers}
        faults = [
            f"groups has the {model}'s layer {layer}, allowed: 0 to {limits[model]}"
            for model, layers in depths.items()
            for layer in layers
            if layer > limits[model]
        ]
        if config.gram_intra and not any(student and teacher for student, teacher in matched):
            faults.append("gram_intra needs a matched layer above 0")
        ConfigError.raise_for("objective", faults)
        self.heads: SplitHeads | None = None
        count = len(config.layers) if config.mode in HEADS else len(config.groups)
        if config.mode == "distilhubert":
            self.heads, count = SplitHeads(student_dim, teacher_dim, count), 0
        self.projections = nn.ModuleList(nn.Linear(student_dim, teacher_dim) for _ in range(count))
        if student_dim == teacher_dim:
            for projection in self.projections:
                nn.init.eye_(projection.weight)  # type: ignore[arg-type]
                nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
        self.masking = None if config.masking is None else FrameMasking(config.masking, student_dim)

    @property
    def depth(self) -> int:
        """Number of teacher layers to run."""
        return max(self.config.layers)

    def predictions(self, hidden: list[Tensor]) -> Iterator[Tensor]:
        """Yield a prediction (B, F, D) of each target from the hidden states [L+1] (B, F, D)."""
        if self.heads is not None:
            yield from self.heads(hidden[-1])
        elif self.config.mode == "predlayer":
            yield from (F.gelu(projection(hidden[-1])) for projection in self.projections)
        else:
            sizes = [1 if self.config.mode == "clusters" else len(group) for group in self.config.groups]
            pairs = zip(sizes, self.projections, strict=True)
            maps = [projection for size, projection in pairs for _ in range(size)]
            yield from (map_(state) for map_, state in zip(maps, self.matched(hidden), strict=True))

    def matched(self, hidden: list[Tensor]) -> list[Tensor]:
        """Return the student's states (B, F, D) that match the targets, before any linear map."""
        if self.config.mode == "clusters":
            return [_mean([hidden[n] for n, _ in group]) for group in self.config.pairs]
        return [hidden[n] for group in self.config.pairs for n, _ in group]

    def targets(self, hidden: Sequence[Tensor] | Mapping[int, Tensor]) -> list[Tensor]:
        """Return the targets (B, F, D), in the order of the predictions."""
        if self.config.mode == "clusters":
            return [_mean([hidden[n].float() for _, n in group]) for group in self.config.pairs]
        return [hidden[n] for n in self.config.layers]

    def gram_terms(
        self, student: list[Tensor], teacher: Sequence[Tensor] | Mapping[int, Tensor]
    ) -> dict[str, Tensor]:
        """Return the mean distances of Gram matrices that have a weight."""
        config, terms = self.config, {}
        if config.gram:
            pairs = zip(self.matched(student), self.targets(teacher), strict=True)
            terms["gram"] = torch.stack([gram_distance((s, s), (t, t)) for s, t in pairs]).mean()
        if config.gram_intra:
            inner = [(s, t) for group in config.pairs for s, t in group if s and t]
            rows = [gram_distance(student[s - 1 : s + 1], (teacher[t - 1], teacher[t])) for s, t in inner]
            terms["gram_intra"] = torch.stack(rows).mean()
        return terms

    def forward(
        self,
        student: list[Tensor],
        teacher: Sequence[Tensor] | Mapping[int, Tensor],
        masked: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (0-d, float32) and its terms.

        Args:
            student: hidden states [L+1] (B, F, D).
            teacher: hidden states (B, F, D) by layer.
            masked: (B, F), ``True`` for frames that the student did not see; ``None`` if it saw all.
        """
        masking = self.config.masking
        frames = masked if masking is not None and masking.loss == "masked" else None
        rows = [
            distances(predicted.float(), target.float(), self.config, frames)
            for predicted, target in zip(self.predictions(student), self.targets(teacher), strict=True)
        ]
        terms = {name: torch.stack([terms[name] for _, terms in rows]).mean() for name in rows[0][1]}
        total = torch.stack([total for total, _ in rows]).mean()
        grams = self.gram_terms(student, teacher)
        for name, value in grams.items():
            total = total + getattr(self.config, name) * value
        return total, terms | grams


def _mean(states: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(states)).mean(0)
