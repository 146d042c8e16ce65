"""Samples of each probe: stretches of recordings with their labels, the same for every model.

A stretch becomes one vector: a word the means over its three thirds, a phone the frame at its time, an
utterance the mean and standard deviation over its frames (Snyder et al., ICASSP 2018).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .aligned_corpus import TRAIN, AlignedCorpus, Segment, segments_at

WORDS, PHONES, SPEAKERS = "words", "phones", "speakers"
PARTS = {WORDS: 3, PHONES: 1, SPEAKERS: 2}
"""Vectors of a layer's width that a sample consists of."""

LEAST_COUNT, LEAST_VOICES = 10, 3
"""Words are classified that are at least so frequent in ``train``, from so many of its voices."""
MOST_FRAMES, FRAME_STEP = 120_000, 0.02
"""Frames are labelled every multiple of 20 ms that leaves at most this number of them."""
SHORTEST = 0.5  # seconds of an utterance by which a speaker is identified


@dataclass(frozen=True)
class ProbeSamples:
    """Samples of one probe.

    Attributes:
        name: ``words``, ``phones`` or ``speakers``.
        classes: names of the C classes.
        utterances: (N,) index of the recording in the corpus, rising.
        spans: (N, 2) start and end in seconds; equal for a moment.
        labels: (N,) index of the class.
        speakers: (N,) index of the voice in :attr:`.AlignedCorpus.speakers`.
    """

    name: str
    classes: tuple[str, ...]
    utterances: np.ndarray
    spans: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def parts(self) -> int:
        """Vectors of a layer's width that a sample consists of."""
        return PARTS[self.name]

    def voices(self, corpus: AlignedCorpus) -> np.ndarray:
        """Return the name of the voice of each sample (N,)."""
        return np.array(corpus.speakers)[self.speakers]


def samples(corpus: AlignedCorpus, durations: np.ndarray) -> dict[str, ProbeSamples]:
    """Return the samples of every probe that the corpus allows.

    Args:
        corpus: the recordings.
        durations: (U,) their lengths in seconds; labels beyond the end of a recording are left out.

    Raises:
        DataError: the corpus has neither words, phones nor speakers to classify.
    """
    rows = {
        WORDS: _words(corpus),
        PHONES: _phones(corpus, durations),
        SPEAKERS: _utterances(corpus, durations),
    }
    probes = {}
    index = {speaker: number for number, speaker in enumerate(corpus.speakers)}
    owners = np.array([index[each.speaker] for each in corpus.utterances])
    for name, listed in rows.items():
        inside = [row for row in listed if row[1].end <= durations[row[0]] + FRAME_STEP]
        classes = tuple(sorted({segment.label for _, segment in inside}))
        if len(classes) < 2:
            continue
        numbers = {label: number for number, label in enumerate(classes)}
        utterances = np.array([utterance for utterance, _ in inside])
        probes[name] = ProbeSamples(
            name,
            classes,
            utterances,
            np.array([(segment.start, segment.end) for _, segment in inside]),
            np.array([numbers[segment.label] for _, segment in inside]),
            owners[utterances],
        )
    if not probes:
        raise DataError(f"{corpus.name}: holds neither words, phones nor speakers to classify")
    return probes


Rows = list[tuple[int, Segment]]


def _words(corpus: AlignedCorpus) -> Rows:
    counts: Counter[str] = Counter()
    voices: Mapping[str, set[str]] = defaultdict(set)
    for each in corpus.utterances:
        if each.split == TRAIN:
            counts.update(word.label for word in each.words)
            for word in each.words:
                voices[word.label].add(each.speaker)
    frequent = {w for w, n in counts.items() if n >= LEAST_COUNT and len(voices[w]) >= LEAST_VOICES}
    return [
        (number, word)
        for number, each in enumerate(corpus.utterances)
        for word in each.words
        if word.label in frequent and word.end > word.start
    ]


def _phones(corpus: AlignedCorpus, durations: np.ndarray) -> Rows:
    known = {phone.label for each in corpus.utterances if each.split == TRAIN for phone in each.phones}
    aligned = sum(durations[number] for number, each in enumerate(corpus.utterances) if each.phones)
    step = FRAME_STEP * max(1, math.ceil(aligned / FRAME_STEP / MOST_FRAMES))
    rows = []
    for number, each in enumerate(corpus.utterances):
        moments = np.arange(step / 2, durations[number], step)
        for moment, index in zip(moments.tolist(), segments_at(each.phones, moments), strict=True):
            if index >= 0 and (label := each.phones[index].label) in known:
                rows.append((number, Segment(label, moment, moment)))
    return rows


def _utterances(corpus: AlignedCorpus, durations: np.ndarray) -> Rows:
    return [
        (number, Segment(each.speaker, 0.0, float(durations[number])))
        for number, each in enumerate(corpus.utterances)
        if durations[number] >= SHORTEST
    ]
