"""Shape and initial weights of a student that is no copy of its teacher."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.model_config import dense_heads
from ..utils.config_io import is_int

SHAPE = ("layers", "embed_dim", "heads", "ffn")
DROPOUTS = ("projection_dropout", "attention_dropout", "ffn_dropout", "dropout")
LAYER = re.compile(r"(encoder\.transformer\.layers\.)(\d+)(.*)")


@dataclass(frozen=True)
class StudentConfig:
    """Fields in which a student's shape differs from its teacher's; the others are the teacher's.

    A module (a convolution, a linear map, a norm) whose tensors all have the shapes of the teacher's is
    copied from the teacher, layer by layer as given by ``layers``; all others are initialized at random.
    A narrower student thus shares only the conv layers with its teacher. With stage 1 this student is
    pruned; its budget remains a share of the *teacher's* cost.

    Args:
        layers: Transformer layers of the teacher to take, counted from 1 as in the objective's groups; an
            integer takes that many, from the first on.
        embed_dim: width D of the Transformer; heads then have ``embed_dim / heads`` dimensions.
        heads: attention heads of every layer.
        ffn: inner width of every feed-forward sublayer.
        projection_dropout: dropout probability after the feature projection.
        attention_dropout: dropout probability of the attention weights.
        ffn_dropout: dropout probability of the feed-forward's inner units.
        dropout: dropout probability of each sublayer's output and after the positional convolution.
        projection_norm: whether the feature projection begins with a LayerNorm.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    layers: int | tuple[int, ...] | None = None
    embed_dim: int | None = None
    heads: int | None = None
    ffn: int | None = None
    projection_dropout: float | None = None
    attention_dropout: float | None = None
    ffn_dropout: float | None = None
    dropout: float | None = None
    projection_norm: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        faults = [
            f"{name} is {value!r}, allowed: integers from 1"
            for name in SHAPE[1:]
            if (value := getattr(self, name)) is not None and not _is_count(value)
        ]
        if self.layers is not None and not self._has_valid_layers():
            faults.append(
                f"layers is {self.layers!r}, allowed: a number of layers, or ascending layers from 1"
            )
        for name, value in self.dropouts.items():
            if not 0 <= value < 1:
                faults.append(f"{name} is {value}, allowed: from 0 to below 1")
        if all(getattr(self, name) is None for name in SHAPE):
            faults.append(f"no field is given, allowed: any of {', '.join(SHAPE)}")
        ConfigError.raise_for("student", faults)

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in SHAPE}
        return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)

    @property
    def dropouts(self) -> dict[str, float]:
        """Dropout probabilities that differ from the teacher's, by the names of :class:`ModelConfig`."""
        values = {name: getattr(self, name) for name in DROPOUTS}
        return {name: value for name, value in values.items() if value is not None}

    def _has_valid_layers(self) -> bool:
        if not isinstance(self.layers, tuple):
            return _is_count(self.layers)
        valid = bool(self.layers) and all(_is_count(layer) for layer in self.layers)
        return valid and sorted(set(self.layers)) == [*self.layers]

    def teacher_layers(self, layers: int) -> list[int]:
        """Return the layers to take from a teacher of that many layers, counted from 0."""
        if isinstance(self.layers, tuple):
            return [layer - 1 for layer in self.layers]
        return list(range(layers if self.layers is None else self.layers))

    def shape(self, teacher: ModelConfig) -> ModelConfig:
        """Return the student's shape.

        Raises:
            ConfigError: the teacher lacks a layer, or the width is no multiple of the heads.
        """
        layers = self.teacher_layers(teacher.num_layers)
        width, count = self.embed_dim or teacher.embed_dim, self.heads or teacher.total_heads
        faults = []
        if layers[-1] >= teacher.num_layers:
            faults.append(f"layers is {self.layers}, allowed: up to the teacher's {teacher.num_layers}")
        if width % count:
            faults.append(f"embed_dim is {width}, allowed: a multiple of the {count} heads")
        ConfigError.raise_for("student", faults)
        changes: dict[str, Any] = {
            "embed_dim": width,
            "heads": tuple(teacher.heads[layer] for layer in layers),
            "ffn": tuple(self.ffn or teacher.ffn[layer] for layer in layers),
        }
        if self.projection_norm is not None:
            changes["projection_norm"] = self.projection_norm
        shape = replace(teacher, **(changes | self.dropouts))
        if not (self.embed_dim or self.heads):
            return shape
        heads = dense_heads(len(layers), count)
        return replace(shape, total_heads=count, head_dim=width // count, heads=heads)


def _is_count(value: object) -> bool:
    return is_int(value) and value > 0


def init_student(teacher: SpeechModel, config: StudentConfig, seed: int = 0) -> SpeechModel:
    """Build a student from copies of the teacher's modules where shapes match, and random ones elsewhere.

    Args:
        teacher: model to copy from, which stays as it is and shares no memory with the student.
        config: shape of the student.
        seed: seed of the random weights; the global random state stays as it is.

    Returns:
        The student in eval mode, on the CPU.

    Raises:
        ConfigError: the shape does not fit the teacher.
    """
    layers = config.teacher_layers(teacher.config.num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = SpeechModel(config.shape(teacher.config))
    source = dict(teacher.named_modules())
    for name, module in student.named_modules():
        layer = LAYER.fullmatch(name)
        original = f"{layer[1]}{layers[int(layer[2])]}{layer[3]}" if layer else name
        if original in source:
            _copy_tensors(source[original], module)
    return student.eval()


def _copy_tensors(source: nn.Module, target: nn.Module) -> None:
    """Copy the tensors of a module itself, without its children, if all of them have the same shapes."""
    originals, copies = dict(_own_tensors(source)), dict(_own_tensors(target))
    if {name: t.shape for name, t in originals.items()} == {name: t.shape for name, t in copies.items()}:
        for name, tensor in copies.items():
            tensor.data.copy_(originals[name].data)


def _own_tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)
