"""The effects by name, each read from its arguments before any audio is touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import soxr

from ..errors import ConfigError
from .arguments import NUMBER, Duration, Fault, decibels, duration, whole
from .signal import FULL_SCALE, LARGEST, Signal, to_samples
from .silence import Silence

Effect = Callable[[Signal], Signal]
RATES = range(1, 1_000_001)  # Hz
QUALITIES = {"-q": "QQ", "-l": "LQ", "-m": "MQ", "-h": "HQ", "-v": "VHQ"}


def parse(effects: Sequence[Sequence[str]]) -> list[Effect]:
    """Effects that can be applied one after the other.

    Raises:
        ConfigError: some are unknown or wrongly called; every one is named.
    """
    if isinstance(effects, str) or not isinstance(effects, Sequence):
        raise ConfigError(f"effects: is {effects!r}, allowed: a list of lists of strings")
    chain: list[Effect] = []
    faults = []
    for place, effect in enumerate(effects, 1):
        try:
            chain.append(_parse(effect))
        except Fault as fault:
            faults.append(f"{place}. {fault}")
    ConfigError.raise_for("effects", faults)
    return chain


def _parse(effect: Sequence[str]) -> Effect:
    if not effect or not isinstance(effect, list | tuple) or not all(isinstance(it, str) for it in effect):
        raise Fault(f"effect is {effect!r}, allowed: a list of strings, a name and its arguments")
    name, *arguments = effect
    if name not in PARSERS:
        raise Fault(f"effect is {name!r}, allowed: {', '.join(sorted(PARSERS))}")
    try:
        return PARSERS[name](arguments)
    except Fault as fault:
        raise Fault(f"{name}: {fault}") from None


def _one(arguments: list[str], what: str) -> str:
    if len(arguments) != 1:
        raise Fault(f"arguments are {' '.join(arguments)!r}, allowed: {what}")
    return arguments[0]


def _parse_channels(arguments: list[str]) -> Effect:
    return partial(mix, channels=whole(_one(arguments, "one number"), "channels", least=1))


def mix(signal: Signal, channels: int) -> Signal:
    """Take C channels to ``channels``: output i is the mean of the inputs i, i + channels, …; or repeat."""
    given = signal.samples
    if channels >= len(given):
        return signal.like(given[np.arange(channels) % len(given)])
    groups = [given[first::channels] for first in range(channels)]
    return signal.like(np.stack([(group * (1 / len(group))).sum(axis=0) for group in groups]))


def _parse_rate(arguments: list[str]) -> Effect:
    quality = QUALITIES.get(arguments[0]) if arguments else None
    text = _one(arguments[1:] if quality else arguments, f"[{'|'.join(QUALITIES)}] and one rate")
    plain = text.removesuffix("k")
    hertz = float(plain) * (1 if plain == text else 1000) if NUMBER.fullmatch(plain) else 0.0
    if not hertz.is_integer() or int(hertz) not in RATES:
        raise Fault(f"rate is {text!r}, allowed: whole Hz, as 16000 or 16k, up to {RATES[-1]}")
    return partial(resample, rate=int(hertz), quality=quality or "HQ")


def resample(signal: Signal, rate: int, quality: str = "HQ") -> Signal:
    """Resample to ``rate`` Hz; the default quality is SoX's default."""
    if rate == signal.rate:
        return signal
    values = soxr.resample(signal.samples.T.astype(np.float64), signal.rate, rate, quality=quality)
    return Signal(to_samples(values.T), rate)


def _parse_gain(arguments: list[str]) -> Effect:
    normalise = arguments[:1] == ["-n"]
    left = arguments[1:] if normalise else arguments
    if len(left) > 1 or any(part[:1] == "-" and part[1:2].isalpha() for part in left):
        raise Fault(f"arguments are {' '.join(arguments)!r}, allowed: [-n] [dB]")
    return partial(amplify, gain=decibels(left[0], "gain") if left else 0.0, normalise=normalise)


def _parse_norm(arguments: list[str]) -> Effect:
    if len(arguments) > 1:
        raise Fault(f"arguments are {' '.join(arguments)!r}, allowed: [dB]")
    return partial(amplify, gain=decibels(arguments[0], "level") if arguments else 0.0, normalise=True)


def amplify(signal: Signal, gain: float, normalise: bool = False) -> Signal:
    """Multiply by a gain in dB, of the audio as it is or of its peak brought to full scale."""
    factor = math.exp(gain * math.log(10) * 0.05)
    if normalise and signal.samples.any():
        above, below = int(signal.samples.max()), int(signal.samples.min())
        factor /= max(above / LARGEST, below / -FULL_SCALE)
    return signal if factor == 1 else signal.like(signal.samples * factor)


def _parse_reverse(arguments: list[str]) -> Effect:
    if arguments:
        raise Fault(f"arguments are {' '.join(arguments)!r}, allowed: none")
    return lambda signal: signal.like(signal.samples[:, ::-1])


def _durations(arguments: list[str], what: str) -> list[Duration]:
    if not 1 <= len(arguments) <= 2:
        raise Fault(f"arguments are {' '.join(arguments)!r}, allowed: {what}")
    return [duration(text, "length") for text in arguments]


def _parse_pad(arguments: list[str]) -> Effect:
    return partial(pad, lengths=_durations(arguments, "length before [length after]"))


def pad(signal: Signal, lengths: list[Duration]) -> Signal:
    """Add zeros before and, if there are two lengths, after."""
    before, after = (*(length.samples(signal.rate) for length in lengths), 0)[:2]
    return signal.like(np.pad(signal.samples, ((0, 0), (before, after))))


def _parse_trim(arguments: list[str]) -> Effect:
    return partial(trim, lengths=_durations(arguments, "start [length]"))


def trim(signal: Signal, lengths: list[Duration]) -> Signal:
    """Drop the first length, and, if there are two, what comes after the second."""
    start, *length = (length.samples(signal.rate) for length in lengths)
    return signal.like(signal.samples[:, start : start + length[0] if length else None])


PARSERS: dict[str, Callable[[list[str]], Effect]] = {
    "channels": _parse_channels,
    "gain": _parse_gain,
    "norm": _parse_norm,
    "pad": _parse_pad,
    "rate": _parse_rate,
    "reverse": _parse_reverse,
    "silence": Silence.parse,
    "trim": _parse_trim,
}
