"""Subjects of the inference benchmark: models of this package and of others behind a common interface.

A subject is made in one process and runs in another, to which only its fields are sent.
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
        shape: name of the shape of the model; empty if it has none.
        config: configuration of the model, if known.
        precision: precision of matrix products and convolutions.
    """

    shape: str
    config: ModelConfig | None
    precision: str = "fp32"

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique name in tables."""

    @property
    def title(self) -> str:
        """Name of its shape in tables."""
        return TITLES.get(self.shape, self.shape)

    @property
    def own_weights(self) -> bool:
        """True if it runs the checkpoint of its shape and returns the last hidden state (B, F, D)."""
        return False

    def prepare(self, models: Path) -> None:  # noqa: B027  (not every subject needs files)
        """Write the files that it loads, if they are missing."""

    def libraries(self) -> None:  # noqa: B027
        """Import the libraries whose import should not count as loading."""

    @abstractmethod
    def load(self, models: Path) -> Call:
        """Load the model from its files; returns the function to time."""


@dataclass(frozen=True)
class FoldedSubject(Subject):
    """A model of this package, folded for inference.

    Args:
        path: checkpoint to run instead of that of the shape, which has random weights.
    """

    path: Path | None = None

    @property
    def name(self) -> str:
        """Unique name in tables."""
        return f"{self.title}, {self.precision}"

    @property
    def own_weights(self) -> bool:
        """True unless it runs a checkpoint of its own."""
        return self.path is None

    def prepare(self, models: Path) -> None:
        """Write the checkpoint."""
        if self.config is not None and self.path is None:
            checkpoint(models, self.shape, self.config)

    def libraries(self) -> None:
        """Import its modules, and the parts of torch that building the first model of a process imports."""
        from ..checkpoints.load import load_model  # noqa: F401
        from ..model import SpeechModel
        from ..model.inference.folded import fold  # noqa: F401

        with torch.device("meta"):
            SpeechModel(ModelConfig(heads=((0,),), ffn=(1,)))

    def load(self, models: Path) -> Call:
        """Load and fold the model."""
        from ..checkpoints.load import load_model
        from ..model.inference.folded import fold

        model = fold(load_model(self.path or models / self.shape), self.precision)
        return lambda waveforms, lengths: model.extract_features(waveforms, lengths)[0][-1]


@dataclass(frozen=True)
class UnfoldedSubject(FoldedSubject):
    """A model of this package without folding, as in training."""

    @property
    def name(self) -> str:
        """Unique name in tables."""
        return f"{self.title}, not folded, {self.precision}"

    def load(self, models: Path) -> Call:
        """Load the model."""
        from ..checkpoints.load import load_model

        model, dtype = load_model(self.path or models / self.shape), AUTOCAST.get(self.precision)

        def call(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                return model.extract_features(waveforms, lengths)[0][-1]

        return call


@dataclass(frozen=True)
class PublishedSubject(Subject):
    """The published implementation with the same weights, from a clone of its repository.

    Args:
        clone: folder of the clone.
    """

    clone: Path = Path()

    @property
    def name(self) -> str:
        """Unique name in tables."""
        return f"published code, {self.title}, {self.precision}"

    @property
    def own_weights(self) -> bool:
        """True: it runs the same weights."""
        return True

    def prepare(self, models: Path) -> None:
        """Write the checkpoint in the released format."""
        from ..checkpoints import dphubert_pth
        from ..checkpoints.load import load_model

        if self.config is not None and not self._file(models).exists():
            dphubert_pth.write(load_model(checkpoint(models, self.shape, self.config)), self._file(models))

    def libraries(self) -> None:
        """Import the module of the clone, in this process only."""
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
class ExportedSubject(Subject):
    """An exported model.

    Args:
        file: file written by ``export``.
    """

    file: Path = Path()

    @classmethod
    def read(cls, file: Path, hashes: dict[str, str]) -> ExportedSubject:
        """Make the subject of a file from the metadata in it.

        Args:
            file: file written by ``export``.
            hashes: shape -> hash of the weights of its checkpoint, to recognise the shape of the file.

        Raises:
            DPHubertError: the file cannot be loaded, or its runtime is missing.
        """
        from ..export.runtime import load_exported

        runtime = load_exported(file)
        shape = next((name for name, value in hashes.items() if value == runtime.info.weights), "")
        return cls(shape, runtime.config, runtime.info.precision, file.absolute())

    @property
    def name(self) -> str:
        """Unique name in tables."""
        title = self.title or "another model"
        return f"exported, {title}, {self.precision} ({self.file.parent.name}/{self.file.name})"

    @property
    def own_weights(self) -> bool:
        """True if it was exported from the checkpoint of a shape."""
        return bool(self.shape)

    def libraries(self) -> None:
        """Import the runtime of exported models."""
        from ..export import runtime  # noqa: F401

    def load(self, models: Path) -> Call:
        """Load the model."""
        from ..export.runtime import load_exported

        model = load_exported(self.file, torch.get_num_threads())
        return lambda waveforms, lengths: model.extract_features(waveforms, lengths)[0][-1]


@dataclass(frozen=True)
class MatrixProducts(Subject):
    """Plain matrix products, whose speed bounds what this machine could achieve with the MACs of a model.

    Args:
        size: rows and columns of the matrices.
    """

    size: int = 1536

    @property
    def name(self) -> str:
        """Unique name in tables."""
        return f"matrix products, {self.precision}"

    @property
    def macs(self) -> int:
        """MACs of one call."""
        return self.size**3

    def load(self, models: Path) -> Call:
        """Make the matrices."""
        dtype = AUTOCAST.get(self.precision, torch.float32)
        a, b = (torch.randn(self.size, self.size).to(dtype) for _ in range(2))
        return lambda waveforms, lengths: a @ b
