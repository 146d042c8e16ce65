"""Students that are no copies: their shapes, what they take from the teacher, what is refused."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.distillation.student_init import StudentConfig, init_student
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.model.cost import parameters
from tests.helpers.models import outputs, tiny

PUBLISHED = {
    "DistilHuBERT": (StudentConfig(layers=2), 23.49),
    "12-Layer Half": (StudentConfig(embed_dim=384, heads=12, ffn=1536), 26.87),
    "3-Layer One": (StudentConfig(layers=(1, 2, 3)), 30.58),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_students_have_their_published_size(name):
    assert len(PUBLISHED) == 3
    student, millions = PUBLISHED[name]
    assert round(parameters(student.shape(ModelConfig())) / 1e6, 2) == millions


@pytest.mark.parametrize("shape", ["hubert", "large", "wavlm", "data2vec"])
def test_all_layers_are_the_teacher_itself(shape):
    teacher = tiny(shape)
    student = init_student(teacher, StudentConfig(layers=3))
    assert student.config == teacher.config
    for a, b in zip(outputs(teacher), outputs(student), strict=True):
        assert torch.equal(a, b)
    next(student.parameters()).data.zero_()
    assert not any(torch.equal(p, torch.zeros_like(p)) for p in [next(teacher.parameters())])


def test_layers_are_taken_by_number():
    teacher = tiny("wavlm")
    student = init_student(teacher, StudentConfig(layers=(1, 3))).state_dict()
    source = teacher.state_dict()
    layer = "encoder.transformer.layers."
    names = [name for name in student if name.startswith(layer)]
    assert len(names) == 38
    for name in names:
        at, rest = name.removeprefix(layer).split(".", 1)
        assert torch.equal(student[name], source[f"{layer}{(0, 2)[int(at)]}.{rest}"])
    assert torch.equal(
        student["encoder.transformer.relative_positions.rel_attn_embed.weight"],
        source["encoder.transformer.relative_positions.rel_attn_embed.weight"],
    )


def test_a_narrower_student_takes_the_front_end_and_draws_the_rest():
    teacher = tiny("hubert")
    wanted = StudentConfig(embed_dim=16, heads=2, ffn=24)
    student, again, other = (init_student(teacher, wanted, seed).state_dict() for seed in (0, 0, 1))
    source = teacher.state_dict()
    taken = {name for name in student if torch.equal(student[name], other[name])}
    front = {
        name for name in source if name.startswith(("feature_extractor.", "encoder.feature_projection.l"))
    }
    assert len(front) == 12
    assert all(torch.equal(student[name], source[name]) for name in front)
    assert all(torch.equal(student[name], again[name]) for name in student)
    constant = {n for n in taken - front if set(student[n].unique().tolist()) <= {0.0, 1.0}}
    assert taken == front | constant  # biases and norms start as everywhere
    # of a module with one tensor of another shape nothing is taken: a bias without its weights means nothing
    bias = "encoder.transformer.layers.0.feed_forward.intermediate_dense.bias"
    assert student[bias].shape == source[bias].shape
    assert not torch.equal(student[bias], source[bias])
    gain = "encoder.transformer.pos_conv_embed.conv.weight_g"
    assert student[gain].shape == source[gain].shape
    assert not torch.equal(student[gain], source[gain])


def test_drawing_a_student_moves_no_other_random_numbers():
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    init_student(tiny_without_seed(), StudentConfig(ffn=8), seed=9)
    assert torch.equal(torch.randn(3), wanted)


def tiny_without_seed():
    with torch.random.fork_rng(devices=[]):
        return tiny("hubert")


def test_every_fault_at_once():
    with pytest.raises(ConfigError) as caught:
        StudentConfig(layers=(0, 2), embed_dim=0, heads=True, ffn=1.5)
    for part in ("layers is (0, 2)", "embed_dim is 0", "heads is True", "ffn is 1.5, allowed: integers"):
        assert part in str(caught.value)
    for layers in ((), (2, 1), (1, 1), 0, "two", (1, "2")):
        with pytest.raises(ConfigError, match="layers is"):
            StudentConfig(layers=layers)
    with pytest.raises(ConfigError, match="no field is given"):
        StudentConfig()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (StudentConfig(layers=4), "layers is 4, allowed: up to the teacher's 3"),
        (StudentConfig(layers=(1, 7)), "up to the teacher's 3"),
        (StudentConfig(embed_dim=30), "embed_dim is 30, allowed: a multiple of the 4 heads"),
        (StudentConfig(embed_dim=18, heads=2), "pos_conv_groups is 4, must divide embed_dim 18"),
    ],
)
def test_what_the_teacher_cannot_have(wanted, message):
    with pytest.raises(ConfigError, match=message):
        init_student(tiny("hubert"), wanted)
