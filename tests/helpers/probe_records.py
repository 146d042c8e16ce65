"""Records of probes with given scores."""

from __future__ import annotations

import numpy as np

from s3prl_dphubert.probe.probe_record import HEADS, VERIFICATION, ProbeRecord, ProbeScore
from s3prl_dphubert.superb.metrics.eer import VerificationTrials
from s3prl_dphubert.superb.scoring.uncertainty import Ratio

VOICES = ("a", "b", "c", "d")


def record(name, percent, spread=1.0, seed=0, corpus="tones", eer_noise=1.0):
    """A model with about this accuracy in words and phones, and trials that noise makes harder."""
    random = np.random.default_rng(seed)
    scores = []
    for probe in ("words", "phones"):
        for head in HEADS:
            tops = np.clip(percent + spread * random.normal(size=len(VOICES)), 0, 100) * 10
            ratio = Ratio(VOICES, tuple(np.round(tops)), (1000.0,) * len(VOICES))
            scores.append(ProbeScore(probe, head, ratio, {"layer": [1, 2]} if head == HEADS[0] else {}))
    labels = np.repeat(VOICES, 15)
    vectors = np.repeat(np.eye(4), 15, axis=0) + eer_noise * random.normal(size=(60, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    trials = VerificationTrials.of_scores([(vectors @ vectors.T, labels.tolist())])
    scores.append(ProbeScore(VERIFICATION, HEADS[0], trials, {"layer": [0, 1]}))
    return ProbeRecord(
        name,
        f"models/{name}",
        {"parameters": 813_141, "sha256": name, "layers": 3},
        {"name": corpus, "sha256": corpus},
        tuple(scores),
        {"words": [[percent - 5, 1.0], [percent, 1.0], [percent - 2, None]], "phones": [[percent, 1.0]] * 3},
        {"words": 12.0, "phones": 11.0, VERIFICATION: 50.0},
        {"hidden states": 90.0, "words, best layer": 30.0},
        {"hidden states": 150.0, "words, best layer": 30.0},
        {"processor": "x", "threads": 2},
    )
