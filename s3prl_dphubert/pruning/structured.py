"""Structured pruning: remove closed units from a gated model, which itself stays unchanged."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.cost import Number
from ..model.masks import Masks
from ..model.state_dict import without_empty
from .allocation import fit_masks
from .budget import Budget
from .gated_model import GatedModel


def prune(
    gated: GatedModel, budget: Budget | None = None, full_costs: dict[str, Number] | None = None
) -> SpeechModel:
    """Return a pruned model, which is ready to use, and to be gated and pruned again.

    Args:
        gated: model and gates; neither is changed.
        budget: adjust all masks together so that no count of the result exceeds the budget, and the binding
            one comes as close as the units allow. ``None`` rounds each group of gates by itself, as the
            published implementation does.
        full_costs: count -> cost that the budget's shares refer to; by default that of the gated model.

    Raises:
        ConfigError: the model has no gates.
        RunError: no choice of the gated units keeps the budget.
    """
    if not isinstance(gated, GatedModel):
        raise ConfigError(
            f"prune: model is {type(gated).__name__}, expected a GatedModel, whose trained gates say which "
            "units to remove; GatedModel(model) adds gates, and compress trains them and prunes"
        )
    return cut(gated.model, final_masks(gated, budget, full_costs))


def final_masks(
    gated: GatedModel, budget: Budget | None = None, full_costs: dict[str, Number] | None = None
) -> Masks:
    """Return the masks that :func:`prune` cuts by; under them the gated model equals the pruned one."""
    masks = gated.gates.masks()
    if budget is None:
        return masks
    config = gated.model.config
    full = budget.costs(config) if full_costs is None else full_costs
    return fit_masks(config, gated.gates, masks, budget, budget.limits(full))


def cut(model: SpeechModel, masks: Masks) -> SpeechModel:
    """Remove the units whose mask is 0, and fold the soft values of the others into the next weights."""
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
    small.load_state_dict(without_empty(state))
    return small.to(next(model.parameters()).device).train(model.training)


def cut_config(config: ModelConfig, masks: Masks) -> ModelConfig:
    """Return the shape that :func:`cut` produces."""
    channels = [len(_open_units(masks.conv.get(i), n)) for i, n in enumerate(config.conv_channels)]
    heads: list[tuple[int, ...] | None] = []
    ffn: list[int | None] = []
    for i, (ids, width) in enumerate(zip(config.heads, config.ffn, strict=True)):
        stays = ids is not None and _is_open(masks.attention.get(i))
        open_ids = tuple(ids[h] for h in _open_units(masks.heads.get(i), len(ids))) if ids and stays else ()
        heads.append(open_ids if stays and (open_ids or masks.exact or not ids) else None)
        stays = width is not None and _is_open(masks.feed_forward.get(i))
        units = len(_open_units(masks.ffn.get(i), width)) if width and stays else 0
        ffn.append(units if stays and (units or masks.exact or not width) else None)
    return replace(config, conv_channels=tuple(channels), heads=tuple(heads), ffn=tuple(ffn))


def _open_units(mask: Tensor | None, size: int) -> list[int]:
    """Return the indices of the open ones among ``size`` units."""
    return list(range(size)) if mask is None else mask.nonzero().squeeze(-1).tolist()


def _is_open(gate: Tensor | None) -> bool:
    """Return whether a whole sublayer stays, given its gate (1,)."""
    return gate is None or bool(gate > 0)


def _cut_conv(state: dict[str, Tensor], masks: Masks, last: int) -> None:
    for i, mask in sorted(masks.conv.items()):
        index = mask.nonzero().squeeze(-1)
        prefix = f"feature_extractor.conv_layers.{i}."
        for name in ("conv.weight", "conv.bias", "layer_norm.weight", "layer_norm.bias"):
            if prefix + name in state:
                state[prefix + name] = state[prefix + name][index]
        if i < last:
            after = f"feature_extractor.conv_layers.{i + 1}.conv.weight"
            state[after] = (state[after] * mask[:, None])[:, index]
        else:
            state["feature_extractor.dummy_weight"] = (state["feature_extractor.dummy_weight"] * mask)[index]
            for name in ("layer_norm.weight", "layer_norm.bias", "projection.weight"):
                key = f"encoder.feature_projection.{name}"
                if key in state:
                    state[key] = state[key][..., index]


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
    """Fold the gate (1,) of a whole sublayer into its output map."""
    if gate is not None:
        for name in (f"{output}.weight", f"{output}.bias"):
            if name in state:
                state[name] = state[name] * gate


def _drop(state: dict[str, Tensor], prefix: str) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
