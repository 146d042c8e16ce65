"""The making of hubert_mini, from a small build to a checkpoint."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from s3prl_dphubert import load_model
from s3prl_dphubert.data.manifest import Manifest
from s3prl_dphubert.free_superb import build
from s3prl_dphubert.free_superb.clips import read_clips
from s3prl_dphubert.free_superb.utterance import load
from s3prl_dphubert.free_superb.voices import DEV, TRAIN
from s3prl_dphubert.hubert_mini import masked_prediction, phone_model, pretrain, ship, targets
from s3prl_dphubert.hubert_mini.masked_prediction import CONFIG, MaskedPrediction, draw_masks
from s3prl_dphubert.hubert_mini.stream import STRIDE, Stream, samples_of
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.cost import parameters
from tests.helpers import debian_packages

SMALL = replace(CONFIG, heads=(tuple(range(12)),) * 4, ffn=(64,) * 4)
CLASSES = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a small build and a run on it: phone model of one epoch, targets, and six updates."""
    folder = tmp_path_factory.mktemp("mini")
    debian_packages.build(folder / "packages")
    with pytest.MonkeyPatch.context() as patch:
        debian_packages.shrink(patch.setattr)
        patch.setattr(targets, "SAMPLED", 400)
        patch.setattr(pretrain, "CONFIG", SMALL)
        tables = folder / "packages" / "tables"
        build.build(folder / "build", ("asr",), folder / "packages" / "debs", unlabelled=True, tables=tables)
        arguments = [str(folder / "build"), str(folder / "run")]
        phone_model.main([*arguments, "--tables", str(tables), "--epochs", "1", "--batch", "4"])
        targets.main([*arguments, "--classes", str(CLASSES)])
        pretrain.main([*arguments, *updates(6)])
        yield folder


def updates(count: int) -> list[str]:
    return [
        *("--updates", str(count), "--decay-from", "4"),
        *("--batch", "2", "--seconds", "1", "--save-every", "3"),
    ]


def test_the_shape_has_the_shares_of_hubert_base():
    base = shares(ModelConfig())
    assert parameters(CONFIG) == 5_922_816
    for part, share in shares(CONFIG).items():
        assert share == pytest.approx(base[part], abs=0.01), part


def shares(config: ModelConfig) -> dict[str, float]:
    """Return part of the model -> its share of all parameters."""
    with torch.device("meta"):
        model = SpeechModel(config)
    parts = {
        "convolutions": model.feature_extractor,
        "positions": model.encoder.transformer.pos_conv_embed,
        "layers": model.encoder.transformer.layers,
    }
    return {
        name: sum(p.numel() for p in part.parameters()) / parameters(config) for name, part in parts.items()
    }


def test_only_training_voices_have_labels(made):
    corpus = made / "build" / "corpus"
    utterances = load(read_clips(corpus / "clips.tsv"), corpus, made / "packages" / "tables").utterances
    assert {each.split for each in utterances} > {TRAIN, DEV}
    (row,) = map(json.loads, (made / "run" / "phone_model.jsonl").read_text().splitlines())
    frames = [
        len(phone_model.example(each).phones)
        for each in utterances
        if each.split == TRAIN and each.phones and each.clip.seconds >= phone_model.SHORTEST
    ]
    assert row["minutes"] == pytest.approx(sum(frames) / 3000)


def test_phones_are_those_at_the_centres_of_hubert_frames(made):
    corpus = made / "build" / "corpus"
    utterances = load(read_clips(corpus / "clips.tsv"), corpus, made / "packages" / "tables").utterances
    utterance = max((each for each in utterances if each.phones), key=lambda each: len(each.phones))
    example = phone_model.example(utterance)
    assert len(example.phones) == CONFIG.frames(utterance.clip.samples)
    assert phone_model.PhoneModel()(example.bands[None]).shape == (1, len(example.phones), 40)
    for phone in utterance.phones:
        middle = round(((phone.start + phone.end) / 2 - 0.0125) / 0.02)
        if phone.end - phone.start > 0.04 and middle < len(example.phones):
            assert phone_model.PHONES[example.phones[middle]] == phone.text


def test_a_target_for_each_frame_of_the_listed_speech(made):
    labels = np.load(made / "run" / "targets.npy")
    stream = targets.open_stream(made / "build", made / "run")
    entries = Manifest.load(made / "build" / "unlabelled" / "train.tsv").entries
    assert np.diff(stream.starts).tolist() == [
        each.samples // STRIDE for each in sorted(entries, key=lambda e: e.path)
    ]
    assert len(labels) == stream.starts[-1] and 1 < len(set(labels.tolist())) <= CLASSES
    phones = np.load(made / "run" / "phones.npy").astype(np.float32)
    assert phones.shape == (len(labels), len(phone_model.PHONES))
    np.testing.assert_allclose(phones.sum(1), 1, atol=1e-2)


def test_windows_hold_the_samples_of_their_frames():
    samples = np.random.default_rng(0).integers(-3000, 3000, 320 * 100).astype(np.int16)
    stream = Stream(samples, np.array([0, 40, 100]), np.array([0.0, 1.0]))
    window = stream.window(10, 30)
    assert len(window) == samples_of(30) and CONFIG.frames(len(window)) == 30
    assert torch.equal(window * 32768, torch.from_numpy(samples[3200 : 3200 + len(window)]).float())
    starts = stream.draw(2000, 10, np.random.default_rng(1))
    assert starts.min() >= 30 and starts.max() == 89  # around the clip with a weight, inside the stream


def test_masks_are_spans_over_half_of_the_frames_in_half_of_the_windows():
    masks = draw_masks(200, 174, np.random.default_rng(0))
    assert masks.any(1).sum() == 100
    masks = masks[masks.any(1)]
    assert 0.52 < masks.float().mean() < 0.62  # 1 - exp(-0.8) without overlap at the ends
    runs = [len(run) for row in masks for run in "".join("01"[int(m)] for m in row).split("0") if run]
    assert min(runs) >= masked_prediction.MASK_LENGTH


def test_masked_frames_hide_the_speech():
    torch.manual_seed(0)
    model = MaskedPrediction(SMALL, CLASSES, 40, 64).eval()
    everything = torch.ones(1, 20, dtype=torch.bool)
    a, b = (model(torch.randn(1, samples_of(20)), everything) for _ in range(2))
    assert a[0].shape == (1, 20, CLASSES) and a[1].shape == (1, 20, 40) and a[2].shape == (1, 20, 64)
    torch.testing.assert_close(a, b)
    assert not torch.allclose(a[0], model(torch.randn(1, samples_of(20)), ~everything)[0], atol=1e-2)


def test_loss_is_that_of_masked_frames_others_phones_and_energies():
    masked = torch.tensor([[True, False, False]])
    logits, phones, bands = torch.zeros(1, 3, 4), torch.zeros(1, 3, 2), torch.zeros(1, 3, 5)
    logits[0, 0, 1], phones[0, 1, 1], bands[0, 0] = 5.0, 3.0, 100.0
    targets, guide = torch.tensor([[1, 0, 2]]), torch.tensor([[[1.0, 0.0], [0.2, 0.8], [0.5, 0.5]]])
    batch = pretrain.Windows(
        torch.zeros(1, samples_of(3)), targets, guide, torch.full((1, 3, 5), 0.5), masked
    )
    loss, rates = pretrain.loss_of(logits, phones, bands, batch)
    guided = (np.log1p(np.exp(3)) - 0.8 * 3 + np.log(2)) / 2
    expected = np.log1p(3 * np.exp(-5)) + np.log(4) + guided + pretrain.ACOUSTIC * 0.25
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert rates == {"masked": 100.0, "unmasked": 50.0, "phones": 100.0, "bands": 0.25}


def test_targets_of_a_window_are_those_of_its_frames(made):
    stream = targets.open_stream(made / "build", made / "run")
    clusters, phones = (np.load(made / "run" / f"{name}.npy") for name in ("targets", "phones"))
    starts = stream.draw(4, 30, np.random.default_rng(5))
    batch = pretrain.Windows.draw(stream, clusters, phones, 4, np.random.default_rng(5), 30)
    for row, start in enumerate(starts):
        np.testing.assert_array_equal(batch.targets[row], clusters[start : start + 30])
        np.testing.assert_array_equal(batch.phones[row], phones[start : start + 30])
        assert torch.equal(batch.waveforms[row], stream.window(start, 30))
        energies = phone_model.energies(stream.window(start + 7, 1)).clamp(min=0)[0]
        standard = (energies - pretrain.MEAN) / pretrain.SPREAD
        torch.testing.assert_close(batch.bands[row, 7], standard, atol=1e-4, rtol=0)


def test_a_run_goes_on_from_the_weights_of_another(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CONFIG", SMALL)
    for name in ("stream.npz", "targets.npy", "phones.npy"):
        (tmp_path / name).symlink_to(made / "run" / name)
    init = made / "run" / "state.pt"
    pretrain.main([str(made / "build"), str(tmp_path), *updates(1), "--init", str(init)])
    before = torch.load(init, weights_only=True)["model"]
    after = torch.load(tmp_path / "state.pt", weights_only=True)
    assert after["update"] == 1
    for name, value in after["model"].items():
        torch.testing.assert_close(value, before[name], atol=5e-6, rtol=0)  # one update of the warm-up


def test_an_interrupted_run_ends_with_the_same_weights(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CONFIG", SMALL)
    for name in ("stream.npz", "targets.npy", "phones.npy"):
        (tmp_path / name).symlink_to(made / "run" / name)
    run = [str(made / "build"), str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_save", stop_after(3, pretrain._save))
        with pytest.raises(KeyboardInterrupt):
            pretrain.main([*run, *updates(6)])
    pretrain.main([*run, *updates(6)])
    expected = load_file(made / "run" / "model.safetensors")
    weights = load_file(tmp_path / "model.safetensors")
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    assert torch.load(tmp_path / "constant.pt", weights_only=True)["update"] == 4


def stop_after(update, save):
    def save_and_stop(path, model, optimizer, number):
        save(path, model, optimizer, number)
        if number == update:
            raise KeyboardInterrupt

    return save_and_stop


def test_learning_rate_rises_stays_and_ends_at_zero():
    plan = Namespace(lr=1e-3, updates=2000, decay_from=1400)
    rates = [pretrain.learning_rate(update, plan) for update in range(2000)]
    assert max(rates) == rates[399] == rates[1400] == 1e-3
    assert rates[0] == pytest.approx(1e-3 / 400) and 0 < rates[-1] < 5e-6
    longer = Namespace(lr=1e-3, updates=9000, decay_from=8000)
    assert rates[:1400] == [pretrain.learning_rate(update, longer) for update in range(1400)]


def test_shipped_checkpoint_and_card(made, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "CONFIG", SMALL)
    monkeypatch.setattr(ship, "probe_table", lambda records: "no probe")
    target = tmp_path / "model"
    monkeypatch.setattr(ship.ProbeRecord, "read", lambda path: path)
    ship.main([str(made / "build"), str(made / "run"), str(target), "--probes", "record"])
    hidden, _ = load_model(target).extract_features(torch.randn(1, samples_of(5)))
    assert len(hidden) == 5 and hidden[-1].shape == (1, 5, 192)
    card = (target / "README.md").read_text()
    assert f"clustered into\n   {int(np.load(made / 'run' / 'targets.npy').max()) + 1} targets" in card
    assert Path(target / "LICENSE").read_text() == ship.LICENCE
