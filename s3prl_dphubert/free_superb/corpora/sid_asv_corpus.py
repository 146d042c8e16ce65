"""Speaker identification and verification, in the layout of VoxCeleb1."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from ..layout import CorpusPlan, Piece
from ..utterance import Material, Utterance, shuffled
from ..voices import DEV, ROLES, TEST, TRAIN

SID_ROOT, ASV_ROOT = "VoxCeleb1", "VoxCeleb1_verification"
SID_LIST, ASV_LIST = "VoxCeleb1/veri_test_class.txt", "VoxCeleb1_verification/voxceleb1_test_v2.txt"
LEAST, MOST = 40, 80
"""Clips per voice in identification: a voice with fewer is left out, more are not used."""

SHARES = {TEST: 0.3, DEV: 0.1}
SID_SECONDS = 1.0
ASV_SECONDS = 2.4
"""Least length of a clip; s3prl trains ASV only on clips that last 2 s without silence."""

ASV_MOST, ASV_TEST = 60, 20
"""Most clips of a voice in training, and in the trials."""

TRIALS = 600
"""Pairs of the same voice, and as many of different voices."""

_SPLIT_NUMBERS = {TRAIN: 1, DEV: 2, TEST: 3}
_ORIGIN = 10_001


def identification(material: Material) -> CorpusPlan:
    """Plan identification: voices of every split, since its protocol trains on the test voices.

    The splits share the voices and differ in clips; all clips are of one package.
    """
    pieces, rows = [], []
    for number, dealt in enumerate(_deal(material)):
        counts: dict[str, int] = defaultdict(int)
        for split, utterance in dealt:
            path = f"id{_ORIGIN + number}/{split}/{counts[split]:05}.wav"
            counts[split] += 1
            rows.append(f"{_SPLIT_NUMBERS[split]} {path}\n")
            pieces.append(Piece.of(utterance, f"{SID_ROOT}/dev/wav/{path}", "SID", split))
    # s3prl also walks through VoxCeleb1's folder test/wav.
    return CorpusPlan(tuple(pieces), {SID_LIST: "".join(rows), f"{SID_ROOT}/test/wav/.keep": ""})


def identified(material: Material) -> dict[str, str]:
    """Return clip -> split of everything that identification uses."""
    return {u.clip.path: split for dealt in _deal(material) for split, u in dealt}


def _deal(material: Material) -> list[list[tuple[str, Utterance]]]:
    """Return the clips of each voice with their splits, in the order of the voices."""
    voices: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in material.of_the_game():
        if utterance.clip.seconds >= SID_SECONDS:
            voices[utterance.clip.voice].append(utterance)
    dealt = []
    for _, clips in sorted(voices.items()):
        selected = shuffled(clips, lambda u: u.clip.name, "sid")[:MOST]
        if len(selected) < LEAST:
            continue
        tests, devs = (round(SHARES[split] * len(selected)) for split in (TEST, DEV))
        splits = [TEST] * tests + [DEV] * devs + [TRAIN] * (len(selected) - tests - devs)
        dealt.append(list(zip(splits, selected, strict=True)))
    return dealt


def verification(material: Material) -> CorpusPlan:
    """Plan verification: training on the training and validation voices, trials of pairs of test clips."""
    pieces: list[Piece] = []
    names: dict[str, str] = {}
    for number, voice in enumerate(sorted(sum(ROLES.values(), ()))):
        test = voice in ROLES[TEST]
        clips = [u for u in material.of_the_game(voices=[voice]) if u.clip.seconds >= ASV_SECONDS]
        selected = shuffled(clips, lambda u: u.clip.path, "asv")[: ASV_TEST if test else ASV_MOST]
        for index, utterance in enumerate(selected):
            name = f"id{_ORIGIN + number}/game/{index:05}.wav"
            folder, split = ("test", TEST) if test else ("dev", TRAIN)
            pieces.append(Piece.of(utterance, f"{ASV_ROOT}/{folder}/wav/{name}", "ASV", split))
            if test:
                names[name] = voice
    return CorpusPlan(tuple(pieces), {ASV_LIST: "".join(_trials(names))})


def _trials(names: dict[str, str]) -> list[str]:
    """Return as many lines ``1 a b`` for the same voice as lines ``0 a b`` for different voices."""
    pairs = shuffled(combinations(sorted(names), 2), " ".join, "asv")
    same = [pair for pair in pairs if names[pair[0]] == names[pair[1]]]
    different = [pair for pair in pairs if names[pair[0]] != names[pair[1]]]
    count = min(TRIALS, len(same), len(different))
    rows = [f"1 {a} {b}\n" for a, b in same[:count]] + [f"0 {a} {b}\n" for a, b in different[:count]]
    return shuffled(rows, str, "asv")
