"""s3prl's own checkpoints: read under torch.load's safe default, written whole or not at all."""

from __future__ import annotations

import argparse
import functools
import inspect
import io
import pickle
from pathlib import Path
from typing import Any

from .patch import Patch, swapped


def _refused(torch: Any) -> bool:
    file = io.BytesIO()
    torch.save({"Args": argparse.Namespace(upstream="hubert")}, file)
    file.seek(0)
    try:
        torch.load(file)
    except pickle.UnpicklingError:
        return True
    return False


def _allow_namespace(torch: Any) -> None:
    torch.serialization.add_safe_globals([argparse.Namespace])


def _schedules(optimizers: Any) -> list[Any]:
    base = optimizers._LRSchedule
    return [kind for kind in vars(optimizers).values() if isinstance(kind, type) and issubclass(kind, base)]


def _unknown_schedules(optimizers: Any) -> bool:
    from torch import serialization

    known = getattr(serialization, "get_safe_globals", None)
    return known is not None and not set(_schedules(optimizers)) <= set(known())


def _allow_schedules(optimizers: Any) -> None:
    from torch import serialization

    serialization.add_safe_globals(_schedules(optimizers))


def _saves_in_place(runner: Any) -> bool:
    return "torch.save(all_states, path)" in inspect.getsource(runner.Runner.train)


def _save_whole(runner: Any) -> None:
    from ..utils.files import replacing

    save, train = runner.torch.save, runner.Runner.train

    def whole(states: Any, path: str) -> None:
        with replacing(Path(path)) as partial:
            save(states, partial)

    @functools.wraps(train)
    def with_whole_files(self: Any) -> None:
        with swapped(runner.torch, "save", whole):
            train(self)

    runner.Runner.train = with_whole_files


PATCHES = (
    Patch(
        name="torch.load",
        module="torch",
        reason="every evaluation and resumption loads an argparse.Namespace, which torch.load refuses",
        versions="torch >= 2.6; until s3prl saves its arguments as a dict",
        needed=_refused,
        apply=_allow_namespace,
    ),
    Patch(
        name="torch.load schedules",
        module="s3prl.optimizers",
        reason="optimizers *_with_schedule leave warm-up objects in checkpoints, which torch.load refuses",
        versions="torch >= 2.6; until those optimizers save plain numbers",
        needed=_unknown_schedules,
        apply=_allow_schedules,
    ),
    Patch(
        name="whole checkpoints",
        module="s3prl.downstream.runner",
        reason="a kill while the best checkpoint is replaced leaves neither the old one nor the new one",
        versions="s3prl 0.4.18; until it writes under another name and renames",
        needed=_saves_in_place,
        apply=_save_whole,
    ),
)
