"""s3prl's own checkpoints: readable under torch.load's safe default, and written atomically."""

from __future__ import annotations

import argparse
import inspect
import io
import pickle
from pathlib import Path
from typing import Any

from .patch import Patch, swapped, wrap


def _refuses_namespace(torch: Any) -> bool:
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
    return [
        value for value in vars(optimizers).values() if isinstance(value, type) and issubclass(value, base)
    ]


def _refuses_schedules(optimizers: Any) -> bool:
    from torch import serialization

    get_safe_globals = getattr(serialization, "get_safe_globals", None)
    return get_safe_globals is not None and not set(_schedules(optimizers)) <= set(get_safe_globals())


def _allow_schedules(optimizers: Any) -> None:
    from torch import serialization

    serialization.add_safe_globals(_schedules(optimizers))


def _saves_in_place(runner: Any) -> bool:
    return "torch.save(all_states, path)" in inspect.getsource(runner.Runner.train)


def _save_atomically(runner: Any) -> None:
    from ..utils.files import replacing

    save = runner.torch.save

    def save_atomically(states: Any, path: str) -> None:
        with replacing(Path(path)) as partial:
            save(states, partial)

    def train(original, self) -> None:
        with swapped(runner.torch, "save", save_atomically):
            original(self)

    wrap(runner.Runner, "train", train)


PATCHES = (
    Patch(
        name="torch.load",
        module="torch",
        reason="evaluation and resumption load an argparse.Namespace, which torch.load refuses",
        versions="torch >= 2.6; until s3prl saves its arguments as a dict",
        needed=_refuses_namespace,
        apply=_allow_namespace,
    ),
    Patch(
        name="torch.load schedules",
        module="s3prl.optimizers",
        reason="optimizers *_with_schedule leave warm-up objects in checkpoints, which torch.load refuses",
        versions="torch >= 2.6; until those optimizers save plain numbers",
        needed=_refuses_schedules,
        apply=_allow_schedules,
    ),
    Patch(
        name="whole checkpoints",
        module="s3prl.downstream.runner",
        reason="a process killed while it replaces the best checkpoint leaves neither old nor new",
        versions="s3prl 0.4.18; until it writes to a temporary file and renames it",
        needed=_saves_in_place,
        apply=_save_atomically,
    ),
)
