"""The voices of each split, recorded and synthetic; a voice is for training, validation or testing only.

Those of :data:`HELD_OUT` are for the tasks alone: no upstream may have heard them, with labels or without.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .sources.espeak import Voice

TRAIN, DEV, TEST = "train", "dev", "test"
SPLITS = (TRAIN, DEV, TEST)

OPERATOR = "allison"
"""Speaker of Asterisk's English and Spanish prompts."""

ROLES: dict[str, tuple[str, ...]] = {
    TRAIN: (
        *("and", "ape", "bob", "chef", "dog", "frank", "joe", "john", "klunk", "laris", "lola"),
        *("man", "showeram", "sparky", "tam", "wedge", "witch", OPERATOR),
    ),
    DEV: ("death", "lou", "oracle", "prin", "zombie"),
    TEST: ("bud", "chief", "faye", "henry", "ian", "jim", "naomi", "sec"),
}
"""Named voices of the game, and the operator. Cut scenes do not identify their speakers and are left out."""

HELD_OUT = (*ROLES[DEV], *ROLES[TEST])
"""Voices that neither pre-training nor compression may hear."""

ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
VARIANTS: dict[str, tuple[str, ...]] = {
    TRAIN: ("m1", "m2", "m3", "f1", "f2", "f3", "Andy", "Annie", "Gene", "Lee", "Mario", "steph"),
    DEV: ("m6", "f5", "Michael"),
    TEST: ("m7", "m8", "f4", "belinda", "Alex", "paul"),
}
"""Synthetic voices, as variants of eSpeak NG. One formant synthesiser produces all of them, so they differ
far less than people do."""


def split_of(voice: str) -> str:
    """Return ``train``, ``dev`` or ``test``, for the tasks in which a recorded voice is in one split only.

    Raises:
        DataError: the voice is not part of the benchmark.
    """
    for split, voices in ROLES.items():
        if voice in voices:
            return split
    names = ", ".join(sorted(name for voices in ROLES.values() for name in voices))
    raise DataError(f"voice is {voice!r}, allowed: {names}")


def synthetic_voices(split: str) -> list[str]:
    """Return accent and variant of each synthetic voice of a split, as eSpeak NG names them."""
    ordered = [variant for each in SPLITS for variant in VARIANTS[each]]
    return [f"{ACCENTS[ordered.index(variant) % len(ACCENTS)]}+{variant}" for variant in VARIANTS[split]]


def varied(name: str, random: np.random.Generator) -> Voice:
    """Return a synthetic voice with random rate, pitch and loudness."""
    return Voice(
        name,
        rate=int(random.integers(135, 200)),
        pitch=int(random.integers(38, 63)),
        range=int(random.integers(35, 70)),
        volume=int(random.integers(60, 110)),
    )
