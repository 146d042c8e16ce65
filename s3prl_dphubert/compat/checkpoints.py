"""s3prl's own checkpoints under torch.load's safe default."""

from __future__ import annotations

import argparse
import io
import pickle
from typing import Any

from .patch import Patch


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
)
