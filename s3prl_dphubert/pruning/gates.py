"""Hard concrete gates (Louizos et al. 2018). They know nothing of the layers whose units they close."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.masks import Masks
from ..model.model_config import ModelConfig
from ..utils.config_io import is_int
from ..utils.device_copies import start_copy

TEMPERATURE = 2 / 3
STRETCH = 0.1
SHIFT = -TEMPERATURE * math.log(STRETCH / (1 + STRETCH))
SHARPNESS = 0.8  # slope of the deterministic mask, from the published implementation
EDGE = 1e-6  # keeps the uniform noise off 0 and 1

KINDS = {"conv": 0.01, "heads": 0.01, "ffn": 0.5, "attention": 0.01, "feed_forward": 0.01}
"""Kind of prunable unit -> initial drop rate of its gates."""

DEFAULT_KINDS = ("conv", "heads", "ffn")
SUBLAYER = {"heads": "attention", "ffn": "feed_forward"}
"""Kind of units inside of a sublayer -> kind of the gate of the whole sublayer."""
ESTIMATORS = ("sample", "straight_through")


@dataclass(frozen=True)
class GateConfig:
    """Units that have gates.

    Args:
        kinds: any of ``conv`` (output channels of conv layers), ``heads``, ``ffn`` (feed-forward units),
            ``attention`` and ``feed_forward`` (whole sublayers).
        std: standard deviation of the initial ``log_alpha``.
        exact: prune exactly; ``False`` reproduces the published implementation.
        estimator: ``sample`` multiplies units by their sampled gates (as published). ``straight_through``
            multiplies them by 1 where the sample is above 0, and by 0 elsewhere, with the gradient of the
            sample before clamping (Wang et al. 2023, arXiv 2306.01385). Nothing is folded into the weights
            then; on the CPU an update takes longer, since closed units have gradients, too.
        keep: kind of unit -> what may not be closed: layers, counted from 0, that keep all of their units, or
            a mapping with ``layers`` and ``min``, the number of units that every layer keeps. Layers
            in which heads or feed-forward units are kept keep these sublayers, too.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    kinds: tuple[str, ...] = DEFAULT_KINDS
    std: float = 0.01
    exact: bool = True
    estimator: str = "sample"
    keep: dict[str, tuple[int, ...] | dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(self.kinds))
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        faults = [f"kinds has {unknown}, allowed: {', '.join(KINDS)}"] if unknown else []
        if not self.kinds:
            faults.append(f"kinds is empty, allowed: any of {', '.join(KINDS)}")
        if self.std < 0:
            faults.append(f"std is {self.std}, allowed: 0 or more")
        if self.estimator not in ESTIMATORS:
            faults.append(f"estimator is {self.estimator!r}, allowed: {', '.join(ESTIMATORS)}")
        ConfigError.raise_for("gates", [*faults, *self._keep_faults()])

    def _keep_faults(self) -> Iterable[str]:
        for kind, limits in self.keep.items():
            if kind not in self.kinds:
                yield f"keep names {kind!r}, allowed: the kinds that have gates ({', '.join(self.kinds)})"
            values = limits if isinstance(limits, dict) else {"layers": limits}
            if set(values) - {"layers", "min"}:
                yield f"keep.{kind} is {limits!r}, allowed: layers, or a mapping with layers and min"
                continue
            layers, least = values.get("layers", ()), values.get("min", 0)
            if not isinstance(layers, list | tuple) or not all(is_int(n) and n >= 0 for n in layers):
                yield f"keep.{kind} has layers {layers!r}, allowed: a list of layers from 0"
            if not is_int(least) or least < 0:
                yield f"keep.{kind}.min is {least!r}, allowed: 0 or more"

    def kept_layers(self, kind: str) -> set[int]:
        """Return the layers, from 0, whose units of a kind all stay."""
        limits = self.keep.get(kind, ())
        return set(limits.get("layers", ()) if isinstance(limits, dict) else limits)

    def least(self, kind: str) -> int:
        """Return the number of units of a kind that every layer keeps; conv layers keep one in any case."""
        limits = self.keep.get(kind, ())
        least = limits.get("min", 0) if isinstance(limits, dict) else 0
        return max(least, int(kind == "conv"))


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a gate is not exactly zero (Louizos et al., eq. 12), of the same shape."""
    return torch.sigmoid(log_alpha + SHIFT)


def sample(log_alpha: Tensor, uniform: Tensor, estimator: str = "sample") -> Tensor:
    """Return stretched and clamped samples for uniform noise in (0, 1) of the same shape (eq. 10, 11).

    With the estimator ``straight_through`` they are 1 where a sample is above 0, else 0, with the gradient of
    the stretched sample.
    """
    noise = torch.log(uniform / (1 - uniform))
    concrete = torch.sigmoid((noise + log_alpha) / TEMPERATURE)
    stretched = concrete * (1 + 2 * STRETCH) - STRETCH
    if estimator == "straight_through":
        is_open = (stretched.detach() > 0).to(stretched.dtype)
        return is_open + (stretched - stretched.detach())
    return stretched.clamp(0, 1)


class HardConcrete(nn.Module):
    """Gates with a learned location ``log_alpha`` (N,).

    Args:
        size: number of gates N.
        drop_rate: initial probability that a gate is closed.
        std: standard deviation of the initial ``log_alpha``.
        binary: open gates count as 1 rather than by their soft values.
    """

    def __init__(self, size: int, drop_rate: float = 0.5, std: float = 0.01, binary: bool = False) -> None:
        super().__init__()
        self.binary = binary
        mean = math.log(1 - drop_rate) - math.log(drop_rate)
        self.log_alpha = nn.Parameter(torch.randn(size) * std + mean)

    def open_probability(self) -> Tensor:
        """Return the probabilities (N,) that gates are not exactly zero (Louizos et al., eq. 12)."""
        return open_probability(self.log_alpha)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return stretched and clamped samples (N,) for uniform noise (N,) in (0, 1) (eq. 10, 11)."""
        return sample(self.log_alpha, uniform)

    def soft(self) -> Tensor:
        """Return the deterministic values (N,) of the gates if they are open."""
        if self.binary:
            return torch.ones_like(self.log_alpha)
        return torch.sigmoid(self.log_alpha / TEMPERATURE * SHARPNESS)

    def hard_mask(self) -> Tensor:
        """Return the mask (N,) for evaluation: soft values, but the round(N - expected open) smallest 0."""
        mask = self.soft().detach().clone()
        closed = round(len(mask) - self.open_probability().sum().item())
        mask[torch.topk(self.log_alpha, closed, largest=False).indices] = 0.0
        return mask


class Gates(nn.Module):
    """All gates of a model, grouped by kind and layer.

    Args:
        model: shape of the model.
        config: units that have gates.

    Raises:
        ConfigError: a layer to keep does not exist.
    """

    def __init__(self, model: ModelConfig, config: GateConfig | None = None) -> None:
        super().__init__()
        self.config = config or GateConfig()
        sizes, binary = gate_sizes(model, self.config), self.config.estimator == "straight_through"
        self.groups = nn.ModuleDict()
        for kind in (kind for kind in KINDS if kind in self.config.kinds):
            rows = {
                str(i): HardConcrete(n, KINDS[kind], self.config.std, binary) for i, n in sizes[kind].items()
            }
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
        rows = self._split(sample(alpha, start_copy(uniform, alpha.device), self.config.estimator))
        for kind, index, gates in self.items():
            rows[kind][index] = self._keep_least(rows[kind][index], kind, gates)
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
            masks[kind][index] = self._keep_least(gates.hard_mask(), kind, gates)
        return Masks(**masks, exact=self.config.exact)

    def expected(self, shift: Tensor | float = 0.0) -> dict[str, dict[int, Tensor]]:
        """Return, by kind and layer, the differentiable probabilities (N,) that units are open.

        Args:
            shift: amount (0-d) to add to all locations.
        """
        return self._split(open_probability(self._log_alphas() + shift))

    @torch.no_grad()
    def shift(self, amount: Tensor) -> None:
        """Add an amount (0-d) to the locations of all gates, which keeps their order."""
        for _, _, gates in self.items():
            gates.log_alpha.add_(amount.to(gates.log_alpha))

    def _keep_least(self, mask: Tensor, kind: str, gates: HardConcrete) -> Tensor:
        """Reopen the likeliest units of a group of which fewer are open than it has to keep."""
        if not (least := min(self.config.least(kind), len(mask))):
            return mask
        likeliest = torch.zeros_like(mask, dtype=torch.bool)
        likeliest[torch.topk(gates.log_alpha, least).indices] = True
        is_open = mask > 0
        missing = is_open.sum() < least  # no read-back from the device
        return torch.where(likeliest & ~is_open & missing, gates.soft(), mask)


def gate_sizes(model: ModelConfig, config: GateConfig | None = None) -> dict[str, dict[int, int]]:
    """Return, by kind and layer, the number of units that gates can close in a model.

    Args:
        model: shape of the model.
        config: the gates, with the units that they have to keep.

    Raises:
        ConfigError: a layer to keep does not exist.
    """
    heads = {i: len(kept) for i, kept in enumerate(model.heads) if kept}
    ffn = {i: width for i, width in enumerate(model.ffn) if width}
    sizes = {
        "conv": dict(enumerate(model.conv_channels)),
        "heads": heads,
        "ffn": ffn,
        "attention": {i: 1 for i, kept in enumerate(model.heads) if kept is not None},
        "feed_forward": {i: 1 for i, width in enumerate(model.ffn) if width is not None},
    }
    if config is None:
        return sizes
    depth = {kind: len(model.conv_channels) if kind == "conv" else model.num_layers for kind in KINDS}
    faults = [
        f"keep.{kind} has layer {layer}, allowed: 0 to {depth[kind] - 1}"
        for kind in config.keep
        for layer in sorted(config.kept_layers(kind))
        if layer >= depth[kind]
    ]
    ConfigError.raise_for("gates", faults)
    ungated = {kind: config.kept_layers(kind) for kind in KINDS}
    for kind, sublayer in SUBLAYER.items():
        ungated[sublayer] |= set(sizes[kind]) if config.least(kind) else ungated[kind]
    return {kind: {i: n for i, n in rows.items() if i not in ungated[kind]} for kind, rows in sizes.items()}
