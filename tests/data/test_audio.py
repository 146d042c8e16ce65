"""Reading audio: rates, channels, crops, and files damaged in every way we could think of."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from s3prl_dphubert.data import audio
from s3prl_dphubert.data.audio import SAMPLE_RATE, SUFFIXES, AudioFile, AudioInfo, decode, probe, read
from s3prl_dphubert.data.manifest import scan
from s3prl_dphubert.data.validate import check
from s3prl_dphubert.errors import DataError
from tests.helpers.speech import FORMATS, chirp, tone


def stored(folder, suffix, data, rate=SAMPLE_RATE):
    path = folder / f"a.{suffix}"
    soundfile.write(path, data, rate, **FORMATS[suffix])
    return path


def test_every_suffix_is_tried():
    assert {f".{suffix}" for suffix in FORMATS} == SUFFIXES


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_stereo_at_44_khz_comes_back_with_length_and_frequency(tmp_path, suffix):
    path = stored(tmp_path, suffix, np.stack([tone(2.0, 44_100)] * 2, axis=1), 44_100)
    assert probe(path) == AudioInfo(samples=88_200, rate=44_100, channels=2)
    data = read(path)
    assert data.dtype == np.float32
    assert data.shape == (32_000,)
    assert probe(path).samples_16k == 32_000
    middle = slice(1000, -1000)
    assert np.abs(data[middle] - tone(2.0)[middle]).max() < 1e-3


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_every_format_is_read_as_16_khz_mono(tmp_path, suffix, rate):
    path = stored(tmp_path, suffix, np.stack([tone(1.0, rate), np.zeros(rate, np.float32)], axis=1), rate)
    assert probe(path).channels == 2
    data = read(path)
    assert data.dtype == np.float32
    assert abs(len(data) - 16_000) <= (2500 if suffix == "mp3" else 1)
    assert abs(probe(path).samples_16k - len(data)) <= 1
    spectrum = np.abs(np.fft.rfft(data))
    assert np.argmax(spectrum) * 16_000 / len(data) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(data**2)) == pytest.approx(0.15 / np.sqrt(2), rel=0.1)  # the mean of both


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_are_read_like_the_file_they_are_of(tmp_path, suffix):
    path = stored(tmp_path, suffix, chirp(1.0))
    data = path.read_bytes()
    assert probe("x", data) == probe(path)
    assert np.array_equal(read("x", data=data), read(path))
    assert np.array_equal(read("x", 3000, 500, data=data), read(path, 3000, 500))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_a_crop_is_the_same_part_of_the_whole(tmp_path, suffix, rate):
    path = stored(tmp_path, suffix, chirp(3.0, rate), rate)
    whole = read(path)
    for start, samples in ((0, 100), (5000, 100), (7777, 8000), (30_001, 1600)):
        crop = read(path, start, samples)
        assert crop.shape == (samples,)
        assert np.abs(crop - whole[start : start + samples]).max() < 2e-3
    assert np.array_equal(read(path, 40_000), whole[40_000:])
    assert len(read(path, 40_000, 16_000)) == len(whole) - 40_000


def test_a_crop_at_16_khz_decodes_only_itself(tmp_path, monkeypatch):
    path = stored(tmp_path, "flac", chirp(3.0))
    asked = []
    original = AudioFile.read

    def counted(file, frames=-1, *args, **options):
        asked.append(frames)
        return original(file, frames, *args, **options)

    monkeypatch.setattr(AudioFile, "read", counted)
    read(path, 5000, 1000)
    assert asked == [1000]


@pytest.mark.parametrize(("start", "samples"), [(-1, None), (-1, 10), (0, 0), (0, -1)])
def test_a_crop_out_of_range_is_refused(tmp_path, start, samples):
    path = stored(tmp_path, "wav", tone(0.5))
    with pytest.raises(DataError, match=r"allowed: start >= 0, samples >= 1"):
        read(path, start, samples)


@pytest.mark.parametrize("samples", [None, 100])
def test_a_crop_behind_the_end_is_empty(tmp_path, samples):
    path = stored(tmp_path, "wav", tone(0.5))
    with pytest.raises(DataError, match=r"a\.wav: empty"):
        read(path, 9000, samples)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_read_or_refused_but_nothing_else(tmp_path, suffix):
    whole = stored(tmp_path, suffix, tone(0.5)).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / f"bad.{suffix}"
    refused = tried = 0
    for turn in range(40):
        data = bytearray(whole)
        if turn % 2:
            data = data[: int(random.integers(len(data)))]
        else:
            for place in random.integers(0, 60, 4):
                data[place] = random.integers(256)
        path.write_bytes(data)
        for use in (probe, read, lambda name: read(name, 100, 1000)):
            tried += 1
            try:
                use(path)
            except DataError as error:
                refused += 1
                assert str(error).startswith(str(path))
    assert tried == 120
    assert refused > 10


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("data", [b"", b"RIFF", np.random.default_rng(1).bytes(4000)], ids=len)
def test_no_audio_at_all(tmp_path, suffix, data):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(data)
    for use in (probe, read):
        with pytest.raises(DataError, match=rf"bad\.{suffix}: unreadable"):
            use(path)


@pytest.mark.parametrize("use", [probe, read])
def test_missing_folders_and_odd_names(tmp_path, use):
    for path in (tmp_path / "gone.wav", tmp_path, "nul\0.wav"):
        with pytest.raises(DataError, match="unreadable"):
            use(path)


@pytest.mark.parametrize("use", [probe, read])
def test_a_header_without_samples_is_empty(tmp_path, use):
    path = stored(tmp_path, "wav", np.zeros(0, np.float32))
    with pytest.raises(DataError, match=r"a\.wav: empty"):
        use(path)


@pytest.mark.parametrize("use", [probe, read])
@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_an_absurd_rate_does_not_fill_the_memory(tmp_path, use, rate):
    path = stored(tmp_path, "wav", tone(0.5))
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"rate is {rate} Hz, allowed: 1000 to 1000000"):
        use(path)


def with_total(path, samples):
    """Change the 36 bits of a FLAC header that hold the number of samples; 0 means that it is unknown."""
    data = bytearray(path.read_bytes())
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)


@pytest.mark.parametrize("use", [probe, read, lambda path: read(path, 0, 100)])
def test_a_flac_of_absurd_length_is_refused(tmp_path, use):
    path = stored(tmp_path, "flac", tone(0.5))
    with_total(path, 2**36 - 1)
    with pytest.raises(DataError, match=r"a\.flac: length is implausible .* allowed: .* h at most"):
        use(path)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_flac_from_a_pipe_is_measured_by_decoding(tmp_path, rate):
    path = stored(tmp_path, "flac", chirp(40.0, rate), rate)
    whole, info = read(path), probe(path)
    with_total(path, 0)
    assert probe(path) == info == AudioInfo(40 * rate, rate, 1)
    assert np.array_equal(read(path), whole)
    assert np.abs(read(path, 500_000, 3000) - whole[500_000:503_000]).max() < 1e-6
    assert np.array_equal(np.concatenate(list(decode(path))), whole)
    entries = scan([path])[0][""].entries
    assert [entry.samples for entry in entries] == [640_000]


def test_a_flac_that_holds_more_than_its_header_says_is_refused_by_a_check(tmp_path):
    path = stored(tmp_path, "flac", chirp(3.0))
    with_total(path, 20_000)
    assert len(read(path)) == 20_000
    reason = "holds 48000 samples, but only 20000 by its header can be read"
    with pytest.raises(DataError, match=reason):
        scan([path], check=True)
    assert reason in check(scan([path])[0][""]).bad[0].reason


def test_a_flac_that_ends_early_is_refused_whole_and_cropped(tmp_path):
    path = stored(tmp_path, "flac", chirp(3.0))
    with_total(path, 60_000)
    reason = "ends after 48000 of 60000 samples"
    for use in (read, lambda path: list(decode(path)), lambda path: read(path, 47_000, 2000)):
        with pytest.raises(DataError, match=reason):
            use(path)


def frames_only(folder, level, data):
    """Encode MP3 at a constant bit rate, without the first frame, which states the length."""
    path = folder / "constant.mp3"
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    soundfile.write(path, data, SAMPLE_RATE, compression_level=level, **options)
    return path.read_bytes()


def test_an_mp3_of_changing_bit_rate_without_a_length_is_refused_by_a_check(tmp_path):
    fast, slow = (frames_only(tmp_path, level, chirp(10.0)) for level in (0.0, 0.9))
    path = tmp_path / "a.mp3"
    for data, is_good in (
        (fast, True),
        (slow, True),
        (without_first_frame(fast) + without_first_frame(slow), False),
    ):
        path.write_bytes(data)
        report = check(scan([path])[0][""])
        assert (not report.bad) == is_good
    assert probe(path).samples < 200_000  # of 320,000: this is what a crop is cut from
    assert "samples, but only" in report.bad[0].reason
    with pytest.raises(DataError, match="samples, but only"):
        scan([path], check=True)


@pytest.mark.parametrize("level", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("states_length", [True, False])
def test_a_crop_far_into_an_mp3_is_that_of_the_whole_without_a_word(tmp_path, level, states_length, capfd):
    path = tmp_path / "a.mp3"
    data = frames_only(tmp_path, level, 0.2 * np.random.default_rng(0).standard_normal(80 * SAMPLE_RATE))
    path.write_bytes(data if states_length else without_first_frame(data))
    whole = read(path)
    capfd.readouterr()  # of the first frame, where it misses the bits of the one before
    for start in range(35 * SAMPLE_RATE, 79 * SAMPLE_RATE, 30_011):
        assert np.abs(read(path, start, 5000) - whole[start : start + 5000]).max() < 1e-6
    assert capfd.readouterr().err == ""


def without_first_frame(data):
    return data[data.index(data[:2], 2) :]


def test_a_codec_without_random_access_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirp(3.0, 8000), 8000, subtype="GSM610")
    whole = read(path)
    assert len(whole) == probe(path).samples_16k
    assert np.abs(read(path, 20_000, 5000) - whole[20_000:25_000]).max() < 1e-6
    assert np.array_equal(np.concatenate(list(decode(path))), whole)
    assert not check(scan([path])[0][""]).bad


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 12_000, 24_000, 48_000])
def test_a_crop_of_a_long_file_is_that_of_the_whole(tmp_path, suffix, rate):
    path = stored(tmp_path, suffix, chirp(45.0, rate), rate)
    whole = read(path)
    for start, samples in ((0, 100), (7777, 8000), (400_001, 16_000), (len(whole) - 3000, 9000)):
        assert np.abs(read(path, start, samples) - whole[start : start + samples]).max() < 1e-6
        assert len(read(path, start, samples)) == min(samples, len(whole) - start)


@pytest.mark.parametrize("rate", [1_000, 11_025, 22_050, 44_100, 44_101, 96_000])
def test_a_crop_at_another_rate_decodes_only_its_surroundings(tmp_path, rate, monkeypatch):
    path = tmp_path / "a.wav"
    noise = 0.3 * np.random.default_rng(0).standard_normal(90 * rate).astype(np.float32)
    soundfile.write(path, noise, rate, subtype="FLOAT")
    whole = read(path)
    frames = []
    original = AudioFile.read
    monkeypatch.setattr(
        AudioFile,
        "read",
        lambda file, n, *args, **options: frames.append(n) or original(file, n, *args, **options),
    )
    for start in (160_001, 1_200_000, len(whole) - 16_000):
        frames.clear()
        error = np.abs(read(path, start, 16_000) - whole[start : start + 16_000]).max()
        assert error < (1e-5 if rate == 44_101 else 1e-6)
        assert 0 < sum(frames) < 4 * rate


def test_more_than_three_hours_are_not_read_at_once_but_in_parts(tmp_path, monkeypatch):
    path = stored(tmp_path, "flac", tone(20.0))
    monkeypatch.setattr(audio, "MAX_SECONDS_AT_ONCE", 10)
    with pytest.raises(DataError, match="too long to read at once"):
        read(path)
    assert len(read(path, 200_000, 100_000)) == 100_000
    assert sum(map(len, decode(path))) == 320_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_non_finite_samples_are_refused(tmp_path, value, rate):
    data = np.stack([tone(0.5, rate)] * 2, axis=1)
    data[700, 1] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, data, rate, subtype="FLOAT")
    probe(path)
    with pytest.raises(DataError, match=r"a\.wav: non-finite samples"):
        read(path)
