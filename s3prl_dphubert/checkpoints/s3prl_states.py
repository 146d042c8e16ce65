"""Checkpoints ``states-N.ckpt`` that s3prl's pretraining runner writes with ``-u dphubert``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..model import ModelConfig, SpeechModel
from ..model.cost import Number
from ..model.state_dict import build_model, not_tensors, raise_tensor_faults
from ..pruning.budget import Budget
from ..pruning.gated_model import GatedModel
from ..pruning.gates import GateConfig
from ..pruning.structured import prune
from ..utils.config_io import from_dict
from .key_mapping import State
from .unpickler import read_foreign_pickle

STUDENT, RECIPE = "DPHuBERT", "Upstream_Config"
"""Keys of a checkpoint: the student's tensors and costs; how and from what it is trained."""


@dataclass(frozen=True)
class StudentStates:
    """A student in training.

    Args:
        stage: 1 trains with gates, 2 without.
        gates: the units that are gated.
        budget: cost that the pruned model may have.
        shape: configuration of the student's model, before any gate closes.
        module: tensors of the student, the objective and the multipliers.
        full_costs: name of a count -> the cost that the budget's shares refer to.
        updates: updates made in this stage.
        updates1: updates made in stage 1, if this is stage 2 after it.
        source: origin of the tensors, for messages.
    """

    stage: int
    gates: GateConfig
    budget: Budget
    shape: ModelConfig
    module: Mapping[str, Tensor]
    full_costs: dict[str, Number]
    updates: int
    updates1: int | None = None
    source: str = "the student"

    @property
    def projections(self) -> State:
        """Tensors of the objective."""
        return self._part("objective.")

    def model(self) -> SpeechModel:
        """Return the model as it would be pruned now, on the CPU and in eval mode.

        Raises:
            CheckpointError: a tensor is missing, of another shape or not finite.
            RunError: no choice of the gated units keeps the budget.
        """
        if self.stage == 2:
            return build_model(self.shape, self._part("student."), self.source)
        return prune(self.gated_model(), self.budget, self.full_costs).eval()

    def gated_model(self) -> GatedModel:
        """Return the student of stage 1 with its gates, on the CPU.

        Raises:
            CheckpointError: a tensor is missing, of another shape or not finite.
        """
        student = GatedModel(build_model(self.shape, self._part("student.model."), self.source), self.gates)
        try:
            student.gates.load_state_dict(self._part("student.gates."))
        except RuntimeError as error:
            raise CheckpointError(f"{self.source}: its gates do not fit its model ({error})") from error
        return student

    def _part(self, prefix: str) -> State:
        tensors = self.module.items()
        return {name[len(prefix) :]: t.detach().cpu() for name, t in tensors if name.startswith(prefix)}


def read_states(path: Path) -> StudentStates:
    """Read a checkpoint; runs no code.

    Raises:
        CheckpointError: the file is missing or damaged, or another upstream's.
    """
    return parse_states(read_foreign_pickle(path), str(path))


def parse_states(content: Any, source: str) -> StudentStates:
    """Return the student in the content of a checkpoint.

    Raises:
        CheckpointError: a part is missing or malformed.
    """
    try:
        config, student = content[RECIPE], content[STUDENT]
        recipe = config["recipe"]
        raise_tensor_faults(source, not_tensors(student["module"]))
        return StudentStates(
            recipe["stage"],
            from_dict(GateConfig, recipe["gates"]),
            from_dict(Budget, recipe["budget"]),
            ModelConfig.from_dict(config["shape"]),
            student["module"],
            student["full_costs"],
            content["Step"],
            config["updates1"],
            source,
        )
    except CheckpointError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{source}: not of run_pretrain -u dphubert, or incomplete ({reason})"
        ) from error
