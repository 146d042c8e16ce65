"""Who may be heard where: each voice is for training, for validation or for testing, in every task."""

from __future__ import annotations

from ..errors import DataError

TRAIN, DEV, TEST = "train", "dev", "test"
SPLITS = (TRAIN, DEV, TEST)

UNHEARD = ("chief", "faye", "henry", "naomi")
"""Characters whom ``hubert_nano`` was not pre-trained on. It heard the other test voices, unlabelled."""

OPERATOR = "allison"
"""Who speaks the English and the Spanish prompts of Asterisk: the test voice out of domain."""

ROLES: dict[str, tuple[str, ...]] = {
    TRAIN: (
        *("and", "ape", "bob", "chef", "dog", "frank", "joe", "john", "klunk", "laris", "lola"),
        *("man", "showeram", "sparky", "tam", "wedge", "witch"),
    ),
    DEV: ("death", "lou", "oracle", "prin", "zombie"),
    TEST: (*UNHEARD, "bud", "ian", "jim", "sec"),
}
"""The voices of the game that have a name. Cut scenes do not tell who speaks and are left out."""


def split_of(voice: str) -> str:
    """``train``, ``dev`` or ``test``, for every task in which a voice may be in one of them only.

    Raises:
        DataError: the voice has no part in the benchmark.
    """
    if voice == OPERATOR:
        return TEST
    for split, voices in ROLES.items():
        if voice in voices:
            return split
    names = ", ".join(sorted(name for voices in ROLES.values() for name in voices))
    raise DataError(f"voice is {voice!r}, allowed: {names}, {OPERATOR}")
