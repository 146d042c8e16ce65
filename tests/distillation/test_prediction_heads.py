"""DistilHuBERT's heads and loss against s3prl's distiller, on the same weights and the same audio."""

from __future__ import annotations

import json

import pytest
import torch

from s3prl_dphubert.distillation.task import Distillation
from s3prl_dphubert.training.train_config import TrainConfig
from tests.helpers.distiller import CONFIG, LAYERS, fill, name_in_s3prl, parts, waveforms
from tests.helpers.golden import GOLDEN

FACTS = json.loads((GOLDEN / "distiller" / "distiller.json").read_text())


@pytest.mark.s3prl
def test_predictions_are_those_of_s3prls_distiller():
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    _, student, objective = parts()
    model = DistillerModel(DistillerConfig(CONFIG))
    fill(model, student, objective)
    with torch.no_grad():
        theirs = model(waveforms(), torch.ones_like(waveforms()))[2]
        ours = torch.stack(list(objective.predictions(student.extract_features(waveforms())[0])), 1)
    assert ours.shape == (2, len(LAYERS), 19, 32)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert float(ours.min()) < -1  # where GELU could not go


@pytest.mark.parametrize("dense", [False, True])
def test_loss_and_gradients_are_those_of_s3prls_training(dense):
    """Computed by its ``DistillerForPretrain``, the smaller gradients of the conv layers included."""
    teacher, student, objective = parts()
    task = Distillation(teacher, student.eval(), objective, TrainConfig(feature_grad_mult=0.1))
    masks = task.sample_masks(torch.Generator())
    if dense:  # as on a GPU
        hidden, _ = student.extract_features(waveforms(), masks=masks)
    else:
        hidden, _ = task.student_states(waveforms(), masks, torch.Generator())
    loss, terms = objective(hidden, task.targets(waveforms()))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(FACTS["loss"], abs=1e-5)
    assert float(terms["l1"].detach()) == pytest.approx(FACTS["terms"]["rec_loss"], abs=1e-5)
    assert float(terms["cos"].detach()) == pytest.approx(FACTS["terms"]["sim_loss"], abs=1e-5)
    named = [*student.named_parameters(), *objective.named_parameters()]
    norms = {name_in_s3prl(name): float(p.grad.norm()) for name, p in named if p.grad is not None}
    assert norms == pytest.approx(FACTS["gradient_norms"], rel=1e-3, abs=1e-6)


@pytest.mark.s3prl
def test_s3prls_optimizer_decays_all_but_biases_by_a_hundredth():
    """Its groups override the ``weight_decay`` of the distiller's configuration, which is 1e-6."""
    from s3prl.optimizers import get_optimizer

    settings = {"name": "AdamW_with_schedule", "lr": 2e-4, "warmup_proportion": 0.07, "weight_decay": 1e-6}
    optimizer = get_optimizer(
        [torch.nn.Linear(2, 3)], 200_000, settings | {"betas": [0.9, 0.98], "eps": 1e-6}
    )
    decays = {
        tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert decays == {(3, 2): 0.01, (3,): 0.0}
    assert all(group["betas"] == [0.9, 0.98] for group in optimizer.param_groups)
