"""Speaker identification and verification, in the layout of VoxCeleb1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from ..layout import CorpusPlan, Piece
from ..utterance import Material, Utterance, shuffled
from ..voices import DEV, HELD_OUT, ROLES, TEST, TRAIN

SID_ROOT, ASV_ROOT = "VoxCeleb1", "VoxCeleb1_verification"
SID_LIST, ASV_LIST = "VoxCeleb1/veri_test_class.txt", "VoxCeleb1_verification/voxceleb1_test_v2.txt"
SHARES = {TEST: 0.5, DEV: 0.1}
"""Shares of a voice's clips in identification."""

SID_SECONDS = 1.0
ASV_SECONDS = 2.4
"""Least length of a clip; s3prl trains ASV only on clips that last 2 s without silence."""

ASV_MOST, ASV_TEST = 120, 40
"""Most clips of a voice in training, and in the trials."""

_SPLIT_NUMBERS = {TRAIN: 1, DEV: 2, TEST: 3}
_ORIGIN = 10_001


def identification(material: Material) -> CorpusPlan:
    """Plan identification of the voices that no upstream has heard; its protocol trains on the test voices.

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


def _deal(material: Material) -> list[list[tuple[str, Utterance]]]:
    """Return the clips of each voice with their splits, in the order of the voices."""
    voices: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in material.of_the_game(voices=HELD_OUT):
        if utterance.clip.seconds >= SID_SECONDS:
            voices[utterance.clip.voice].append(utterance)
    dealt = []
    for _, clips in sorted(voices.items()):
        selected = shuffled(clips, lambda u: u.clip.name, "sid")
        tests, devs = (round(SHARES[split] * len(selected)) for split in (TEST, DEV))
        splits = [TEST] * tests + [DEV] * devs + [TRAIN] * (len(selected) - tests - devs)
        dealt.append(list(zip(splits, selected, strict=True)))
    return dealt


def verification(material: Material) -> CorpusPlan:
    """Plan verification: training on the training voices, trials of all pairs of clips of held-out ones."""
    pieces: list[Piece] = []
    names: dict[str, str] = {}
    for number, voice in enumerate(sorted(sum(ROLES.values(), ()))):
        test = voice in HELD_OUT
        clips = [u for u in material.of_the_game(voices=[voice]) if u.clip.seconds >= ASV_SECONDS]
        selected = shuffled(clips, lambda u: u.clip.path, "asv")[: ASV_TEST if test else ASV_MOST]
        for index, utterance in enumerate(selected):
            name = f"id{_ORIGIN + number}/game/{index:05}.wav"
            folder, split = ("test", TEST) if test else ("dev", TRAIN)
            pieces.append(Piece.of(utterance, f"{ASV_ROOT}/{folder}/wav/{name}", "ASV", split))
            if test:
                names[name] = voice
    return CorpusPlan(tuple(pieces), {ASV_LIST: "".join(_trials(names))})


def _trials(names: dict[str, str]) -> Iterator[str]:
    """Yield a line ``1 a b`` for each pair of the same voice, ``0 a b`` for each of different voices."""
    for a, b in combinations(sorted(names), 2):
        yield f"{int(names[a] == names[b])} {a} {b}\n"
