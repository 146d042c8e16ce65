"""SoX's effects against what SoX made of the same samples (tests/golden/sox/README.md)."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import soundfile
import torch

from s3prl_dphubert.errors import ConfigError, DataError
from s3prl_dphubert.sox import apply_effects_file, apply_effects_tensor
from tests.helpers.golden import GOLDEN
from tests.helpers.speech import encoded, tone

HERE = GOLDEN / "sox"
MADE = runpy.run_path(str(HERE / "make.py"))
SIGNALS, CASES, RATES, split = MADE["SIGNALS"], MADE["CASES"], MADE["RATES"], MADE["split"]
SPEAKERS = split(MADE["S3PRL"]["speakers"])


@pytest.fixture(scope="module")
def answers():
    with np.load(HERE / "answers.npz") as file:
        return dict(file)


def applied(name, effects):
    rate, samples = SIGNALS[name]
    result, _ = apply_effects_tensor(torch.from_numpy(samples), rate, split(effects))
    return result.numpy()


def floats(samples):
    """What torchaudio makes of SoX's int32: multiples of 2**-24."""
    return np.floor(samples / 128 + 0.5) / 2**24


def test_every_answer_is_compared(answers):
    assert len(answers) == len(CASES) + len(RATES) + len(MADE["PASSBAND"])
    assert len(CASES) == 57
    assert sum(effects.count("silence") for _, effects in CASES) == 38
    assert sum(answers[f"{name}: {effects}"].size == 0 for name, effects in CASES) == 7


@pytest.mark.parametrize(("name", "effects"), CASES)
def test_equals_sox_sample_for_sample(answers, name, effects):
    expected = answers[f"{name}: {effects}"]
    result = applied(name, effects)
    assert result.dtype == np.int32
    assert result.shape == expected.shape
    assert (result == expected).all()


@pytest.mark.parametrize(("name", "effects"), RATES)
def test_rate_is_sox_s_within_70_db(answers, name, effects):
    expected = answers[f"{name}: {effects}"].astype(np.float64)
    result = applied(name, effects) / 2**16
    assert result.shape == expected.shape
    error = result - expected - 0.5  # the answer's lower half was cut off
    assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 70


def test_rate_gives_sox_s_lengths(answers):
    for rate in MADE["PASSBAND"]:
        for length, expected in zip(MADE["LENGTHS"], answers[f"lengths {rate}"], strict=True):
            result, _ = apply_effects_tensor(torch.zeros(1, length), rate, [["rate", "16000"]])
            assert result.shape == (1, expected)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_of_any_encoding_gives_the_same(answers, tmp_path, subtype):
    rate, samples = SIGNALS["speech"]
    soundfile.write(tmp_path / "a.wav", samples.T / 2**31, rate, subtype=subtype)
    result, rate = apply_effects_file(str(tmp_path / "a.wav"), SPEAKERS)
    expected = floats(answers[f"speech: {MADE['S3PRL']['speakers']}"])
    assert rate == 16_000
    assert result.dtype == torch.float32
    assert result.shape == expected.shape
    assert (result.numpy() == expected).all()


def test_flac_gives_the_same(answers):
    result, _ = apply_effects_file(HERE / "speech.flac", SPEAKERS)
    assert (result.numpy() == floats(answers[f"speech: {MADE['S3PRL']['speakers']}"])).all()


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(tone(0.5, rate=48_000), suffix, rate=48_000))
    result, rate = apply_effects_file(path, split("channels 1, rate 16000, gain -6"))
    assert rate == 16_000
    expected = 10 ** (-6 / 20) * tone(0.5)
    assert result.shape == (1, len(expected))
    middle = slice(2_000, 6_000)
    assert np.abs(result[0].numpy()[middle] - expected[middle]).max() < 0.01


@pytest.mark.parametrize(
    ("subtype", "dtype", "steps"),
    [("PCM_U8", torch.uint8, 7), ("PCM_16", torch.int16, 15), ("PCM_24", torch.int32, 31)],
)
def test_integers_stay_integers(tmp_path, subtype, dtype, steps):
    wave = np.array([[-1, 0.25], [0.5, 0], [0.75, -0.5]])
    soundfile.write(tmp_path / "a.wav", wave, 8_000, subtype=subtype)
    result, rate = apply_effects_file(tmp_path / "a.wav", [], normalize=False, channels_first=False)
    offset = 128 if dtype == torch.uint8 else 0
    assert (rate, result.dtype) == (8_000, dtype)
    assert (result.numpy() == wave * 2**steps + offset).all()
    again, _ = apply_effects_tensor(result, rate, [["reverse"]], channels_first=False)
    assert again.dtype == dtype
    assert torch.equal(again, result.flip(0))


def test_floats_round_as_in_torchaudio():
    """Values that torchaudio 0.12 gave for these floats: down to 2**-31 at first, to 2**-24 at last."""
    given = torch.tensor([[63.9, 64, 127.2, 191.9, 192, -64.9, -65, -192.9, -193, 2**31, 2**32, -(2**32)]])
    expected = [0, 128, 128, 128, 256, 0, -128, -128, -256, 2**31, 2**31, -(2**31)]
    result, _ = apply_effects_tensor(given / 2**31, 16_000, [])
    assert (result * 2**31)[0].tolist() == expected


def test_integers_are_amplified_at_32_bits_and_rounded():
    for dtype, value, loud in ((torch.uint8, 64, 128 - 127), (torch.int16, -16_384, -32_615)):
        result, _ = apply_effects_tensor(torch.full((1, 3), value, dtype=dtype), 16_000, [["gain", "5.98"]])
        assert result.dtype == dtype
        assert result.unique().tolist() == [loud]


def test_inverses_and_identities():
    wave = torch.from_numpy(np.random.RandomState(0).randint(-(2**23), 2**23, (2, 4_000)) / 2**24).float()
    before = wave.clone()
    for effects in (
        "gain 0",
        "reverse, reverse",
        "channels 2",
        "rate 16000",
        "silence 0",
        "pad 0.1 0.05, trim 0.1 4000s",
        "channels 4, channels 2",
    ):
        result, rate = apply_effects_tensor(wave, 16_000, split(effects))
        assert rate == 16_000
        assert torch.equal(result, wave), effects
        result[:] = 0  # shares no memory with the input
    assert torch.equal(wave, before)


def test_both_ends_are_trimmed_in_either_order():
    """The end is trimmed as the beginning of the reversed audio (man sox)."""
    rule = "silence 1 0.01 1%"
    front_first = applied("bursts", f"{rule}, reverse, {rule}, reverse")
    back_first = applied("bursts", f"reverse, {rule}, reverse, {rule}")
    assert 0 < front_first.shape[1] < SIGNALS["bursts"][1].shape[1] - 300
    assert np.array_equal(front_first, back_first)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_answers_do_not_depend_on_the_block(answers, monkeypatch, block):
    monkeypatch.setattr("s3prl_dphubert.sox.silence.BLOCK", block)
    cases = [(name, effects) for name, effects in CASES if "silence" in effects and name != "speech"]
    assert len(cases) == 36
    for name, effects in cases:
        assert np.array_equal(applied(name, effects), answers[f"{name}: {effects}"]), (name, effects)


def test_all_channels_are_judged_together():
    left = torch.zeros(2, 1_000)
    left[0, 300:600] = 0.5
    result, _ = apply_effects_tensor(left, 1_000, split("silence 1 0.01 1%"))
    assert result.shape == (2, 700)  # sound in one channel is sound
    result, _ = apply_effects_tensor(left, 1_000, split("silence 0 1 0.01 1%"))
    assert result.shape == (2, 0)  # silence in one channel is silence


BAD = {
    "tempo 1.1": "unknown effect 'tempo', available: channels, gain, norm, pad, rate, reverse, silence, trim",
    "channels 0": "channels: channels is '0', allowed: a whole number, 1 or larger",
    "channels": "channels: arguments are '', allowed: one number",
    "rate 8000.5": "rate: rate is '8000.5', allowed: whole Hz",
    "rate -s 8000": "rate: arguments are '-s 8000', allowed: [-q|-l|-m|-h|-v] and one rate",
    "gain -l 6": "gain: arguments are '-l 6', allowed: [-n] [dB]",
    "gain 3dB": "gain: gain is '3dB', allowed: a number",
    "gain 1e9": "gain: gain is '1e9', allowed: a number from -1000 to 1000",
    "norm 1 2": "norm: arguments are '1 2', allowed: [dB]",
    "reverse 1": "reverse: arguments are '1', allowed: none",
    "pad 1@2": "pad: length is '1@2', allowed: seconds",
    "trim -1": "trim: length is '-1', allowed: seconds",
    "trim 1 2 3": "trim: arguments are '1 2 3', allowed: start [length]",
    "silence": "silence: arguments are '', allowed: above-periods",
    "silence 1": "silence: arguments are '1', allowed: above-periods",
    "silence 1 0.1 1% 0 0.1 1%": "below-periods is not 0",
    "silence 1.5 0.1 1%": "above-periods is '1.5', allowed: a whole number, 0 or larger",
    "silence 1 0.1s 1%": "duration above is '0.1s', allowed: seconds",
    "silence 1 0.1 101%": "threshold above is '101%', allowed: 0% to 100%",
    "silence 1 0.1 1% -1 0.1 3d": "threshold below is '3d', allowed: 0% to 100%, or below 0d",
    "silence -l 1 0.1 1% -1 0.1 1%": "-l is not supported: SoX repeats audio there",
}


@pytest.mark.parametrize(("effects", "message"), BAD.items())
def test_a_bad_effect_is_named(effects, message):
    with pytest.raises(ConfigError) as error:
        apply_effects_tensor(torch.zeros(1, 9), 16_000, split(effects))
    assert message in str(error.value)


def test_all_bad_effects_are_named_before_a_file_is_opened():
    with pytest.raises(ConfigError) as error:
        apply_effects_file("nowhere.wav", [["gain", "loud"], ["reverse"], ["echo"], ["gain", -3.0], []])
    assert [part[:2] for part in str(error.value).removeprefix("effects: ").split("; ")] == [
        "1.",
        "3.",
        "4.",
        "5.",
    ]
    for effects in ("gain", None, [["gain", "1"], "reverse"]):
        with pytest.raises(ConfigError, match="allowed: a list"):
            apply_effects_tensor(torch.zeros(1, 9), 16_000, effects)


@pytest.mark.parametrize(
    ("tensor", "rate", "message"),
    [
        (torch.zeros(1, 9, dtype=torch.float64), 16_000, "dtype is torch.float64, allowed: torch.uint8"),
        (torch.zeros(9), 16_000, "shape is (9,), allowed: two dimensions"),
        (torch.zeros(0, 9), 16_000, "shape is (0, 9), allowed: one channel or more"),
        (torch.tensor([[0, float("nan")]]), 16_000, "tensor: holds NaN or infinity"),
        (torch.zeros(1, 9), 0, "sample_rate is 0, allowed: above 0"),
    ],
)
def test_a_bad_tensor_is_named(tensor, rate, message):
    with pytest.raises(DataError) as error:
        apply_effects_tensor(tensor, rate, [["reverse"]])
    assert message in str(error.value)


def test_a_bad_file_is_named(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    for name in ("absent.wav", "text.wav", "nan.wav"):
        with pytest.raises(DataError, match=name):
            apply_effects_file(tmp_path / name, [])


def test_empty_audio_stays_empty():
    for effects in ("gain -3, norm", "rate 8000", "silence 1 0.1 1% -1 0.1 1%", "reverse, channels 1"):
        result, _ = apply_effects_tensor(torch.zeros(1, 0), 16_000, split(effects))
        assert result.shape == (1, 0)
