"""Cut the closed units out of a student. Pure: the student stays as it was."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .cost import Constraint, masked_widths
from .errors import RunError
from .gates import Gates, HardConcrete
from .model import ModelConfig, SpeechModel
from .model.masks import Masks
from .student import Student

UNIT_KINDS = ("conv", "heads", "ffn")


def prune(student: Student, budget: Constraint | None = None, full_cost: float | None = None) -> SpeechModel:
    """Return the pruned model, which runs at once and can be gated and pruned again.

    Args:
        student: model and gates; not changed.
        budget: adjust all masks together so that the result never costs more than the budget
            and lies as closely below it as the units allow. ``None`` rounds each gate group
            alone, as the published implementation does.
        full_cost: what the budget's sparsity refers to; the student's own cost by default.

    Raises:
        RunError: even with one unit a group the model costs more than the budget.
    """
    return cut(student.model, final_masks(student, budget, full_cost))


def final_masks(student: Student, budget: Constraint | None = None, full_cost: float | None = None) -> Masks:
    """The masks that :func:`prune` cuts by; the masked student equals the pruned model."""
    masks = student.gates.masks()
    if budget is None:
        return masks
    config = student.model.config
    if budget.count == "published":  # that formula is for training; the result's real size counts
        budget = replace(budget, count="parameters")
    full = float(budget.cost(config)) if full_cost is None else full_cost
    return fit(config, student.gates, masks, budget, (1 - budget.sparsity) * full)


def fit(config: ModelConfig, gates: Gates, masks: Masks, budget: Constraint, limit: float) -> Masks:
    """Resize all gate groups by one factor, so that the cost comes as close below ``limit`` as it can.

    Every group keeps its likeliest units, in number the factor times what its gates expect,
    rounded as the budget asks; then single steps are reopened where rounding took most, while there is room.
    """
    groups = {(kind, layer): gate for kind, layer, gate in gates.items() if kind in UNIT_KINDS}
    expected = {key: gate.open_probability().sum().item() for key, gate in groups.items()}
    widths = masked_widths(config, masks)

    steps = {key: 1 if key[0] == "heads" else budget.round_to for key in groups}

    def counts(factor: float) -> dict[tuple[str, int], int]:
        least = {key: steps[key] * int(key[0] == "conv") for key in groups}
        wanted = {key: steps[key] * int(factor * expected[key] / steps[key] + 0.5) for key in groups}
        return {key: min(len(groups[key].log_alpha), max(least[key], wanted[key])) for key in groups}

    def cost(kept: dict[tuple[str, int], int]) -> float:
        sized = replace(widths, **{kind: list(getattr(widths, kind)) for kind in (*UNIT_KINDS, "any_head")})
        for (kind, layer), count in kept.items():
            getattr(sized, kind)[layer] = count
            if kind == "heads":
                sized.any_head[layer] = int(count > 0)
        return float(budget.cost(config, sized))

    if (smallest := cost(counts(0))) > limit:
        raise RunError(f"budget: the smallest model costs {smallest:,.0f}, allowed: at most {limit:,.0f}")
    low, high = 0.0, max(len(gate.log_alpha) / max(expected[key], 1e-9) for key, gate in groups.items()) + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(counts(middle)) <= limit else (low, middle)
    kept = counts(low)
    room = True
    while room:
        room = False
        for key in sorted(groups, key=lambda key: kept[key] - low * expected[key]):
            more = kept | {key: min(len(groups[key].log_alpha), kept[key] + steps[key])}
            if more[key] > kept[key] and cost(more) <= limit:
                kept, room = more, True
                break
    rows = {kind: dict(getattr(masks, kind)) for kind in (*UNIT_KINDS, "attention", "feed_forward")}
    for (kind, layer), gate in groups.items():
        rows[kind][layer] = _likeliest(gate, kept[kind, layer])
    return Masks(**rows, exact=masks.exact)


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
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    channels = _cut_conv(state, config, masks)
    heads: list[tuple[int, ...] | None] = list(config.heads)
    ffn: list[int | None] = list(config.ffn)
    for i in range(config.num_layers):
        prefix = f"encoder.transformer.layers.{i}."
        heads[i] = _cut_attention(state, config, masks, i, f"{prefix}attention.")
        ffn[i] = _cut_feed_forward(state, config, masks, i, f"{prefix}feed_forward.")
    if not any(heads):
        _drop(state, "encoder.transformer.relative_positions.")
    pruned = SpeechModel(replace(config, conv_channels=tuple(channels), heads=tuple(heads), ffn=tuple(ffn)))
    pruned.load_state_dict(state)
    return pruned.to(next(model.parameters()).device).train(model.training)


def _cut_conv(state: dict[str, Tensor], config: ModelConfig, masks: Masks) -> list[int]:
    channels = list(config.conv_channels)
    last = len(channels) - 1
    for i, mask in sorted(masks.conv.items()):
        kept = mask.nonzero().squeeze(-1)
        channels[i] = len(kept)
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
    return channels


def _cut_attention(
    state: dict[str, Tensor], config: ModelConfig, masks: Masks, layer: int, prefix: str
) -> tuple[int, ...] | None:
    heads = config.heads[layer]
    if heads is None or _scale_or_drop(state, prefix, "out_proj", masks.attention.get(layer)):
        return None
    mask = masks.heads.get(layer)
    if mask is None:
        return heads
    kept = mask.nonzero().squeeze(-1)
    if not len(kept) and not masks.exact:
        _drop(state, prefix)
        return None
    rows = mask.repeat_interleave(config.head_dim)
    index = rows.nonzero().squeeze(-1)
    for name in ("q_proj", "k_proj", "v_proj"):
        for part in ("weight", "bias"):
            state[f"{prefix}{name}.{part}"] = state[f"{prefix}{name}.{part}"][index]
    state[f"{prefix}out_proj.weight"] = (state[f"{prefix}out_proj.weight"] * rows)[:, index]
    if not len(kept):
        _drop(state, f"{prefix}gru_rel_pos_")
    return tuple(heads[i] for i in kept.tolist())


def _cut_feed_forward(
    state: dict[str, Tensor], config: ModelConfig, masks: Masks, layer: int, prefix: str
) -> int | None:
    width = config.ffn[layer]
    if width is None or _scale_or_drop(state, prefix, "output_dense", masks.feed_forward.get(layer)):
        return None
    mask = masks.ffn.get(layer)
    if mask is None:
        return width
    index = mask.nonzero().squeeze(-1)
    if not len(index) and not masks.exact:
        _drop(state, prefix)
        return None
    for part in ("weight", "bias"):
        state[f"{prefix}intermediate_dense.{part}"] = state[f"{prefix}intermediate_dense.{part}"][index]
    state[f"{prefix}output_dense.weight"] = (state[f"{prefix}output_dense.weight"] * mask)[:, index]
    return len(index)


def _scale_or_drop(state: dict[str, Tensor], prefix: str, output: str, gate: Tensor | None) -> bool:
    """Fold a whole sublayer's gate into its output map; drop the sublayer if it is closed."""
    if gate is None:
        return False
    if not bool(gate > 0):
        _drop(state, prefix)
        return True
    for part in ("weight", "bias"):
        state[f"{prefix}{output}.{part}"] = state[f"{prefix}{output}.{part}"] * gate
    return False


def _drop(state: dict[str, Tensor], prefix: str) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
