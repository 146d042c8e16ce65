"""Cut the closed units out of a student. Pure: the student stays as it was."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .budget import Budget
from .cost import Number, Widths, masked_widths, without_emptied
from .errors import RunError
from .gates import Gates, HardConcrete
from .model import ModelConfig, SpeechModel
from .model.masks import Masks
from .student import Student

UNIT_KINDS = ("conv", "heads", "ffn")
Group = tuple[str, int]  # kind, layer


def prune(
    student: Student, budget: Budget | None = None, full_costs: dict[str, Number] | None = None
) -> SpeechModel:
    """Return the pruned model, which runs at once and can be gated and pruned again.

    Args:
        student: model and gates; not changed.
        budget: adjust all masks together so that the result never costs more than the budget
            in any of its counts, and as little less in the one that binds as the units allow.
            ``None`` rounds each gate group alone, as the published implementation does.
        full_costs: count -> what the budget's sparsity refers to; the student's own cost by default.

    Raises:
        RunError: even with one unit a group the model costs more than the budget.
    """
    return cut(student.model, final_masks(student, budget, full_costs))


def final_masks(
    student: Student, budget: Budget | None = None, full_costs: dict[str, Number] | None = None
) -> Masks:
    """The masks that :func:`prune` cuts by; the masked student equals the pruned model."""
    masks = student.gates.masks()
    if budget is None:
        return masks
    config = student.model.config
    full = budget.costs(config) if full_costs is None else full_costs
    return fit(config, student.gates, masks, budget, budget.limits(full))


def fit(config: ModelConfig, gates: Gates, masks: Masks, budget: Budget, limits: dict[str, float]) -> Masks:
    """Resize all gate groups by one factor, so that each cost comes as close below its limit as it can.

    Every group keeps its likeliest units, in number the factor times what its gates expect,
    rounded as the budget asks; then single steps are reopened where rounding took most, while
    there is room in every count.
    """
    groups = {(kind, layer): gate for kind, layer, gate in gates.items() if kind in UNIT_KINDS}
    expected = {key: gate.open_probability().sum().item() for key, gate in groups.items()}
    sizes = {key: len(gate.log_alpha) for key, gate in groups.items()}
    steps = {key: 1 if key[0] == "heads" else budget.round_to for key in groups}
    widths = masked_widths(config, masks)

    def counts(factor: float) -> dict[Group, int]:
        least = {key: steps[key] * int(key[0] == "conv") for key in groups}
        wanted = {key: steps[key] * int(factor * expected[key] / steps[key] + 0.5) for key in groups}
        return {key: min(sizes[key], max(least[key], wanted[key])) for key in groups}

    def costs(kept: dict[Group, int]) -> dict[str, float]:
        sized = _sized(widths, kept) if masks.exact else without_emptied(_sized(widths, kept))
        return {count: float(cost) for count, cost in budget.costs(config, sized).items()}

    def fits(kept: dict[Group, int]) -> bool:
        return all(cost <= limits[count] for count, cost in costs(kept).items())

    if not fits(counts(0)):
        smallest = costs(counts(0))
        faults = [f"{smallest[c]:,.0f} {c}, allowed: at most {limits[c]:,.0f}" for c in limits]
        raise RunError(f"budget: the smallest model costs {'; '.join(faults)}")
    low, high = 0.0, max(sizes[key] / max(expected[key], 1e-9) for key in groups) + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(counts(middle)) else (low, middle)
    kept = counts(low)
    room = True
    while room:
        room = False
        for key in sorted(groups, key=lambda key: kept[key] - low * expected[key]):
            more = kept | {key: min(sizes[key], kept[key] + steps[key])}
            if more[key] > kept[key] and fits(more):
                kept, room = more, True
                break
    rows = {kind: dict(getattr(masks, kind)) for kind in (*UNIT_KINDS, "attention", "feed_forward")}
    for (kind, layer), gate in groups.items():
        rows[kind][layer] = _likeliest(gate, kept[kind, layer])
    return Masks(**rows, exact=masks.exact)


def _sized(widths: Widths, kept: dict[Group, int]) -> Widths:
    """The widths with so many units in each group."""
    sized = replace(widths, **{kind: list(getattr(widths, kind)) for kind in (*UNIT_KINDS, "any_head")})
    for (kind, layer), count in kept.items():
        getattr(sized, kind)[layer] = count
        if kind == "heads":
            sized.any_head[layer] = int(count > 0)
    return sized


def _likeliest(gate: HardConcrete, count: int) -> Tensor:
    """(N,) soft values of the ``count`` likeliest units, 0 for the others."""
    soft = gate.soft().detach()
    mask = torch.zeros_like(soft)
    index = torch.topk(soft, count).indices
    mask[index] = soft[index]
    return mask


def cut(model: SpeechModel, masks: Masks) -> SpeechModel:
    """Remove the units whose mask is 0 and fold the soft values of the rest into what follows."""
    config = model.config
    pruned = cut_config(config, masks)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    _cut_conv(state, masks, len(config.conv_channels) - 1)
    for i in range(config.num_layers):
        prefix = f"encoder.transformer.layers.{i}."
        if pruned.heads[i] is None:
            _drop(state, f"{prefix}attention.")
        else:
            _cut_attention(state, config, masks, i, f"{prefix}attention.")
            if not pruned.heads[i]:
                _drop(state, f"{prefix}attention.gru_rel_pos_")
        if pruned.ffn[i] is None:
            _drop(state, f"{prefix}feed_forward.")
        else:
            _cut_feed_forward(state, masks, i, f"{prefix}feed_forward.")
    if not any(pruned.heads):
        _drop(state, "encoder.transformer.relative_positions.")
    small = SpeechModel(pruned)
    small.load_state_dict(state)
    return small.to(next(model.parameters()).device).train(model.training)


def cut_config(config: ModelConfig, masks: Masks) -> ModelConfig:
    """The shape that :func:`cut` leaves."""
    channels = [len(_kept(masks.conv.get(i), n)) for i, n in enumerate(config.conv_channels)]
    heads: list[tuple[int, ...] | None] = []
    ffn: list[int | None] = []
    for i, (ids, width) in enumerate(zip(config.heads, config.ffn, strict=True)):
        keep = ids is not None and _is_open(masks.attention.get(i))
        left = tuple(ids[h] for h in _kept(masks.heads.get(i), len(ids))) if ids and keep else ()
        heads.append(left if keep and (left or masks.exact or not ids) else None)
        keep = width is not None and _is_open(masks.feed_forward.get(i))
        units = len(_kept(masks.ffn.get(i), width)) if width and keep else 0
        ffn.append(units if keep and (units or masks.exact or not width) else None)
    return replace(config, conv_channels=tuple(channels), heads=tuple(heads), ffn=tuple(ffn))


def _kept(mask: Tensor | None, size: int) -> list[int]:
    """Indices of the open units among ``size``."""
    return list(range(size)) if mask is None else mask.nonzero().squeeze(-1).tolist()


def _is_open(gate: Tensor | None) -> bool:
    """Whether a whole sublayer stays, given its gate (1,)."""
    return gate is None or bool(gate > 0)


def _cut_conv(state: dict[str, Tensor], masks: Masks, last: int) -> None:
    for i, mask in sorted(masks.conv.items()):
        kept = mask.nonzero().squeeze(-1)
        prefix = f"feature_extractor.conv_layers.{i}."
        for name in ("conv.weight", "conv.bias", "layer_norm.weight", "layer_norm.bias"):
            if prefix + name in state:
                state[prefix + name] = state[prefix + name][kept]
        if i < last:
            after = f"feature_extractor.conv_layers.{i + 1}.conv.weight"
            state[after] = (state[after] * mask[:, None])[:, kept]
        else:
            state["feature_extractor.dummy_weight"] = (state["feature_extractor.dummy_weight"] * mask)[kept]
            for name in ("layer_norm.weight", "layer_norm.bias", "projection.weight"):
                key = f"encoder.feature_projection.{name}"
                state[key] = state[key][..., kept]


def _cut_attention(
    state: dict[str, Tensor], config: ModelConfig, masks: Masks, layer: int, prefix: str
) -> None:
    _scale(state, f"{prefix}out_proj", masks.attention.get(layer))
    if (mask := masks.heads.get(layer)) is None:
        return
    rows = mask.repeat_interleave(config.head_dim)
    index = rows.nonzero().squeeze(-1)
    for name in ("q_proj", "k_proj", "v_proj"):
        for part in ("weight", "bias"):
            state[f"{prefix}{name}.{part}"] = state[f"{prefix}{name}.{part}"][index]
    state[f"{prefix}out_proj.weight"] = (state[f"{prefix}out_proj.weight"] * rows)[:, index]


def _cut_feed_forward(state: dict[str, Tensor], masks: Masks, layer: int, prefix: str) -> None:
    _scale(state, f"{prefix}output_dense", masks.feed_forward.get(layer))
    if (mask := masks.ffn.get(layer)) is None:
        return
    index = mask.nonzero().squeeze(-1)
    for part in ("weight", "bias"):
        state[f"{prefix}intermediate_dense.{part}"] = state[f"{prefix}intermediate_dense.{part}"][index]
    state[f"{prefix}output_dense.weight"] = (state[f"{prefix}output_dense.weight"] * mask)[:, index]


def _scale(state: dict[str, Tensor], output: str, gate: Tensor | None) -> None:
    """Fold a whole sublayer's gate (1,) into its output map."""
    if gate is not None:
        for part in ("weight", "bias"):
            state[f"{output}.{part}"] = state[f"{output}.{part}"] * gate


def _drop(state: dict[str, Tensor], prefix: str) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
