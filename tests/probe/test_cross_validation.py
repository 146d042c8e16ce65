from dataclasses import replace

import numpy as np
import pytest

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.probe.aligned_corpus import AlignedCorpus
from s3prl_dphubert.probe.cross_validation import ALWAYS, ClassificationProbe, Partition, deal
from s3prl_dphubert.probe.pooled_states import PooledStates
from s3prl_dphubert.probe.probe_samples import samples
from s3prl_dphubert.superb.scoring.uncertainty import estimate
from tests.helpers.probe_corpora import HEARD, UNHEARD, tone_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tone_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def probes(corpus):
    return samples(corpus, np.full(len(corpus.utterances), 1.7))


def planted(probe, noises=(5.0, 0.3, 5.0), seed=0):
    """Layers that hold the class under noise."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(len(probe.classes), 8))[probe.labels]
    layers = [means + noise * random.normal(size=means.shape) for noise in noises]
    return PooledStates(np.stack(layers).astype(np.float16))


@pytest.mark.parametrize("name", ["words", "phones"])
def test_every_unheard_voice_is_tested_once_and_never_trained_on_then(corpus, probes, name):
    probe = probes[name]
    partition = Partition.of(probe, corpus)
    names = np.array(corpus.speakers)[probe.speakers]
    tested = []
    for fold in partition.folds():
        voices = {
            part: set(names[partition.rows(*numbers)])
            for part, numbers in (("train", fold.train), ("dev", (fold.dev,)), ("test", (fold.test,)))
        }
        assert voices["train"] >= set(HEARD)
        assert not voices["train"] & voices["dev"] and not voices["test"] & (voices["train"] | voices["dev"])
        assert set.union(*voices.values()) == {*HEARD, *UNHEARD}
        tested += voices["test"]
    assert sorted(tested) == sorted(UNHEARD)


def test_speakers_are_tested_on_other_utterances_of_theirs(corpus, probes):
    probe = probes["speakers"]
    partition = Partition.of(probe, corpus)
    names = np.array(corpus.speakers)[probe.speakers]
    assert set(names[partition.parts == ALWAYS]) == set(HEARD)
    for fold in partition.folds():
        for part in ((fold.test,), (fold.dev,), fold.train):
            assert set(UNHEARD) <= set(names[partition.rows(*part)])


def test_voices_are_dealt_into_parts_of_similar_size():
    sizes = {"a": 9, "b": 8, "c": 7, "d": 3, "e": 2, "f": 1}
    parts = deal(sizes, 3)
    assert parts == {"a": 0, "b": 1, "c": 2, "d": 2, "e": 1, "f": 0}


def test_the_best_layer_is_found_and_weighted_most(corpus, probes):
    probe = ClassificationProbe.of(probes["words"], corpus)
    states = planted(probes["words"])
    single, curve = probe.by_layer(states)
    mixed = probe.by_weights(states)
    assert single.choices["layer"] == [1, 1, 1, 1]
    assert estimate(single.accuracy).value > 95 and estimate(mixed.accuracy).value > 95
    assert np.argmax([estimate(layer).value for layer in curve]) == 1
    assert mixed.weights[1] > 0.8 and sum(mixed.weights) == pytest.approx(1)
    assert all(mixed.choices["converged"])
    assert single.accuracy.groups == UNHEARD


def test_states_without_information_are_at_chance(corpus, probes):
    probe = ClassificationProbe.of(probes["words"], corpus)
    states = planted(
        replace(probes["words"], labels=np.random.default_rng(1).permutation(probes["words"].labels))
    )
    single, _ = probe.by_layer(states)
    assert estimate(single.accuracy).value == pytest.approx(100 / 3, abs=15)
    assert 20 < probe.chance() < 45
    assert ClassificationProbe.of(probes["speakers"], corpus).chance() == 100 / 8


def test_the_tested_labels_decide_nothing(corpus, probes):
    probe = ClassificationProbe.of(probes["words"], corpus)
    states = planted(probes["words"], (1.0, 1.0, 1.0))
    fold = next(probe.partition.folds())
    tested = probe.partition.rows(fold.test)
    labels = probes["words"].labels.copy()
    labels[tested] = (labels[tested] + 1) % 3
    other = replace(probe, probe=replace(probes["words"], labels=labels))
    for head in ("by_layer", "by_weights"):
        results = [getattr(each, head)(states) for each in (probe, other)]
        results = [each[0] if isinstance(each, tuple) else each for each in results]
        for name, values in results[0].choices.items():
            assert results[1].choices[name][fold.test] == values[fold.test]


def test_both_heads_agree_on_a_single_layer(corpus, probes):
    probe = ClassificationProbe.of(probes["words"], corpus)
    states = planted(probes["words"], (1.0,))
    assert probe.by_layer(states)[0].accuracy == probe.by_weights(states).accuracy


def test_fewer_than_two_unheard_voices_are_refused(corpus, probes):
    heard = tuple(replace(each, split="train") for each in corpus.utterances)
    with pytest.raises(DataError, match="0 voices outside split train have words, allowed: 2 or more"):
        Partition.of(probes["words"], AlignedCorpus("x", heard))


def test_speakers_with_too_few_utterances_are_refused(corpus):
    few = tuple(replace(each, split="test") for each in corpus.utterances if each.path.stem[-1] in "01")
    probe = samples(AlignedCorpus("x", few), np.full(len(few), 1.7))["speakers"]
    with pytest.raises(DataError, match="have 2 utterances at most, allowed: 3 or more"):
        Partition.of(probe, AlignedCorpus("x", few))


def test_a_part_for_each_voice_where_voices_are_few(corpus, probes):
    few = tuple(
        each if each.speaker in UNHEARD[:2] else replace(each, split="train") for each in corpus.utterances
    )
    partition = Partition.of(probes["words"], AlignedCorpus("x", few))
    assert partition.count == 2
    assert [(fold.test, fold.dev, fold.train) for fold in partition.folds()] == [(0, 1, (-1,)), (1, 0, (-1,))]
