"""Strided convolutions and linear maps of GELU(x), for training.

They take the output of the layer before ahead of its GELU, so that one tensor a layer is kept for the
backward pass rather than two or three. Convolutions are matrix products of windows that are never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

gelu, gelu_backward = torch.ops.aten.gelu, torch.ops.aten.gelu_backward


def gelu_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolve GELU(x).

    Args:
        x: (B, T_in, C_in), contiguous.
        weight: (C_out, C_in, K), in the type of x.
        bias: (C_out,), if there is one.
        stride: in frames of x; at most K.

    Returns:
        (B, T_out, C_out).
    """
    y = _GeluConv.apply(x, weight, stride)
    return y if bias is None else y + bias.to(y.dtype)


class _GeluConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        kernel, frames = weight.shape[-1], (x.shape[1] - weight.shape[-1]) // stride + 1
        taps = weight.permute(2, 1, 0).contiguous()  # (K, C_in, C_out)
        y = x.new_empty(len(x), frames, len(weight))
        for row, out in zip(x, y, strict=True):
            row = gelu(row)
            for first, count in _groups(kernel, stride):
                part = taps[first : first + count].flatten(0, 1)
                _add(out, _windows(row, first, count, stride, frames), part, fresh=not first)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        stride, frames, kernel = ctx.stride, gradients[0].shape[1], weight.shape[-1]
        taps = weight.permute(2, 0, 1)  # (K, C_out, C_in)
        of_x = torch.empty_like(x)
        of_taps = torch.zeros(
            kernel * x.shape[-1], len(weight), dtype=torch.promote_types(x.dtype, torch.float32)
        )
        for row, out, gradient in zip(x, of_x, gradients[0].contiguous(), strict=True):
            activated = gelu(row)
            out[frames * stride :] = 0
            for first, count in _groups(kernel, stride):
                part = taps[first : first + count].transpose(0, 1).flatten(1)
                _add(_windows(out, first, count, stride, frames), gradient, part, fresh=not first)
                windows = _windows(activated, first, count, stride, frames).t()
                _add(of_taps[first * x.shape[-1] :][: len(windows)], windows, gradient, fresh=False)
            out.copy_(gelu_backward(out, row))
        of_weight = of_taps.unflatten(0, (kernel, -1)).permute(2, 1, 0)
        return of_x, of_weight.to(weight.dtype), None


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a linear map to GELU(x), which is computed again in the backward pass rather than kept.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs), in the type of x.
        bias: (outputs,), in the type of x.

    Returns:
        (..., outputs).
    """
    return _GeluLinear.apply(x, weight, bias)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(gelu(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        of_x = gelu_backward((rows @ weight).view_as(x), x)
        return of_x, rows.t() @ gelu(x).flatten(0, -2), rows.sum(0)


def _groups(kernel: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield the first tap and the number of taps of each run of neighbours whose windows do not overlap."""
    for first in range(0, kernel, stride):
        yield first, min(stride, kernel - first)


def _windows(x: Tensor, first: int, count: int, stride: int, frames: int) -> Tensor:
    """Return the windows (frames, count C) of x (T, C) that ``count`` taps from ``first`` on meet, a view."""
    width = x.shape[-1]
    start = x.storage_offset() + first * width
    return x.as_strided((frames, count * width), (stride * width, 1), start)


def _add(out: Tensor, a: Tensor, b: Tensor, fresh: bool) -> None:
    """Write a @ b to ``out`` if it is ``fresh``, else add it to what ``out`` holds."""
    if fresh:
        torch.mm(a, b, out=out)
    elif out.dtype == a.dtype:
        out.addmm_(a, b)
    else:
        out += a @ b
