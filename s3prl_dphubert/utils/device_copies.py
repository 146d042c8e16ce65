"""Copies from the host to a GPU that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def start_copy(tensor: Tensor, device: torch.device) -> Tensor:
    """Start the copy of a tensor of the host to a device; on the CPU return the tensor itself.

    From pageable memory the host would wait for the GPU. Pinned memory that is freed meanwhile is safe:
    torch's allocator does not give it away before the copy is over.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def start_copy_back(tensor: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """Start the copy of a tensor to the host; of the CPU's return itself.

    Returns:
        The copy, and a function that waits until it is complete.
    """
    if tensor.device.type != "cuda":
        return tensor, lambda: None
    copy = torch.empty(tensor.shape, dtype=tensor.dtype).pin_memory()
    copy.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event.synchronize
