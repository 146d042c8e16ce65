import numpy as np
import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.errors import CheckpointError, ConfigError
from s3prl_dphubert.probe.layer_sources import default_name, open_source
from tests.helpers.models import tiny
from tests.helpers.speech import chirp


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "first" / "model"
    folder.parent.mkdir()
    save_model(tiny("hubert"), folder)
    return str(folder)


WAVE = torch.from_numpy(chirp(1.0))


@torch.no_grad()
def test_a_checkpoint_gives_its_hidden_states(checkpoint):
    source = open_source(checkpoint)
    model = tiny("hubert").eval()
    expected, _ = model.extract_features(WAVE[None])
    states = source.states(WAVE)
    assert (source.name, source.stride, source.centre) == ("first", 320, 200)
    assert source.facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert len(states) == len(expected) == 4
    for ours, theirs in zip(states, expected, strict=True):
        assert torch.allclose(ours, theirs[0], atol=1e-4)


@torch.no_grad()
def test_random_weights_have_the_shape_only_and_are_the_same_each_time(checkpoint):
    before = torch.random.get_rng_state()
    trained, first, second = (open_source(f"{prefix}{checkpoint}") for prefix in ("", "random:", "random:"))
    assert first.name == "random first"
    assert first.facts == second.facts != trained.facts
    assert first.facts["parameters"] == trained.facts["parameters"]
    assert torch.equal(first.states(WAVE)[-1], second.states(WAVE)[-1])
    assert not torch.allclose(first.states(WAVE)[-1], trained.states(WAVE)[-1], atol=0.1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("name", "width"), [("log-mel", 80), ("mfcc", 39)])
def test_floors_are_spectra_at_the_frames_of_the_models(name, width):
    pytest.importorskip("torchaudio")
    source = open_source(name)
    (features,) = source.states(WAVE)
    assert features.shape == ((len(WAVE) - 400) // 320 + 1, width)
    assert (source.stride, source.centre) == (320, 200)


def test_the_log_mel_floor_keeps_the_mean():
    pytest.importorskip("torchaudio")
    source = open_source("log-mel")
    quiet, loud = (source.states(WAVE * gain)[0] for gain in (0.1, 1.0))
    shift = (loud - quiet)[quiet > quiet.mean()]
    assert shift.numpy() == pytest.approx(2 * np.log(10), abs=0.05)


def test_mfcc_have_the_slopes_behind_them():
    pytest.importorskip("torchaudio")
    (features,) = open_source("mfcc").states(WAVE)
    cepstra, slopes = features[:, :13], features[:, 13:26]
    weights = torch.tensor([-2.0, -1, 0, 1, 2]) / 10
    expected = (cepstra[10:15] * weights[:, None]).sum(0)
    assert slopes[12].numpy() == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.s3prl
def test_upstreams_of_s3prl_are_taken_by_name():
    pytest.importorskip("s3prl")
    source = open_source("s3prl:fbank")
    states = source.states(WAVE)
    assert source.stride == 160 and len(states) == 1 and abs(len(states[0]) - 100) < 5
    with pytest.raises(ConfigError, match="has no upstream 'nothing'"):
        open_source("s3prl:nothing")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hubert_mini", "hubert_mini"),
        ("runs/first/model", "first"),
        ("/a/b/", "b"),
        ("random:runs/first/model", "random first"),
        ("s3prl:hubert_base", "hubert_base"),
        ("user/repo", "repo"),
    ],
)
def test_names_are_those_of_folders(text, name):
    assert default_name(text) == name


def test_a_missing_checkpoint_is_named():
    with pytest.raises(CheckpointError, match="nowhere/model: no such file"):
        open_source("nowhere/model")
