import numpy as np
import pytest
import torch

from s3prl_dphubert.data.audio import read
from s3prl_dphubert.errors import DataError
from s3prl_dphubert.probe import pooled_states
from s3prl_dphubert.probe.layer_sources import LayerSource
from s3prl_dphubert.probe.pooled_states import PooledStates, durations, extract
from s3prl_dphubert.probe.probe_samples import samples
from tests.helpers.probe_corpora import tone_corpus

STRIDE, CENTRE = 320, 200


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tone_corpus(tmp_path_factory.mktemp("tones"), clips=4)


def clock(waveform):
    """Layers that tell the time of each frame in seconds, and its number."""
    frames = (len(waveform) - 400) // STRIDE + 1
    seconds = (CENTRE + STRIDE * torch.arange(frames)) / 16_000
    return [torch.stack([seconds, -seconds], 1), torch.stack([torch.arange(frames), torch.ones(frames)], 1)]


def pooled(corpus, folder, states=clock, jobs=1):
    probes = samples(corpus, durations(corpus))
    source = LayerSource("clock", states, STRIDE, CENTRE, {})
    values = extract(source, corpus, probes, folder, jobs)
    return probes, {name: each.values.astype(np.float32) for name, each in values.items()}


@pytest.fixture(scope="module")
def by_clock(corpus, tmp_path_factory):
    return pooled(corpus, tmp_path_factory.mktemp("states"))


def test_a_word_is_the_means_over_its_thirds(by_clock):
    probes, values = by_clock
    spans = probes["words"].spans
    expected = spans[:, :1] + (spans[:, 1:] - spans[:, :1]) * np.array([1, 3, 5]) / 6
    assert values["words"].shape == (2, len(spans), 6)
    assert values["words"][0][:, ::2] == pytest.approx(expected, abs=0.011)
    assert values["words"][1][:, 1::2] == pytest.approx(1)


def test_a_phone_is_the_nearest_frame(by_clock):
    probes, values = by_clock
    assert values["phones"][0, :, 0] == pytest.approx(probes["phones"].spans[:, 0], abs=0.0105)


def test_an_utterance_is_mean_and_standard_deviation(corpus, by_clock):
    _, values = by_clock
    hidden = clock(read(corpus.utterances[3].path))[0].numpy()
    assert values["speakers"][0, 3] == pytest.approx(
        np.concatenate([hidden.mean(0), hidden.std(0)]), rel=1e-3
    )


def test_several_at_a_time_give_the_same(corpus, by_clock, tmp_path):
    _, values = pooled(corpus, tmp_path, jobs=3)
    for name, expected in by_clock[1].items():
        assert (values[name] == expected).all()


def test_words_shorter_than_three_frames_take_the_nearest():
    extraction = pooled_states._Extraction(LayerSource("clock", clock, STRIDE, CENTRE, {}), None, {}, None)
    hidden = torch.stack(clock(torch.zeros(16_000)))
    spans = np.array([[0.5, 0.51], [0.0, 0.01], [0.99, 1.2]])
    thirds = extraction._thirds(hidden, spans)[0, :, ::2].numpy()
    assert thirds[0] == pytest.approx([0.4925, 0.5125, 0.5125])
    assert thirds[1] == pytest.approx(CENTRE / 16_000)
    assert thirds[2] == pytest.approx(clock(torch.zeros(16_000))[0][-1, 0].item())


def test_recordings_shorter_than_a_frame_are_padded(corpus, tmp_path):
    lengths = []

    def states(waveform):
        lengths.append(len(waveform))
        return clock(waveform)

    source = LayerSource("clock", states, STRIDE, CENTRE, {})
    extraction = pooled_states._Extraction(source, corpus, {}, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled_states.audio, "read", lambda path: np.zeros(100, np.float32))
        extraction.run(0)
    assert lengths == [400]


def test_large_values_do_not_become_infinite(corpus, tmp_path):
    _, values = pooled(corpus, tmp_path, lambda waveform: [1e6 * layer for layer in clock(waveform)])
    assert np.isfinite(values["phones"]).all() and values["phones"].max() <= 65504


def test_hidden_states_that_are_no_numbers_are_refused(corpus, tmp_path):
    with pytest.raises(DataError, match=r"anna-0\.flac: clock gives NaN"):
        pooled(corpus, tmp_path, lambda waveform: [layer * np.nan for layer in clock(waveform)])


def test_blocks_hold_all_rows_in_order(monkeypatch):
    values = np.random.default_rng(0).normal(size=(3, 50, 4)).astype(np.float16)
    monkeypatch.setattr(pooled_states, "BLOCK", 4 * 3 * 4 * 7)
    rows = np.arange(0, 50, 2)
    blocks = list(PooledStates(values).blocks(rows))
    assert [block.shape[1] for block in blocks] == [7, 7, 7, 4]
    assert (torch.cat(blocks, 1).numpy() == values[:, rows]).all()
