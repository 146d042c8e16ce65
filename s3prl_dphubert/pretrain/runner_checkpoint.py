"""Write what s3prl's pretraining runner keeps of a run: ``states-N.ckpt`` and the models beside them."""

from __future__ import annotations

import os
import re
import shutil
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ..checkpoints.directory import CONFIG, Card, save_model
from ..checkpoints.s3prl_states import RECIPE, STUDENT, StudentStates
from ..errors import CheckpointError, RunError
from ..model import SpeechModel
from .pretrain_config import PretrainRecipe

NAME = re.compile(r"states-(\d+)")


def add_states(content: dict[str, Any], recipe: PretrainRecipe, states: StudentStates, **more: Any) -> None:
    """Add a student to what the runner saves.

    ``Config`` stays the runner's own. ``Step`` becomes the number of updates made: the runner would write
    one less and repeat an update on resuming.

    Args:
        content: content of the checkpoint; changed in place.
        recipe: what is trained.
        states: the student.
        more: further plain values, for :meth:`.expert.UpstreamPretrainExpert.load_model`.
    """
    content["Step"] = states.updates
    content["Args"] = plain_arguments(content["Args"])
    content[RECIPE] = {
        "recipe": recipe.to_dict(),
        "shape": states.shape.to_dict(),
        "updates1": states.updates1,
    }
    content[STUDENT] = {"module": dict(states.module), "full_costs": states.full_costs, **more}


def plain_arguments(arguments: Namespace) -> OrderedDict[str, Any]:
    """Return arguments that read like s3prl's namespace, but load without its class.

    ``override`` is left out, since it has been applied already: on resuming, the runner would prefer the
    old one to a new one.
    """
    values = {name: value for name, value in vars(arguments).items() if name != "override"}
    plain: OrderedDict[str, Any] = OrderedDict(values)
    vars(plain).update(values)
    return plain


def find_states(place: Path) -> Path:
    """Return the checkpoint of a run.

    Args:
        place: the file itself, the directory ``states-N`` of the model beside it, or the directory of an
            experiment, whose last checkpoint is returned.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    if place.is_file():
        return place
    if NAME.fullmatch(place.name):
        beside = place.with_name(f"{place.name}.ckpt")
        if beside.is_file():
            return beside
        raise CheckpointError(f"{place}: {beside.name} beside it is missing; stage 2 needs its projections")
    checkpoints = {
        int(match[1]): path for path in place.glob("states-*.ckpt") if (match := NAME.fullmatch(path.stem))
    }
    if not checkpoints:
        raise CheckpointError(f"{place}: no states-N.ckpt there")
    return checkpoints[max(checkpoints)]


class Models:
    """Model directories ``states-N`` beside the checkpoints of an experiment.

    Args:
        folder: directory of the experiment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = {
            path for path in folder.glob("states-*") if self._is_model(path) and _has_states(path)
        }
        for leftover in folder.glob(".states-*.part"):
            shutil.rmtree(leftover)

    def write(self, updates: int, model: SpeechModel, card: str | Card) -> Path:
        """Write the model of an update, and remove the models whose checkpoints s3prl has removed.

        Raises:
            RunError: something else has the name of the directory.
        """
        for path in sorted(self.written):
            if not _has_states(path):
                shutil.rmtree(path, ignore_errors=True)
                self.written.discard(path)
        target = self.folder / f"states-{updates}"
        if self._is_model(target):
            shutil.rmtree(target)  # this very update is repeated after an interruption
        elif target.exists():
            raise RunError(f"{target}: is in the way of the model of this update; move it")
        save_model(model, target, card)
        self.written.add(target)
        return target

    def rename_last(self, epoch: int, updates: int) -> str | None:
        """Rename the last checkpoint, which s3prl numbers by epochs, after its updates, as all others are.

        s3prl resumes from the highest number.

        Returns:
            The new name, or ``None`` if there was nothing to rename.
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
