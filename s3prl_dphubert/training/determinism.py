"""Kernels of a GPU whose sums have a fixed order, so that a run can be repeated to the bit."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import RunError

log = logging.getLogger(__name__)
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
ALLOWED = (":4096:8", ":16:8")


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Let torch use only deterministic kernels, if they are wanted; those of the CPU always are.

    To be entered before CUDA starts, since cuBLAS then reads its setting from the environment.

    Raises:
        RunError: CUDA has started without that setting.
    """
    if not wanted:
        yield
        return
    setting = os.environ.get(WORKSPACE)
    if setting not in ALLOWED and torch.cuda.is_initialized():
        raise RunError(
            f"deterministic is true, and CUDA has started with {WORKSPACE} {setting!r}, allowed: "
            f"{', '.join(ALLOWED)}, set before Python uses the GPU"
        )
    if setting not in ALLOWED:
        os.environ[WORKSPACE] = ALLOWED[0]
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing here reads such memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]


def say_repeatable(device: torch.device) -> None:
    """Say in one line, where it is so, that a run on a GPU cannot be repeated to the bit."""
    if device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
        log.warning(
            "kernels of the GPU add in an order that varies, so that a resumed run ends with slightly other "
            "weights; `deterministic: true` prevents that and is slower"
        )
