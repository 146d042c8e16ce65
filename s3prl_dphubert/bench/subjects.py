"""What is timed: models of this package and of others, each behind the same few methods.

A subject is made in one process and runs in another; only its fields go there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model import ModelConfig
from ..model.speech_model import AUTOCAST
from .model_shapes import TITLES, checkpoint

Call = Callable[[Tensor, Tensor | None], Any]  # waveforms (B, T), samples (B,) or None -> anything


@dataclass(frozen=True)
class Subject(ABC):
    """Something whose speed is measured.

    Args:
        shape: name of the model's shape; empty if it is of its own.
        config: the shape, as far as it is known.
        precision: of matrix products and convolutions.
    """

    shape: str
    config: ModelConfig | None
    precision: str = "fp32"

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in tables; unique."""

    @property
    def title(self) -> str:
        """What its shape is called in tables."""
        return TITLES.get(self.shape, self.shape)

    @property
    def own_weights(self) -> bool:
        """Whether it runs the shape's checkpoint and returns its last hidden state (B, F, D)."""
        return False

    def prepare(self, models: Path) -> None:  # noqa: B027  (not every subject needs files)
        """Write the files that it loads, if they are not there."""

    def libraries(self) -> None:  # noqa: B027
        """Import what is not to count as loading."""

    @abstractmethod
    def load(self, models: Path) -> Call:
        """Read the model from its files and make it ready."""


@dataclass(frozen=True)
class Own(Subject):
    """A model of this package, folded for inference.

    Args:
        path: a checkpoint of its own, instead of the shape's with random weights.
    """

    path: Path | None = None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.title}, {self.precision}"

    @property
    def own_weights(self) -> bool:
        """If it has no other."""
        return self.path is None

    def prepare(self, models: Path) -> None:
        """Write the checkpoint."""
        if self.config is not None and self.path is None:
            checkpoint(models, self.shape, self.config)

    def libraries(self) -> None:
        """Import what loads and runs it; the rest of torch that the first model of a process needs, too."""
        from ..checkpoints.load import load_model  # noqa: F401
        from ..model import SpeechModel
        from ..model.inference.folded import fold  # noqa: F401

        with torch.device("meta"):
            SpeechModel(ModelConfig(heads=((0,),), ffn=(1,)))

    def load(self, models: Path) -> Call:
        """Load and fold."""
        from ..checkpoints.load import load_model
        from ..model.inference.folded import fold

        model = fold(load_model(self.path or models / self.shape), self.precision)
        return lambda waveforms, lengths: model.extract_features(waveforms, lengths)[0][-1]


@dataclass(frozen=True)
class Plain(Own):
    """A model of this package as it trains."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.title}, not folded, {self.precision}"

    def load(self, models: Path) -> Call:
        """Load."""
        from ..checkpoints.load import load_model

        model, dtype = load_model(self.path or models / self.shape), AUTOCAST.get(self.precision)

        def call(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                return model.extract_features(waveforms, lengths)[0][-1]

        return call


@dataclass(frozen=True)
class Published(Subject):
    """The published implementation with the same weights, from a clone of its repository.

    Args:
        clone: the clone's folder.
    """

    clone: Path = Path()

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"published code, {self.title}, {self.precision}"

    @property
    def own_weights(self) -> bool:
        """Yes."""
        return True

    def prepare(self, models: Path) -> None:
        """Write the checkpoint in the released format."""
        from ..checkpoints import dphubert_pth
        from ..checkpoints.load import load_model

        if self.config is not None and not self._file(models).exists():
            dphubert_pth.write(load_model(checkpoint(models, self.shape, self.config)), self._file(models))

    def libraries(self) -> None:
        """Import the clone's module, in this process alone."""
        from .reference_update import import_published

        import_published(self.clone)

    def load(self, models: Path) -> Call:
        """Load as the published code does."""
        from .reference_update import import_published

        saved = torch.load(self._file(models), map_location="cpu", weights_only=True)
        model = import_published(self.clone).wav2vec2_model(**saved["config"])
        model.load_state_dict(saved["state_dict"])
        model.eval()
        return lambda waveforms, lengths: model.extract_features(waveforms, lengths)[0][-1]

    def _file(self, models: Path) -> Path:
        return models / f"{self.shape}.pth"


@dataclass(frozen=True)
class Exported(Subject):
    """A file that ``export`` wrote.

    Args:
        file: the file.
    """

    file: Path = Path()

    @classmethod
    def read(cls, file: Path, hashes: dict[str, str]) -> Exported:
        """The subject of a file, which says what it holds.

        Args:
            file: the file.
            hashes: shape -> hash of the weights of its checkpoint, by which its own file is known.

        Raises:
            DPHubertError: the file cannot be loaded, or its runtime is missing.
        """
        from ..export.runtime import load_exported

        runtime = load_exported(file)
        shape = next((name for name, found in hashes.items() if found == runtime.info.weights), "")
        return cls(shape, runtime.config, runtime.info.precision, file.absolute())

    @property
    def name(self) -> str:
        """What it is called in tables."""
        what = self.title or "another model"
        return f"exported, {what}, {self.precision} ({self.file.parent.name}/{self.file.name})"

    @property
    def own_weights(self) -> bool:
        """If it was made from the checkpoint of a shape."""
        return bool(self.shape)

    def libraries(self) -> None:
        """Import the exporter's part of this package."""
        from ..export import runtime  # noqa: F401

    def load(self, models: Path) -> Call:
        """Load."""
        from ..export.runtime import load_exported

        model = load_exported(self.file, torch.get_num_threads())
        return lambda waveforms, lengths: model.extract_features(waveforms, lengths)[0][-1]


@dataclass(frozen=True)
class Products(Subject):
    """Plain matrix products, whose speed tells what this machine could do with a model's MACs.

    Args:
        size: of the square matrices.
    """

    size: int = 1536

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"matrix products, {self.precision}"

    @property
    def macs(self) -> int:
        """Of one call."""
        return self.size**3

    def load(self, models: Path) -> Call:
        """Make the matrices."""
        dtype = AUTOCAST.get(self.precision, torch.float32)
        a, b = (torch.randn(self.size, self.size).to(dtype) for _ in range(2))
        return lambda waveforms, lengths: a @ b
