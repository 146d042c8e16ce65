"""An aligned corpus of tones, whose words, phones and speakers a spectrum gives away."""

from __future__ import annotations

import numpy as np
import soundfile

from s3prl_dphubert.probe.aligned_corpus import AlignedCorpus, AlignedUtterance, Segment

RATE = 16_000
TONES = {"LOW": 300, "MIDDLE": 900, "HIGH": 2700}
HEARD, UNHEARD = ("anna", "ben", "cleo"), ("dora", "emil", "fritz", "gisa", "hans")
GAP, LENGTH = 0.2, 0.3  # seconds


def tone_corpus(folder, clips=6, seed=0):
    """Utterances of three words; a word is a tone, a voice its loudness and the hum behind it."""
    random = np.random.default_rng(seed)
    utterances = []
    for number, speaker in enumerate((*HEARD, *UNHEARD)):
        for clip in range(clips):
            words = [str(word) for word in random.permutation(list(TONES))]
            samples = int(RATE * (len(words) * (GAP + LENGTH) + GAP))
            time = np.arange(samples) / RATE
            audio = 0.02 * np.sin(2 * np.pi * (4000 + 400 * number) * time) + 0.003 * random.normal(
                size=samples
            )
            segments, phones, end = [], [], 0.0
            for place, word in enumerate(words):
                start = round(GAP + place * (GAP + LENGTH), 2)
                inside = (time >= start) & (time < start + LENGTH)
                pitch = TONES[word] * random.uniform(0.95, 1.05)
                audio[inside] += (0.1 + 0.02 * number) * np.sin(2 * np.pi * pitch * time[inside])
                segments.append(Segment(word, start, round(start + LENGTH, 2)))
                phones += [Segment("SIL", end, start), Segment(word[0], start, segments[-1].end)]
                end = segments[-1].end
            path = folder / f"{speaker}-{clip}.flac"
            soundfile.write(path, audio, RATE)
            split = "train" if speaker in HEARD else "dev" if speaker == "dora" else "test"
            utterances.append(AlignedUtterance(path, speaker, split, tuple(segments), tuple(phones)))
    return AlignedCorpus("tones", tuple(utterances))
