"""Checkpoints ``states-N.ckpt`` of s3prl's runner: what this recipe puts into them, and the model in them."""

from __future__ import annotations

import os
import re
import shutil
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints.directory import CONFIG, save_model
from ..checkpoints.unpickler import read_foreign_pickle
from ..errors import CheckpointError, RunError
from ..model import ModelConfig, SpeechModel
from ..model.cost import Number
from ..model.state_dict import build_model
from ..pruning.gated_model import GatedModel
from ..pruning.structured import prune
from .pretrain_config import PretrainRecipe

KEY, CONFIG_KEY = "DPHuBERT", "Upstream_Config"
NAME = re.compile(r"states-(\d+)")


@dataclass(frozen=True)
class States:
    """All that is known of a student in training.

    Args:
        recipe: what is trained.
        shape: of the student's model, before any gate closes.
        module: tensors of student, objective and multipliers.
        full_costs: count -> what the budget's shares refer to.
        updates: how many have been made in this stage.
        updates1: how many were made in stage 1, if this is stage 2 after it.
        source: where it comes from, for messages.
    """

    recipe: PretrainRecipe
    shape: ModelConfig
    module: Mapping[str, Tensor]
    full_costs: dict[str, Number]
    updates: int
    updates1: int | None = None
    source: str = "the student"

    @property
    def projections(self) -> dict[str, Tensor]:
        """Tensors of the objective."""
        return self._part("objective.")

    def model(self) -> SpeechModel:
        """The model as it would be cut now, on the CPU and in eval mode.

        Raises:
            CheckpointError: a tensor is missing, of another shape or not finite.
            RunError: no choice of the gated units keeps the budget.
        """
        if self.recipe.stage == 2:
            return build_model(self.shape, self._part("student."), self.source)
        model = build_model(self.shape, self._part("student.model."), self.source)
        student = GatedModel(model, self.recipe.gates)
        try:
            student.gates.load_state_dict(self._part("student.gates."))
        except RuntimeError as error:
            raise CheckpointError(f"{self.source}: its gates do not fit its model ({error})") from error
        return prune(student, self.recipe.budget, self.full_costs).eval()

    def _part(self, prefix: str) -> dict[str, Tensor]:
        tensors = self.module.items()
        return {name[len(prefix) :]: t.detach().cpu() for name, t in tensors if name.startswith(prefix)}

    def put(self, content: dict[str, Any], **more: Any) -> None:
        """Add to what the runner saves; ``more`` are further plain values.

        ``Config`` stays the runner's own. ``Step`` is the number of updates made: the runner would
        write one less and repeat an update when it goes on.
        """
        content["Step"] = self.updates
        content["Args"] = plain_arguments(content["Args"])
        content[CONFIG_KEY] = {
            "recipe": self.recipe.to_dict(),
            "shape": self.shape.to_dict(),
            "updates1": self.updates1,
        }
        content[KEY] = {"module": dict(self.module), "full_costs": self.full_costs, **more}


def plain_arguments(arguments: Namespace) -> OrderedDict[str, Any]:
    """Arguments that read like s3prl's, which is all it does with them, yet need no class to be loaded.

    Without ``override``, which has been applied already: the runner would put the old one into the
    place of one that is given when it goes on.
    """
    values = {name: value for name, value in vars(arguments).items() if name != "override"}
    plain: OrderedDict[str, Any] = OrderedDict(values)
    vars(plain).update(values)
    return plain


def read_states(path: Path) -> States:
    """Read a checkpoint of this recipe; runs no code.

    Raises:
        CheckpointError: there is none, or it is damaged or another upstream's.
    """
    content = read_foreign_pickle(path)
    try:
        config, own = content[CONFIG_KEY], content[KEY]
        return States(
            PretrainRecipe.read(config["recipe"]),
            ModelConfig.from_dict(config["shape"]),
            own["module"],
            own["full_costs"],
            content["Step"],
            config["updates1"],
            str(path),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}: not of run_pretrain -u dphubert, or incomplete ({reason})") from error


def load_states(path: Path) -> SpeechModel:
    """The model in a checkpoint of this recipe, as it would be cut now; runs no code.

    Raises:
        CheckpointError: as :func:`read_states`.
        RunError: no choice of the gated units keeps the budget.
    """
    return read_states(path).model()


def find_states(place: Path) -> Path:
    """The checkpoint that a file, a model's directory ``states-N`` or an experiment's directory stands for.

    Raises:
        CheckpointError: there is none.
    """
    if place.is_file():
        return place
    if NAME.fullmatch(place.name):
        beside = place.with_name(f"{place.name}.ckpt")
        if beside.is_file():
            return beside
        raise CheckpointError(f"{place}: {beside.name} beside it is missing; stage 2 needs its projections")
    found = {
        int(match[1]): path for path in place.glob("states-*.ckpt") if (match := NAME.fullmatch(path.stem))
    }
    if not found:
        raise CheckpointError(f"{place}: no states-N.ckpt there")
    return found[max(found)]


class Models:
    """Model directories ``states-N`` beside the checkpoints of an experiment.

    Args:
        folder: the experiment's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mine = {path for path in folder.glob("states-*") if self._is_model(path) and _has_states(path)}
        for leftover in folder.glob(".states-*.part"):
            shutil.rmtree(leftover)

    def write(self, updates: int, model: SpeechModel, card: str) -> Path:
        """Write the model after so many updates, and remove those whose checkpoints s3prl has removed.

        Raises:
            RunError: something else has its name.
        """
        for path in sorted(self.mine):
            if not _has_states(path):
                shutil.rmtree(path, ignore_errors=True)
                self.mine.discard(path)
        target = self.folder / f"states-{updates}"
        if self._is_model(target):
            shutil.rmtree(target)  # of this very update, made again after an interruption
        elif target.exists():
            raise RunError(f"{target}: is in the way of the model of this update; move it")
        save_model(model, target, card)
        self.mine.add(target)
        return target

    def rename_last(self, epoch: int, updates: int) -> str | None:
        """Give the last checkpoint the name that its predecessors have; returns it, if there was another.

        s3prl numbers the last one by epochs, the others by updates, and goes on from the highest number.
        """
        named = self.folder / f"states-epoch-{epoch}.ckpt"
        if epoch < 1 or not named.exists():
            return None
        os.replace(named, self.folder / f"states-{updates}.ckpt")
        return f"states-{updates}.ckpt"

    @staticmethod
    def _is_model(path: Path) -> bool:
        return NAME.fullmatch(path.name) is not None and (path / CONFIG).is_file()


def _has_states(path: Path) -> bool:
    return path.with_name(f"{path.name}.ckpt").exists()
