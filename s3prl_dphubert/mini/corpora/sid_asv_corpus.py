"""Who speaks, in the layout of VoxCeleb1: identification of known voices, verification of unknown ones."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from ..layout import Piece, Plan, piece
from ..utterance import Material, Utterance, shuffled
from ..voices import DEV, ROLES, TEST, TRAIN

SID_ROOT, ASV_ROOT = "VoxCeleb1", "VoxCeleb1_verification"
SID_LIST, ASV_LIST = "VoxCeleb1/veri_test_class.txt", "VoxCeleb1_verification/voxceleb1_test_v2.txt"
LEAST, MOST = 40, 80
"""Clips of a voice to be identified: with fewer it is left out, more are not used."""

SHARES = {TEST: 0.3, DEV: 0.1}
SID_SECONDS = 1.0
ASV_SECONDS = 2.4
"""Shortest clips. s3prl leaves those out of ASV's training that are under 2 s without their silence."""

ASV_MOST, ASV_TEST = 60, 20
"""Clips of a voice in training, and in the trials."""

TRIALS = 600
"""Pairs of one voice, and as many of two."""

_SPLIT_NUMBERS = {TRAIN: 1, DEV: 2, TEST: 3}
_ORIGIN = 10_001


def identification(material: Material) -> Plan:
    """The same voices in training and test, other clips; all from one package, as many of each as there are.

    Here the protocol wants the test voices in training, so voices of every split take part.
    """
    pieces, rows = [], []
    for number, (_, dealt) in enumerate(_dealt(material)):
        counts: dict[str, int] = defaultdict(int)
        for split, utterance in dealt:
            place = f"id{_ORIGIN + number}/{split}/{counts[split]:05}.wav"
            counts[split] += 1
            rows.append(f"{_SPLIT_NUMBERS[split]} {place}\n")
            pieces.append(piece(f"{SID_ROOT}/dev/wav/{place}", "SID", split, utterance))
    # VoxCeleb1 has a folder test/wav, which s3prl walks through too.
    return Plan(tuple(pieces), {SID_LIST: "".join(rows), f"{SID_ROOT}/test/wav/.keep": ""})


def identified(material: Material) -> dict[str, str]:
    """Clip -> split of everything that identification uses."""
    return {u.clip.path: split for _, dealt in _dealt(material) for split, u in dealt}


def _dealt(material: Material) -> list[tuple[str, list[tuple[str, Utterance]]]]:
    """Each voice with its clips and the splits that they go to."""
    voices: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in material.of_the_game():
        if utterance.clip.seconds >= SID_SECONDS:
            voices[utterance.clip.voice].append(utterance)
    dealt = []
    for voice, clips in sorted(voices.items()):
        chosen = shuffled(clips, lambda u: u.clip.name, "sid")[:MOST]
        if len(chosen) < LEAST:
            continue
        tests, devs = (round(SHARES[split] * len(chosen)) for split in (TEST, DEV))
        splits = [TEST] * tests + [DEV] * devs + [TRAIN] * (len(chosen) - tests - devs)
        dealt.append((voice, list(zip(splits, chosen, strict=True))))
    return dealt


def verification(material: Material) -> Plan:
    """Trained on the voices of training and validation, tried on pairs of clips of the test voices."""
    pieces: list[Piece] = []
    names: dict[str, str] = {}
    for number, voice in enumerate(sorted(sum(ROLES.values(), ()))):
        test = voice in ROLES[TEST]
        clips = [u for u in material.of_the_game(voices=[voice]) if u.clip.seconds >= ASV_SECONDS]
        chosen = shuffled(clips, lambda u: u.clip.path, "asv")[: ASV_TEST if test else ASV_MOST]
        for index, utterance in enumerate(chosen):
            name = f"id{_ORIGIN + number}/game/{index:05}.wav"
            folder, split = ("test", TEST) if test else ("dev", TRAIN)
            pieces.append(piece(f"{ASV_ROOT}/{folder}/wav/{name}", "ASV", split, utterance))
            if test:
                names[name] = voice
    return Plan(tuple(pieces), {ASV_LIST: "".join(_trials(names))})


def _trials(names: dict[str, str]) -> list[str]:
    """Lines ``1 a b`` of one voice and ``0 a b`` of two, as many of each."""
    pairs = shuffled(combinations(sorted(names), 2), " ".join, "asv")
    same = [pair for pair in pairs if names[pair[0]] == names[pair[1]]]
    other = [pair for pair in pairs if names[pair[0]] != names[pair[1]]]
    count = min(TRIALS, len(same), len(other))
    rows = [f"1 {a} {b}\n" for a, b in same[:count]] + [f"0 {a} {b}\n" for a, b in other[:count]]
    return shuffled(rows, str, "asv")
