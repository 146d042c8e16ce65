from dataclasses import replace

import numpy as np
import pytest

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.probe import probe_samples
from s3prl_dphubert.probe.aligned_corpus import AlignedCorpus, Segment
from s3prl_dphubert.probe.probe_samples import samples
from tests.helpers.probe_corpora import HEARD, TONES, UNHEARD, tone_corpus

SECONDS = 1.7


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tone_corpus(tmp_path_factory.mktemp("tones"), clips=4)


def lengths(corpus):
    return np.full(len(corpus.utterances), SECONDS)


def test_words_phones_and_speakers_are_listed_with_their_voices(corpus):
    probes = samples(corpus, lengths(corpus))
    words = probes["words"]
    assert words.classes == tuple(sorted(TONES)) and len(words) == 3 * 4 * 8
    first = corpus.utterances[int(words.utterances[0])].words[0]
    assert words.classes[words.labels[0]] == first.label
    assert tuple(words.spans[0]) == (first.start, first.end)
    assert probes["speakers"].classes == tuple(sorted((*HEARD, *UNHEARD)))
    assert (np.diff(words.utterances) >= 0).all()
    for probe in probes.values():
        speakers = [corpus.utterances[number].speaker for number in probe.utterances]
        assert [corpus.speakers[number] for number in probe.speakers] == speakers


def test_frames_have_the_phone_at_their_time(corpus):
    phones = samples(corpus, lengths(corpus))["phones"]
    for number, (moment, _), label in zip(phones.utterances, phones.spans, phones.labels, strict=True):
        here = [p.label for p in corpus.utterances[number].phones if p.start <= moment < p.end]
        assert here == [phones.classes[label]]
    assert len(phones) == len(corpus.utterances) * 75  # every 20 ms of the 1.5 s that are aligned


def test_long_corpora_are_labelled_at_fewer_frames(corpus, monkeypatch):
    monkeypatch.setattr(probe_samples, "MOST_FRAMES", 1000)
    phones = samples(corpus, lengths(corpus))["phones"]
    moments = np.unique(phones.spans[:, 0])
    assert len(phones) <= 1000
    assert np.diff(moments).min() == pytest.approx(0.06)


def test_words_have_to_be_frequent_among_the_voices_that_train(corpus):
    rare = [
        replace(each, words=(*each.words, Segment("RARE", 1.55, 1.65))) if each.speaker != "ben" else each
        for each in corpus.utterances
    ]
    few_voices = samples(AlignedCorpus("x", tuple(rare)), lengths(corpus))["words"]
    assert "RARE" not in few_voices.classes
    everywhere = [
        replace(each, words=(*each.words, Segment("OFTEN", 1.55, 1.65))) for each in corpus.utterances
    ]
    assert "OFTEN" in samples(AlignedCorpus("x", tuple(everywhere)), lengths(corpus))["words"].classes


def test_labels_beyond_the_end_of_a_recording_are_left_out(corpus):
    shorter = samples(corpus, np.full(len(corpus.utterances), 1.0))
    assert shorter["words"].spans.max() <= 1.02
    assert shorter["phones"].spans.max() <= 1.02


def test_a_corpus_without_labels_has_nothing_to_classify(corpus):
    plain = [replace(each, words=(), phones=(), speaker="one", split="train") for each in corpus.utterances]
    with pytest.raises(DataError, match="neither words, phones nor speakers"):
        samples(AlignedCorpus("x", tuple(plain)), lengths(corpus))
