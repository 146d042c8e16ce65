"""The words of a text, as they are recognised: capital letters and apostrophes."""

from __future__ import annotations

import re

_DIRECTIONS = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)")
_SEPARATORS = re.compile(r"[\s\-.,;:!?\"“”…/*~_]+")
_WORD = re.compile(r"[A-Z]+(?:'[A-Z]+)*")


def normalise(text: str) -> tuple[str, ...]:
    """Words of a text without stage directions; none at all if it holds digits or other signs."""
    plain = _DIRECTIONS.sub(" ", text).replace("’", "'").upper()
    words = [word.strip("'") for word in _SEPARATORS.split(plain)]
    words = [word for word in words if word]
    return tuple(words) if all(_WORD.fullmatch(word) for word in words) else ()
