"""A CUDA device that computes nothing: shapes, types and devices are real, numbers and kernels are not.

It shows on any machine which tensors would be on the wrong device, and where the host would wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = (
    "_local_scalar_dense",  # item, float, int, bool and tolist of one number
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",  # of a tensor of counts
    "bincount",
)


class Waits(TorchDispatchMode):
    """Notes operations whose result the host has to wait for, and copies that block it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.types: dict[str, set[torch.dtype]] = {}  # operation -> types of its first argument
        self.answer: float | None = None  # to whoever reads a number, which a fake tensor has not
        self.pinned: dict[int, Tensor] = {}  # by id

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if any(t.device.type == "cuda" for t in tensors):
            self.types.setdefault(name, set()).add(tensors[0].dtype)
            masks = args[1] if name in ("index", "index_put", "index_put_") else []
            if name == "prod" and tensors[0].requires_grad:
                self.found.append("prod, whose gradient looks for zeros")
            if name in WAITING or any(m is not None and m.dtype == torch.bool for m in masks):
                self.found.append(name)
        if name == "_local_scalar_dense" and self.answer is not None:
            return self.answer
        out = function(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            target, source = (args[0], args[1]) if name == "copy_" else (out, args[0])
            kinds = source.device.type, target.device.type
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            host = source if kinds[0] == "cpu" else target
            if kinds[0] != kinds[1] and not (non_blocking and id(host) in self.pinned):
                self.found.append(f"copy from {kinds[0]} to {kinds[1]}")
        return out


@contextmanager
def fake_cuda() -> Iterator[Waits]:
    """Let ``cuda`` be a device without numbers; what was made before can be moved to it.

    Yields:
        Where the host would have waited so far.
    """
    waits = Waits()

    def pin_memory(tensor: Tensor, *_: Any) -> Tensor:
        if tensor.device.type != "cpu":
            raise RuntimeError(f"cannot pin a tensor on {tensor.device}")
        pinned = tensor.clone()
        waits.pinned[id(pinned)] = pinned
        return pinned

    with pytest.MonkeyPatch.context() as patch:
        for module in (torch.cuda.amp.common, torch.amp.grad_scaler):
            if hasattr(module, "amp_definitely_not_available"):
                patch.setattr(module, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "fake")
        patch.setattr(torch.cuda, "synchronize", lambda *_: waits.found.append("synchronize"))
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.Tensor, "pin_memory", pin_memory)
        patch.setattr(torch.Tensor, "is_pinned", lambda tensor, *_: id(tensor) in waits.pinned)
        patch.setattr(torch.Tensor, "backward", backward)
        patch.setattr(torch.autograd, "grad", gradients_of)
        patch.setattr(nn.Module, "_apply", apply)
        with FakeTensorMode(allow_non_fake_inputs=True), waits:
            yield waits


def apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Replace parameters and buffers; those of a fake device stay, as torch cannot swap them."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.device.type != "cuda":
                with torch.no_grad():
                    part._parameters[name] = nn.Parameter(function(parameter), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.device.type != "cuda":
                part._buffers[name] = function(buffer)
    return module


class Event:
    """An event that is over as soon as it is recorded."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


@torch.no_grad()
def backward(loss: Tensor, gradient: Tensor | None = None) -> None:
    """Run the backward pass node by node, since torch's engine asks for the streams of a real device."""
    _run(loss, torch.ones_like(loss) if gradient is None else gradient, {})


@torch.no_grad()
def gradients_of(loss: Tensor, inputs: Tensor) -> tuple[Tensor]:
    """Return the gradient of a loss (0-d) for one leaf, and leave those of others as they are."""
    caught: dict[int, Tensor] = {id(inputs): torch.zeros_like(inputs)}
    _run(loss, torch.ones_like(loss), caught)
    return (caught[id(inputs)],)


def _run(loss: Tensor, gradient: Tensor, caught: dict[int, Tensor]) -> None:
    """Visit nodes after all that need their output; ``caught`` takes the place of leaves' gradients."""
    root = loss.grad_fn
    waiting: dict[Any, int] = {}  # node -> edges to it that have no gradient yet
    stack, seen = [root], {root}
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                waiting[node] = waiting.get(node, 0) + 1
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    arrived: dict[Any, list[Tensor | None]] = {root: [gradient]}
    ready = [root]
    while ready:
        node = ready.pop()
        given = _fitting(node, arrived.pop(node))
        if caught and hasattr(node, "variable"):
            if id(node.variable) in caught:
                caught[id(node.variable)] += given[0]
            continue
        out = node(*given)
        for (following, number), value in zip(
            node.next_functions, out if isinstance(out, tuple) else (out,), strict=False
        ):
            if following is None:
                continue
            slots = arrived.setdefault(following, [None] * len(following._input_metadata))
            if value is not None:
                before = slots[number]
                slots[number] = value if before is None else before + value
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


def _fitting(node: Any, gradients: list[Tensor | None]) -> list[Tensor | None]:
    """Check the devices of gradients, and give them the shapes and types that the engine would."""
    fitting = []
    for gradient, expected in zip(gradients, node._input_metadata, strict=True):
        if gradient is not None:
            assert gradient.device.type == expected.device.type, (node, gradient.device, expected.device)
            if tuple(gradient.shape) != tuple(expected.shape):
                gradient = gradient.sum_to_size(expected.shape)
            gradient = gradient.to(expected.dtype)
        fitting.append(gradient)
    return fitting
