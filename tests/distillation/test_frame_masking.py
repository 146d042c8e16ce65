"""Masked students: spans, embedding, and what the loss sees."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.distillation.frame_masking import FrameMasking, MaskingConfig
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig, distances
from s3prl_dphubert.distillation.student_init import DROPOUTS, StudentConfig, init_student
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model.sparse.sparse_forward import sparse_features
from tests.helpers.models import tiny


def spans(mask):
    """Lengths of the runs of masked frames in rows (B, F)."""
    for row in mask.tolist():
        text = "".join("x" if masked else " " for masked in row)
        yield from (len(run) for run in text.split())


def test_spans_have_their_length_and_cover_the_expected_share():
    masking = FrameMasking(MaskingConfig(), 4)
    mask = masking.draw(200, 300, torch.Generator().manual_seed(0))
    assert min(spans(mask)) >= 10
    # 24 of 291 starts without replacement: a frame is free if none of the 10 starts that cover it was drawn
    assert float(mask.float().mean()) == pytest.approx(1 - (1 - 24 / 291) ** 10, abs=0.03)
    again = masking.draw(200, 300, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)
    assert not torch.equal(mask, masking.draw(200, 300, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("frames", [1, 2, 7, 19])
def test_short_utterances_keep_frames(frames):
    mask = FrameMasking(MaskingConfig(probability=0.5), 4).draw(3, frames, torch.Generator().manual_seed(0))
    assert mask.shape == (3, frames)
    assert bool(mask.any(1).all())
    assert frames == 1 or not bool(mask.all(1).any())


@pytest.mark.parametrize("shape", ["hubert", "large", "wavlm"])
def test_masked_frames_are_not_seen(shape):
    """Both forward passes put the embedding in their place, and give the projection's output unmasked."""
    model = init_student(tiny(shape), StudentConfig(layers=3, **dict.fromkeys(DROPOUTS, 0.0)))
    masking = FrameMasking(MaskingConfig(), 32)
    x = torch.randn(2, 6400, generator=torch.Generator().manual_seed(0))
    mask = masking.draw(2, model.config.frames(6400), torch.Generator().manual_seed(0))
    seen = []

    def corrupt(projected):
        seen.append(masking(projected, mask))
        return seen[-1]

    with torch.no_grad():
        plain = model.extract_features(x)[0]
        dense = model.extract_features(x, corrupt=corrupt)[0]
        sparse = sparse_features(model, x, corrupt=corrupt)
    for states in (dense, sparse):
        torch.testing.assert_close(states[0], plain[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(states[1:], dense[1:], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(dense[1], plain[1], atol=0.1)
    for inner in seen:
        assert torch.equal(inner[mask], masking.embedding.expand_as(inner[mask]))
        torch.testing.assert_close(inner[~mask], plain[0][~mask], atol=1e-4, rtol=1e-4)


def test_the_loss_may_count_masked_frames_alone():
    student, teacher = torch.randn(2, 2, 9, 8).unbind(0)
    frames = torch.rand(2, 9) > 0.5
    config = ObjectiveConfig(l1=0.7, l2=0.3, cos=0.5, cos_type="log_sig")
    total, terms = distances(student, teacher, config, frames)
    expected, selected = distances(student[frames], teacher[frames], config)
    torch.testing.assert_close(total, expected)
    assert {n: float(v) for n, v in terms.items()} == pytest.approx(
        {n: float(v) for n, v in selected.items()}
    )
    hidden = [torch.randn(2, 9, 8) for _ in range(3)]
    changed = [torch.where(frames[..., None], state, state + 1) for state in hidden]
    for loss, is_blind in (("masked", True), ("all", False)):
        masked = MaskingConfig(loss=loss)
        objective = Objective(ObjectiveConfig(groups=((1,), (2,)), masking=masked), 8, 8, 2, 2)
        a, b = (objective(states, hidden, frames)[0] for states in (hidden, changed))
        assert (a.item() == b.item()) is is_blind
        assert objective(hidden, hidden)[0].item() == pytest.approx(-1, abs=1e-6)  # as in validation


def test_masking_names_every_fault():
    with pytest.raises(ConfigError) as caught:
        MaskingConfig(probability=1.5, length=0, loss="half")
    for part in ("probability is 1.5", "length is 0", "loss is 'half', allowed: all, masked"):
        assert part in str(caught.value)
