"""What a student starts from when it is no copy of its teacher."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.model_config import dense_heads
from ..utils.type_checks import is_int

LAYER = re.compile(r"(encoder\.transformer\.layers\.)(\d+)(.*)")


@dataclass(frozen=True)
class StudentConfig:
    """In what a student's shape differs from its teacher's; what is left out is the teacher's.

    A module (a convolution, a linear map, a norm) whose tensors all have the teacher's shapes is
    copied from the teacher, layer by layer as ``layers`` names them; every other one is drawn from
    the run's seed. A narrower student thus starts from the teacher's conv layers and from nothing
    else of it. With stage 1 this student is pruned; its budget stays a share of the *teacher's* cost.

    Args:
        layers: the teacher's Transformer layers that the student has, counted from 1 as in the
            objective's groups; a whole number means so many from the first.
        embed_dim: width D of the Transformer; heads then are ``embed_dim / heads`` wide.
        heads: attention heads of every layer.
        ffn: inner width of every feed-forward.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    layers: int | tuple[int, ...] | None = None
    embed_dim: int | None = None
    heads: int | None = None
    ffn: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        faults = [
            f"{name} is {value!r}, allowed: whole numbers from 1"
            for name in ("embed_dim", "heads", "ffn")
            if (value := getattr(self, name)) is not None and not _counts(value)
        ]
        if self.layers is not None and not self._known_layers():
            faults.append(f"layers is {self.layers!r}, allowed: a number of layers, or rising ones from 1")
        if all(value is None for value in (self.layers, self.embed_dim, self.heads, self.ffn)):
            faults.append("nothing is named, allowed: any of layers, embed_dim, heads, ffn")
        ConfigError.raise_for("student", faults)

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in ("layers", "embed_dim", "heads", "ffn")}
        return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)

    def _known_layers(self) -> bool:
        if not isinstance(self.layers, tuple):
            return _counts(self.layers)
        rising = all(_counts(layer) for layer in self.layers) and sorted(set(self.layers)) == [*self.layers]
        return bool(self.layers) and rising

    def chosen(self, layers: int) -> list[int]:
        """The layers taken from a teacher that has so many, counted from 0."""
        if isinstance(self.layers, tuple):
            return [layer - 1 for layer in self.layers]
        return list(range(layers if self.layers is None else self.layers))

    def shape(self, teacher: ModelConfig) -> ModelConfig:
        """The student's shape.

        Raises:
            ConfigError: the teacher lacks a layer, or the widths do not go together.
        """
        chosen = self.chosen(teacher.num_layers)
        width, count = self.embed_dim or teacher.embed_dim, self.heads or teacher.total_heads
        faults = []
        if chosen[-1] >= teacher.num_layers:
            faults.append(f"layers is {self.layers}, allowed: up to the teacher's {teacher.num_layers}")
        if width % count:
            faults.append(f"embed_dim is {width}, allowed: a multiple of the {count} heads")
        ConfigError.raise_for("student", faults)
        shape = replace(
            teacher,
            embed_dim=width,
            heads=tuple(teacher.heads[layer] for layer in chosen),
            ffn=tuple(self.ffn or teacher.ffn[layer] for layer in chosen),
        )
        if not (self.embed_dim or self.heads):
            return shape
        heads = dense_heads(len(chosen), count)
        return replace(shape, total_heads=count, head_dim=width // count, heads=heads)


def _counts(value: object) -> bool:
    return is_int(value) and value > 0


def start(teacher: SpeechModel, config: StudentConfig, seed: int = 0) -> SpeechModel:
    """Build a student: copies of the teacher's modules where the shapes allow it, the rest drawn.

    Args:
        teacher: not changed; the student shares no memory with it.
        config: the student's shape.
        seed: of what is drawn.

    Returns:
        The student in eval mode, on the CPU.

    Raises:
        ConfigError: the teacher cannot have such a student.
    """
    chosen = config.chosen(teacher.config.num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = SpeechModel(config.shape(teacher.config))
    source = dict(teacher.named_modules())
    for name, module in student.named_modules():
        layer = LAYER.fullmatch(name)
        known = f"{layer[1]}{chosen[int(layer[2])]}{layer[3]}" if layer else name
        if known in source:
            _copy(source[known], module)
    return student.eval()


def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copy the tensors that a module itself holds, if all have the same shapes there."""
    there, here = dict(_own(source)), dict(_own(target))
    if {name: t.shape for name, t in there.items()} == {name: t.shape for name, t in here.items()}:
        for name, tensor in here.items():
            tensor.data.copy_(there[name].data)


def _own(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)
