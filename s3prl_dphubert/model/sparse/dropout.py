"""Dropout and attention for training on the CPU, from cheaper random numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 1 << 16  # probabilities are whole multiples of 1 / LEVELS


def draw(shape: torch.Size) -> Tensor:
    """Draw integers from -LEVELS / 2 to below LEVELS / 2, int16, from torch's global generator.

    Four of them come from one number of the generator, in a quarter of the time of a Bernoulli trial each.
    """
    numbers = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return numbers.view(torch.int16)[: shape.numel()].view(shape)


def keep_mask(numbers: Tensor, probability: float, dtype: torch.dtype) -> Tensor:
    """Turn numbers of :func:`draw` into a mask that is 0 with that probability, else 1."""
    out = torch.empty(numbers.shape, dtype=dtype)
    return torch.ge(numbers, round(probability * LEVELS) - LEVELS // 2, out=out)


def scale(probability: float) -> float:
    """Factor of the elements that dropout keeps."""
    return LEVELS / (LEVELS - round(probability * LEVELS))


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero elements of x with that probability, and scale the others up."""
    if not probability:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    return x * keep_mask(draw(x.shape), probability, x.dtype).mul_(scale(probability))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, probability: float) -> Tensor:
    """Scaled dot-product attention with dropout on its weights.

    Without dropout, torch's fused kernel takes float32. In 16 bits it needs two to four times as long as
    these products, forward and backward, at 16 to 64 dimensions a head (AMD EPYC, Zen 5).

    Args:
        q: (B, H, F, D / H); likewise k and v.
        bias: broadcastable to (B, H, F, F), added to the scores.
        probability: of a weight to be dropped.

    Returns:
        (B, H, F, D / H).
    """
    is_fused = not probability and (q.dtype == torch.float32 or not torch.is_grad_enabled())
    if q.device.type != "cpu" or is_fused:
        return F.scaled_dot_product_attention(q, k, v, bias, probability)
    q, k, v = (x.contiguous() for x in (q, k, v))
    return _Attention.apply(q, k, v, bias, probability)


class _Attention(torch.autograd.Function):
    """Attention with dropout that keeps two matrices of scores for the backward pass; torch keeps five."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, probability: float) -> Tensor:
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        if bias is not None:
            scores += bias
        weights = torch.softmax(scores, -1)
        numbers = draw(weights.shape) if probability else None
        ctx.save_for_backward(q, k, v, weights, numbers)
        ctx.probability, ctx.bias = probability, None if bias is None else bias.shape
        if numbers is None:
            return torch.matmul(weights, v)
        dropped = keep_mask(numbers, probability, q.dtype).mul_(weights)
        return torch.matmul(dropped, v * scale(probability))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, numbers = ctx.saved_tensors
        if numbers is None:
            of_v = torch.matmul(weights.transpose(-1, -2), gradients[0])
            of_weights = torch.matmul(gradients[0], v.transpose(-1, -2))
        else:
            gradient = gradients[0] * scale(ctx.probability)
            mask = keep_mask(numbers, ctx.probability, q.dtype)
            of_v = torch.matmul((weights * mask).transpose(-1, -2), gradient)
            of_weights = torch.matmul(gradient, v.transpose(-1, -2)).mul_(mask)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, q.dtype)
        of_bias = of_scores.sum_to_size(ctx.bias) if ctx.needs_input_grad[3] else None
        root = q.shape[-1] ** -0.5
        of_q = torch.matmul(of_scores, k).mul_(root)
        of_k = torch.matmul(of_scores.transpose(-1, -2), q).mul_(root)
        return of_q, of_k, of_v, of_bias, None
