"""Model card of a run's result."""

from __future__ import annotations

from ..checkpoints.directory import Card
from ..checkpoints.model_card import model_card
from ..model import ModelConfig, SpeechModel
from .compress_config import CompressConfig


def render_card(
    config: CompressConfig, model: SpeechModel, state: str, teacher: ModelConfig | None = None
) -> Card:
    """Return the model card of a run's result.

    Args:
        config: the run.
        model: model that the card describes.
        state: ``student`` (before stage 1), ``pruned`` (before stage 2) or ``compressed``.
        teacher: shape of the teacher, for the picture of the units.
    """
    titles = {"student": "student before training", "pruned": f"pruned to {config.budget}"}
    titles["compressed"] = "distilled" if config.stage1 is None else f"compressed to {config.budget}"
    stages = [("stage 1", config.stage1), ("stage 2", config.stage2)]
    steps = ", ".join(f"{name}: {stage.updates} updates" for name, stage in stages if stage is not None)
    rows = {"teacher": config.teacher}
    if config.student is not None:
        rows["student"] = str(config.student)
    if config.stage1 is not None:
        rows["budget"] = str(config.budget)
    rows["training"] = f"{steps}, seed {config.seed}"
    title = f"{config.teacher}, {titles[state]}"
    return model_card(title, model.config, config.card.of(config.teacher), rows, teacher)
