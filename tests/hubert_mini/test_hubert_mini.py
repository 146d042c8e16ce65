"""The teacher that ships, and the steps of its making that need no corpus."""

from __future__ import annotations

import json
import struct

import numpy as np
import torch
from safetensors.torch import save_file

from s3prl_dphubert import load_model
from s3prl_dphubert.free_superb.sources.recordings import SOURCES
from s3prl_dphubert.hubert_mini.pretrain import Windows, build_model, learning_rate, start_from
from s3prl_dphubert.hubert_mini.probe import frame_labels
from s3prl_dphubert.hubert_mini.ship import nano_config, nano_model
from s3prl_dphubert.hubert_mini.speech import HELD_OUT, queen_clips
from s3prl_dphubert.hubert_mini.targets import mfcc, samples_of
from s3prl_dphubert.utils import resources


def test_weights_ship_with_an_honest_card():
    folder = resources.find("assets/hubert_nano")
    model = load_model(folder)
    assert model.config == nano_config()
    card = (folder / "README.md").read_text()
    assert all(source.package in card and source.licence in card for source in SOURCES)
    probe = json.loads((folder / "probe.json").read_text())
    for name, accuracy in probe["trained"].items():
        assert f"| {name} | {accuracy} % |" in card
    assert max(probe["trained"].values()) > probe["trained"]["mfcc+deltas"]


@torch.no_grad()
def test_same_hidden_states_as_torchaudio(tmp_path):
    torch.manual_seed(0)
    model = build_model().eval()
    wav2vec2 = model.get_submodule("wav2vec2")
    save_file({k: v.contiguous() for k, v in wav2vec2.state_dict().items()}, tmp_path / "w.safetensors")
    ours = nano_model(tmp_path / "w.safetensors")
    waveforms, lengths = torch.randn(2, 8000), torch.tensor([8000, 5000])
    expected, frames = wav2vec2.extract_features(waveforms, lengths)
    hidden, ours_frames = ours.extract_features(waveforms, lengths)
    assert frames.tolist() == ours_frames.tolist()
    assert len(hidden) == len(expected) + 1 == 7
    for a, b in zip(hidden[1:], expected, strict=True):
        for row, wanted, length in zip(a, b, frames.tolist(), strict=True):
            torch.testing.assert_close(row[:length], wanted[:length], atol=1e-4, rtol=1e-4)


def test_the_game_archive_is_read_without_its_sound_effects():
    entries = {"07SSSSJ1.SB": b"speech", "10SSSS.SB": b"bang", "BOB.DOG": b"text"}
    header = b"\0" * 13 + struct.pack(">H", len(entries))
    offset, table, body = len(header) + 21 * len(entries), b"", b""
    for name, data in entries.items():
        table += struct.pack(">12sBII", name.encode(), 0, offset + len(body), len(data))
        body += data
    assert list(queen_clips(header + table + body)) == [("07SSSSJ1", b"speech")]


def test_held_out_voices():
    prefix = "flight-of-the-amazon-queen/"
    assert HELD_OUT.match(f"{prefix}200006P1.flac")
    assert not HELD_OUT.match(f"{prefix}200006J1.flac")
    assert not HELD_OUT.match(f"{prefix}C70D_101.flac")


def test_windows_carry_the_labels_of_their_frames():
    stream = np.random.default_rng(0).integers(-3000, 3000, 100_000).astype(np.int16)
    labels = np.arange(nano_config().frames(len(stream)), dtype=np.int16)
    windows = Windows(stream, labels, batch=2, frames=65, seed=0)
    waveforms, ids = windows.draw(1)
    assert torch.equal(waveforms, windows.draw(1)[0])
    assert not torch.equal(waveforms, windows.draw(2)[0])
    assert waveforms.shape == (2, samples_of(65))
    assert nano_config().frames(waveforms.shape[1]) == 65
    start = int(ids[1, 0])
    assert ids[1].tolist() == list(range(start, start + 65))
    assert torch.equal(
        waveforms[1] * 32768, torch.from_numpy(stream[start * 320 :][: samples_of(65)]).float()
    )


def test_mfcc_targets_have_one_row_a_frame_and_no_level():
    waveforms = torch.randn(2, 20_800) / 10
    features = mfcc(waveforms)
    assert features.shape == (2, nano_config().frames(waveforms.shape[1]), 39)
    assert features.std() > 1
    torch.testing.assert_close(mfcc(waveforms / 4), features, atol=1e-2, rtol=1e-3)


@torch.no_grad()
def test_the_next_iteration_starts_from_the_model_before():
    model = build_model(classes=7).eval()
    start_from(model, resources.find("assets/hubert_nano"))
    expected = load_model(resources.find("assets/hubert_nano")).extract_features(
        waveform := torch.randn(1, 8000)
    )[0]
    hidden, _ = model.get_submodule("wav2vec2").extract_features(waveform)
    torch.testing.assert_close(hidden[-1], expected[-1], atol=1e-4, rtol=1e-4)


def test_frame_labels():
    ids: dict[str, int] = {}
    labels = frame_labels("SIL:0:4 AA:4:4 B:8:2", 6, ids)
    assert ids == {"SIL": 0, "AA": 1, "B": 2}
    assert labels.tolist() == [0, 0, 1, 1, 2, -1]


def test_learning_rate_rises_stays_and_ends_at_zero():
    rates = [learning_rate(update, 1e-3, 1000, warmup=100) for update in range(1000)]
    assert max(rates) == rates[99] == rates[700] == 1e-3
    assert rates[0] == 1e-5
    assert 0 < rates[-1] < 5e-6
    longer = [learning_rate(update, 1e-3, 2000, warmup=100) for update in range(700)]
    assert longer == rates[:700]
