"""Hard concrete gates (Louizos et al. 2018). They know nothing of the layers whose units they close."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.masks import Masks
from ..model.model_config import ModelConfig

TEMPERATURE = 2 / 3
STRETCH = 0.1
SHIFT = -TEMPERATURE * math.log(STRETCH / (1 + STRETCH))
SHARPNESS = 0.8  # slope of the deterministic mask, from the published implementation
EDGE = 1e-6  # keeps the uniform noise off 0 and 1

KINDS = {"conv": 0.01, "heads": 0.01, "ffn": 0.5, "attention": 0.01, "feed_forward": 0.01}
"""Kind of prunable unit -> initial drop rate of its gates."""

DEFAULT_KINDS = ("conv", "heads", "ffn")


@dataclass(frozen=True)
class GateConfig:
    """Units that have gates.

    Args:
        kinds: any of ``conv`` (output channels of conv layers), ``heads``, ``ffn`` (feed-forward units),
            ``attention`` and ``feed_forward`` (whole sublayers).
        std: standard deviation of the initial ``log_alpha``.
        exact: prune exactly; ``False`` reproduces the published implementation.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    kinds: tuple[str, ...] = DEFAULT_KINDS
    std: float = 0.01
    exact: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(self.kinds))
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        faults = [f"kinds has {unknown}, allowed: {', '.join(KINDS)}"] if unknown else []
        if not self.kinds:
            faults.append(f"kinds is empty, allowed: any of {', '.join(KINDS)}")
        if self.std < 0:
            faults.append(f"std is {self.std}, allowed: 0 or more")
        ConfigError.raise_for("gates", faults)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a gate is not exactly zero (Louizos et al., eq. 12), of the same shape."""
    return torch.sigmoid(log_alpha + SHIFT)


def sample(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Return stretched and clamped samples for uniform noise in (0, 1) of the same shape (eq. 10, 11)."""
    noise = torch.log(uniform / (1 - uniform))
    concrete = torch.sigmoid((noise + log_alpha) / TEMPERATURE)
    return (concrete * (1 + 2 * STRETCH) - STRETCH).clamp(0, 1)


class HardConcrete(nn.Module):
    """Gates with a learned location ``log_alpha`` (N,).

    Args:
        size: number of gates N.
        drop_rate: initial probability that a gate is closed.
        std: standard deviation of the initial ``log_alpha``.
    """

    def __init__(self, size: int, drop_rate: float = 0.5, std: float = 0.01) -> None:
        super().__init__()
        mean = math.log(1 - drop_rate) - math.log(drop_rate)
        self.log_alpha = nn.Parameter(torch.randn(size) * std + mean)

    def open_probability(self) -> Tensor:
        """Return the probabilities (N,) that gates are not exactly zero (Louizos et al., eq. 12)."""
        return open_probability(self.log_alpha)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return stretched and clamped samples (N,) for uniform noise (N,) in (0, 1) (eq. 10, 11)."""
        return sample(self.log_alpha, uniform)

    def soft(self) -> Tensor:
        """Return the deterministic values (N,) of the gates."""
        return torch.sigmoid(self.log_alpha / TEMPERATURE * SHARPNESS)

    def hard_mask(self) -> Tensor:
        """Return the mask (N,) for evaluation: soft values, but the round(N - expected open) smallest 0."""
        mask = self.soft().detach().clone()
        closed = round(len(mask) - self.open_probability().sum().item())
        mask[torch.topk(mask, closed, largest=False).indices] = 0.0
        return mask


class Gates(nn.Module):
    """All gates of a model, grouped by kind and layer."""

    def __init__(self, model: ModelConfig, config: GateConfig | None = None) -> None:
        super().__init__()
        self.config = config or GateConfig()
        sizes = gate_sizes(model)
        self.groups = nn.ModuleDict()
        for kind in (kind for kind in KINDS if kind in self.config.kinds):
            rows = {str(i): HardConcrete(n, KINDS[kind], self.config.std) for i, n in sizes[kind].items()}
            self.groups[kind] = nn.ModuleDict(rows)

    def items(self) -> Iterable[tuple[str, int, HardConcrete]]:
        """Yield (kind, layer index, gates) in a fixed order."""
        for kind, rows in self.groups.items():
            for index, gates in rows.items():  # type: ignore[operator]
                yield kind, int(index), gates

    def sample(self, generator: torch.Generator) -> Masks:
        """Sample the masks of one training step, with noise from a generator of the CPU."""
        alpha = self._log_alphas()
        uniform = torch.rand(len(alpha), generator=generator).clamp(EDGE, 1 - EDGE)
        if alpha.device.type == "cuda":
            uniform = uniform.pin_memory()
        rows = self._split(sample(alpha, uniform.to(alpha.device, non_blocking=True)))
        for index, mask in rows["conv"].items():
            rows["conv"][index] = _keep_one(mask, self.groups["conv"][str(index)])  # type: ignore[index]
        return Masks(**rows, exact=self.config.exact)

    def _log_alphas(self) -> Tensor:
        """Return all locations in one tensor (N,), in the order of :meth:`items`."""
        return torch.cat([gates.log_alpha for _, _, gates in self.items()])

    def _split(self, values: Tensor) -> dict[str, dict[int, Tensor]]:
        """Split values (N,) of all gates by kind and layer."""
        rows: dict[str, dict[int, Tensor]] = {kind: {} for kind in KINDS}
        parts = values.split([len(gates.log_alpha) for _, _, gates in self.items()])
        for (kind, index, _), part in zip(self.items(), parts, strict=True):
            rows[kind][index] = part
        return rows

    def masks(self) -> Masks:
        """Return deterministic masks, each group rounded to its expected number of open gates."""
        masks: dict[str, dict[int, Tensor]] = {kind: {} for kind in KINDS}
        for kind, index, gates in self.items():
            mask = gates.hard_mask()
            masks[kind][index] = _keep_one(mask, gates) if kind == "conv" else mask
        return Masks(**masks, exact=self.config.exact)

    def expected(self) -> dict[str, dict[int, Tensor]]:
        """Return, by kind and layer, the differentiable probabilities (N,) that units are open."""
        return self._split(open_probability(self._log_alphas()))


def gate_sizes(model: ModelConfig) -> dict[str, dict[int, int]]:
    """Return, by kind and layer, the number of units that gates can close in a model."""
    heads = {i: len(kept) for i, kept in enumerate(model.heads) if kept}
    ffn = {i: width for i, width in enumerate(model.ffn) if width}
    return {
        "conv": dict(enumerate(model.conv_channels)),
        "heads": heads,
        "ffn": ffn,
        "attention": {i: 1 for i, kept in enumerate(model.heads) if kept is not None},
        "feed_forward": {i: 1 for i, width in enumerate(model.ffn) if width is not None},
    }


def _keep_one(mask: Tensor, gates: HardConcrete) -> Tensor:
    """Reopen the likeliest unit of a group whose gates are all closed."""
    best = torch.arange(len(mask), device=mask.device) == gates.log_alpha.argmax()
    return torch.where(best & (mask <= 0).all(), gates.soft(), mask)  # no read-back from the device
