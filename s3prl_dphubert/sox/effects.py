"""SoX's effects by name; their arguments are parsed before any audio is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import soxr

from ..errors import ConfigError
from .arguments import NUMBER, Duration, EffectError, decibels, duration, integer
from .signal import FULL_SCALE, LARGEST, Signal, to_samples
from .silence import Silence

Effect = Callable[[Signal], Signal]
RATES = range(1, 1_000_001)  # Hz
QUALITIES = {"-q": "QQ", "-l": "LQ", "-m": "MQ", "-h": "HQ", "-v": "VHQ"}


def parse(effects: Sequence[Sequence[str]]) -> list[Effect]:
    """Parse a chain of effects.

    Args:
        effects: each a name and its arguments, as ``[["gain", "-3.0"], ["reverse"]]``.

    Returns:
        Functions to apply one after another.

    Raises:
        ConfigError: an effect or an argument is unknown; the message lists all of them.
    """
    if isinstance(effects, str) or not isinstance(effects, Sequence):
        raise ConfigError(f"effects is {effects!r}, allowed: a list of lists of strings")
    chain: list[Effect] = []
    faults = []
    for number, effect in enumerate(effects, 1):
        try:
            chain.append(_parse(effect))
        except EffectError as error:
            faults.append(f"{number}. {error}")
    ConfigError.raise_for("effects", faults)
    return chain


def _parse(effect: Sequence[str]) -> Effect:
    if (
        not isinstance(effect, list | tuple)
        or not effect
        or not all(isinstance(text, str) for text in effect)
    ):
        raise EffectError(f"effect is {effect!r}, allowed: a list of strings, a name and its arguments")
    name, *arguments = effect
    if name not in PARSERS:
        raise EffectError(f"unknown effect {name!r}, available: {', '.join(sorted(PARSERS))}")
    try:
        return PARSERS[name](arguments)
    except EffectError as error:
        raise EffectError(f"{name}: {error}") from None


def _check_count(arguments: list[str], least: int, most: int, allowed: str) -> None:
    if not least <= len(arguments) <= most:
        raise EffectError(f"arguments are {' '.join(arguments)!r}, allowed: {allowed}")


def _parse_channels(arguments: list[str]) -> Effect:
    _check_count(arguments, 1, 1, "one number")
    return partial(mix, channels=integer(arguments[0], "channels", least=1))


def mix(signal: Signal, channels: int) -> Signal:
    """Change the number of channels.

    Output i is the mean of the inputs i, i + channels, …; further outputs repeat the inputs.
    """
    samples = signal.samples
    if channels >= len(samples):
        return signal.like(samples[np.arange(channels) % len(samples)])
    groups = [samples[first::channels] for first in range(channels)]
    return signal.like(np.stack([(group * (1 / len(group))).sum(axis=0) for group in groups]))


def _parse_rate(arguments: list[str]) -> Effect:
    quality = QUALITIES.get(arguments[0]) if arguments else None
    rates = arguments[1:] if quality else arguments
    _check_count(rates, 1, 1, f"[{'|'.join(QUALITIES)}] and one rate")
    text = rates[0]
    plain = text.removesuffix("k")
    hertz = float(plain) * (1 if plain == text else 1000) if NUMBER.fullmatch(plain) else 0.0
    if not hertz.is_integer() or int(hertz) not in RATES:
        raise EffectError(f"rate is {text!r}, allowed: whole Hz, as 16000 or 16k, up to {RATES[-1]}")
    return partial(resample, rate=int(hertz), quality=quality or "HQ")


def resample(signal: Signal, rate: int, quality: str = "HQ") -> Signal:
    """Resample to ``rate`` Hz, by default in SoX's default quality."""
    if rate == signal.rate:
        return signal
    values = soxr.resample(signal.samples.T.astype(np.float64), signal.rate, rate, quality=quality)
    return Signal(to_samples(values.T), rate)


def _parse_gain(arguments: list[str]) -> Effect:
    normalise = arguments[:1] == ["-n"]
    gains = arguments[1:] if normalise else arguments
    if len(gains) > 1 or any(text[:1] == "-" and text[1:2].isalpha() for text in gains):
        raise EffectError(f"arguments are {' '.join(arguments)!r}, allowed: [-n] [dB]")
    return partial(amplify, gain=decibels(gains[0], "gain") if gains else 0.0, normalise=normalise)


def _parse_norm(arguments: list[str]) -> Effect:
    _check_count(arguments, 0, 1, "[dB]")
    return partial(amplify, gain=decibels(arguments[0], "level") if arguments else 0.0, normalise=True)


def amplify(signal: Signal, gain: float, normalise: bool = False) -> Signal:
    """Multiply by a gain in dB, after bringing the peak to full scale if ``normalise``."""
    factor = math.exp(gain * math.log(10) * 0.05)
    if normalise and signal.samples.any():
        above, below = int(signal.samples.max()), int(signal.samples.min())
        factor /= max(above / LARGEST, below / -FULL_SCALE)
    return signal if factor == 1 else signal.like(signal.samples * factor)


def _parse_reverse(arguments: list[str]) -> Effect:
    _check_count(arguments, 0, 0, "none")
    return lambda signal: signal.like(signal.samples[:, ::-1])


def _parse_pad(arguments: list[str]) -> Effect:
    _check_count(arguments, 1, 2, "length before [length after]")
    return partial(pad, lengths=[duration(text, "length") for text in arguments])


def pad(signal: Signal, lengths: list[Duration]) -> Signal:
    """Add zeros of the first length before the audio, and of the second, if there is one, after it."""
    samples = [length.samples(signal.rate) for length in lengths]
    after = samples[1] if len(samples) > 1 else 0
    return signal.like(np.pad(signal.samples, ((0, 0), (samples[0], after))))


def _parse_trim(arguments: list[str]) -> Effect:
    _check_count(arguments, 1, 2, "start [length]")
    return partial(trim, lengths=[duration(text, "length") for text in arguments])


def trim(signal: Signal, lengths: list[Duration]) -> Signal:
    """Cut to what follows the first length, and, if there is a second, to that length of it."""
    samples = [length.samples(signal.rate) for length in lengths]
    start, end = samples[0], sum(samples) if len(samples) > 1 else None
    return signal.like(signal.samples[:, start:end])


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
