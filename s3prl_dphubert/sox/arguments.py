"""Arguments of effects: numbers, durations and thresholds in SoX's notation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .signal import LARGEST

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
SAMPLES = re.compile(r"\d+(e\d+)?", re.IGNORECASE)
TIME = re.compile(r"(?:(?:(\d*):)?(\d*):)?(\d+|\d*\.\d+)")  # hours, minutes, seconds


class EffectError(ValueError):
    """An effect or one of its arguments is invalid; the message says what was given and what is allowed."""


def decibels(text: str, what: str) -> float:
    """Parse a gain or a level in dB, from -1000 to 1000."""
    if not NUMBER.fullmatch(text) or abs(float(text)) > 1000:
        raise EffectError(f"{what} is {text!r}, allowed: a number from -1000 to 1000")
    return float(text)


def integer(text: str, what: str, least: int | None = None) -> int:
    """Parse a whole number, ``least`` or larger."""
    if not re.fullmatch(r"[+-]?\d+", text) or (least is not None and int(text) < least):
        bound = "" if least is None else f", {least} or larger"
        raise EffectError(f"{what} is {text!r}, allowed: a whole number{bound}")
    return int(text)


@dataclass(frozen=True)
class Duration:
    """Length of audio in seconds, or in samples at the rate that the audio has when the effect is applied."""

    value: float
    in_seconds: bool

    def samples(self, rate: int) -> int:
        """Return the nearest number of samples at ``rate`` Hz."""
        return math.floor(self.value * rate + 0.5) if self.in_seconds else int(self.value)


def duration(text: str, what: str, bare_is_samples: bool = False) -> Duration:
    """Parse ``0.1``, ``1:30.5`` or ``2t`` (seconds) or ``1600s`` (samples); ``2`` depends on the effect."""
    plain = text.removesuffix("s") if text.endswith("s") or bare_is_samples else ""
    if SAMPLES.fullmatch(plain):
        return Duration(float(plain), in_seconds=False)
    parts = TIME.fullmatch(text.removesuffix("t"))
    if not parts:
        raise EffectError(f"{what} is {text!r}, allowed: seconds as 0.1, 1:30.5 or 2t, or samples as 1600s")
    hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return Duration(hours * 3600 + minutes * 60 + seconds, in_seconds=True)


@dataclass(frozen=True)
class Threshold:
    """Level that sound must exceed, as a share of full scale."""

    share: float

    @property
    def least(self) -> int:
        """Smallest 32-bit level above the threshold."""
        return math.floor(self.share * LARGEST) + 1


def threshold(text: str, what: str) -> Threshold:
    """Parse ``0.1%`` or ``0.1`` (both per cent of full scale) or ``-60d`` (dB)."""
    for unit in ("%", "dB", "db", "d", ""):
        plain = text.removesuffix(unit)
        if text.endswith(unit) and NUMBER.fullmatch(plain):
            value = float(plain)
            if unit.startswith("d") and value < 0:
                return Threshold(10 ** (value / 20))
            if not unit.startswith("d") and 0 <= value <= 100:
                return Threshold(value / 100)
    raise EffectError(f"{what} is {text!r}, allowed: 0% to 100%, or below 0d (dB)")
