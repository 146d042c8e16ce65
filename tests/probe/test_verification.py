from dataclasses import replace

import numpy as np
import pytest

from s3prl_dphubert.probe.aligned_corpus import AlignedCorpus
from s3prl_dphubert.probe.pooled_states import PooledStates
from s3prl_dphubert.probe.probe_samples import samples
from s3prl_dphubert.probe.verification import VerificationProbe
from s3prl_dphubert.superb.scoring.uncertainty import estimate
from tests.helpers.probe_corpora import HEARD, UNHEARD, tone_corpus

CLIPS = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tone_corpus(tmp_path_factory.mktemp("tones"), clips=CLIPS)


@pytest.fixture(scope="module")
def speakers(corpus):
    return samples(corpus, np.full(len(corpus.utterances), 1.7))["speakers"]


def planted(probe, noises, width=2):
    """Layers in which a voice has a place under noise, in as few dimensions as three voices span."""
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, len(probe.classes), endpoint=False)
    means = 4 * np.stack([np.cos(angles), np.sin(angles)], 1)[random.permutation(len(angles))][probe.labels]
    layers = [means + noise * random.normal(size=(len(probe), width)) for noise in noises]
    return PooledStates(np.stack(layers).astype(np.float16))


def test_all_pairs_of_a_panel_are_tried(corpus, speakers):
    probe = VerificationProbe.of(speakers, corpus)
    voices = [set(probe.voices[rows]) for rows in probe.panels]
    assert voices[0] | voices[1] == set(UNHEARD) and not voices[0] & voices[1]
    assert set(probe.voices[probe.train]) == set(HEARD)
    result, curve = probe.by_layer(planted(speakers, (0.3, 8.0)))
    sizes = [len(rows) for rows in probe.panels]
    assert result.trials.total == sum(n * (n - 1) // 2 for n in sizes)
    assert len(curve) == 2


def test_the_layer_that_knows_voices_is_chosen(corpus, speakers):
    probe = VerificationProbe.of(speakers, corpus)
    states = planted(speakers, (8.0, 0.3, 8.0))
    single, curve = probe.by_layer(states)
    mixed = probe.by_weights(states)
    assert single.choices["layer"] == [1, 1]
    assert estimate(single.trials).value < 10 and estimate(mixed.trials).value < 15
    assert estimate(curve[0]).value > 30
    assert mixed.weights[1] > 0.6


def test_the_tested_panel_decides_nothing(corpus, speakers):
    probe = VerificationProbe.of(speakers, corpus)
    states = planted(speakers, (1.0, 1.0, 1.0))
    voices = probe.voices.copy()
    voices[probe.panels[0]] = np.random.default_rng(0).permutation(voices[probe.panels[0]])
    other = replace(probe, voices=voices)
    first, second = (each.by_layer(states)[0].choices for each in (probe, other))
    assert [values[0] for values in first.values()] == [values[0] for values in second.values()]


def test_too_few_voices_give_no_verification(corpus, speakers):
    few = tuple(
        each if each.speaker in UNHEARD[:3] else replace(each, split="train") for each in corpus.utterances
    )
    assert VerificationProbe.of(speakers, AlignedCorpus("x", few)) is None
