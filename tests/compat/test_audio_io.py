"""torchaudio's file functions on top of soundfile."""

from __future__ import annotations

import wave
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from s3prl_dphubert.compat import audio_io


@pytest.fixture
def samples(tmp_path):
    """Two channels of 16 bits, as the standard library writes them (T, channels)."""
    data = np.random.default_rng(0).integers(-(2**15), 2**15, (1000, 2), dtype=np.int16)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(data.tobytes())
    return tmp_path / "sound.wav", data


def test_load_gives_what_torchaudio_gave(samples):
    path, data = samples
    wav, rate = audio_io.load(path)
    assert (rate, wav.dtype, wav.shape, wav.is_contiguous()) == (8000, torch.float32, (2, 1000), True)
    torch.testing.assert_close(wav.T.numpy(), data / np.float32(2**15), atol=0, rtol=0)
    whole, _ = audio_io.load(str(path), normalize=False, channels_first=False)
    np.testing.assert_array_equal(whole.numpy(), data)
    with path.open("rb") as file:
        part, _ = audio_io.load(file, frame_offset=900, num_frames=50, normalize=False)
    np.testing.assert_array_equal(part.numpy(), data[900:950].T)
    assert audio_io.load(path, frame_offset=990, num_frames=50)[0].shape == (2, 10)
    assert audio_io.load(path, frame_offset=5000)[0].shape == (2, 0)
    for wrong in ({"frame_offset": -1}, {"num_frames": -2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            audio_io.load(path, **wrong)
    with pytest.raises(soundfile.LibsndfileError, match="absent"):
        audio_io.load(path.with_name("absent.wav"))


@pytest.mark.parametrize(
    ("subtype", "dtype", "low", "high"),
    [
        ("PCM_U8", torch.uint8, 0, 255),
        ("PCM_16", torch.int16, -(2**15), 2**15 - 1),
        ("PCM_24", torch.int32, -(2**31), 2**31 - 1),
        ("PCM_32", torch.int32, -(2**31), 2**31 - 1),
        ("FLOAT", torch.float32, -1, 1),
    ],
)
def test_load_keeps_integers_of_wav_alone(tmp_path, subtype, dtype, low, high):
    soundfile.write(tmp_path / "sound.wav", np.array([-1.0, 0.0, 0.999999]), 16_000, subtype=subtype)
    wav, _ = audio_io.load(tmp_path / "sound.wav", normalize=False)
    assert (wav.dtype, wav[0, 0]) == (dtype, low)
    assert wav[0, 2] >= high * 0.999
    soundfile.write(tmp_path / "sound.flac", np.array([-1.0, 0.5]), 16_000)
    assert audio_io.load(tmp_path / "sound.flac", normalize=False)[0].dtype == torch.float32


def test_info_says_what_a_header_says(samples, tmp_path):
    assert audio_io.info(samples[0]) == audio_io.AudioMetaData(8000, 1000, 2, 16, "PCM_S")
    for suffix, bits, encoding in (("flac", 16, "FLAC"), ("ogg", 0, "VORBIS"), ("mp3", 0, "MP3")):
        path = tmp_path / f"sound.{suffix}"
        soundfile.write(path, np.zeros((1600, 1)), 16_000)
        header = audio_io.info(path)
        assert (header.sample_rate, header.num_channels) == (16_000, 1)
        assert (header.bits_per_sample, header.encoding) == (bits, encoding)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_what_is_saved_is_loaded(tmp_path, dtype):
    high = 127 if dtype == "uint8" else 1000
    wav = torch.tensor([[0, 1, high], [high, 1, 0]], dtype=getattr(torch, dtype))
    audio_io.save(tmp_path / "sound.wav", wav, 16_000)
    again, rate = audio_io.load(tmp_path / "sound.wav", normalize=False)
    assert rate == 16_000
    torch.testing.assert_close(again, wav)


def test_save_takes_encodings_and_refuses_others(tmp_path):
    wav = torch.tensor([[0.0, 0.5]])
    audio_io.save(tmp_path / "sound.wav", wav, 16_000, encoding="PCM_S", bits_per_sample=24)
    assert audio_io.info(tmp_path / "sound.wav").bits_per_sample == 24
    audio_io.save(tmp_path / "sound.flac", wav, 16_000)
    assert audio_io.info(tmp_path / "sound.flac").encoding == "FLAC"
    with pytest.raises(ValueError, match="encoding is AAC"):
        audio_io.save(tmp_path / "sound.wav", wav, 16_000, encoding="AAC")
    with pytest.raises(ValueError, match="src has 1 dimensions"):
        audio_io.save(tmp_path / "sound.wav", wav[0], 16_000)


def test_a_torchaudio_that_can_load_is_left_alone():
    able, unable = ModuleType("torchaudio"), ModuleType("torchaudio")
    able.load = audio_io.load

    def load(uri):
        raise ImportError("TorchCodec is required")

    unable.load = load
    (needed,) = (patch.needed for patch in audio_io.PATCHES if patch.name == "torchaudio.load")
    assert not needed(able)
    assert needed(unable)
    assert needed(ModuleType("torchaudio"))
