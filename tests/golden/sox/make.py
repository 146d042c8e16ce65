"""Outputs of SoX for known signals: run by hand where ``sox`` 14.4.2 is installed; tests only read it.

    python tests/golden/sox/make.py

Signals go to SoX as wav of 32 bits and come back so, without dither: SoX's own samples.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

HERE = Path(__file__).parent
ANSWERS = HERE / "answers.npz"
PASSBAND = (8_000, 11_025, 22_050, 44_100, 48_000)  # Hz, each taken to 16 kHz
LENGTHS = (1, 2, 3, 99, 1_000, 7_777, 12_345)  # samples whose length at 16 kHz is asked for


def _noise(seed: int, *levels: float, channels: int = 1, each: int = 100, step: int = 2**16) -> np.ndarray:
    """Uniform noise int32 (C, T), ``each`` frames a level (parts of full scale), in multiples of step."""
    random = np.random.RandomState(seed)  # whose stream never changes
    noise = random.randint(-(2**15), 2**15, (channels, each * len(levels))) / 2**15
    scaled = noise * np.repeat(levels, each) * (2**31 - step)
    return (np.trunc(scaled / step) * step).astype(np.int32)


def _tones(rate: int) -> np.ndarray:
    """Sines up to 85 % of the band that both ``rate`` and 16 kHz have, 0.06 s, faded in and out."""
    time = np.arange(int(0.06 * rate)) / rate
    edge = 0.85 * min(rate, 16_000) / 2
    tones = sum(np.sin(2 * np.pi * edge * part * time + 7 * part) for part in (0.03, 0.2, 0.41, 0.63, 0.8, 1))
    return np.round(0.12 * np.hanning(len(time)) * tones * 2**31).astype(np.int32)[None]


def _signals() -> dict[str, tuple[int, np.ndarray]]:
    """Name -> rate in Hz, int32 samples (C, T)."""
    speech, rate = soundfile.read(HERE / "speech.flac", dtype="int32", always_2d=True)
    stereo = _noise(2, 0.3, 0, 0.3, 0, 0, 0.3, channels=2)
    stereo[0, 200:300] = stereo[1, :100] = 0
    ends = np.array([2**31 - 1, -(2**31), 2**30, -(2**30), 1, -1, 0, 64, 127, 128, 129, 2**31 - 64])
    signals = {
        "speech": (rate, speech.T),
        "bursts": (1_000, _noise(1, 0, 0, 0.3, 0.0005, 0, 0.2, 0.002, 0.3, 0, 0)),
        "levels": (1_000, _noise(5, 1e-4, 1e-3, 1e-2, 0.1, 1e-2, 1e-3, 1e-4, step=1)),
        "stereo": (1_000, stereo),
        "three": (11_025, _noise(3, 0, 0.3, 0, 0.3, 0, channels=3, each=150)),
        "zeros": (1_000, np.zeros((1, 500), np.int32)),
        "short": (1_000, _noise(4, 0.3, each=30)),
        "long": (1_000, np.repeat(np.array([[0, 9, 0, 9, 0, 0, 9, 0]], np.int32) << 24, 1_100, axis=1)),
        "quiet": (1_000, _noise(6, 0.01, step=1)),
        "loud": (1_000, np.concatenate([_noise(7, 1, channels=5, step=1), np.tile(ends, (5, 1))], axis=1)),
    }
    for rate in PASSBAND:
        signals[f"tones{rate}"] = (rate, _tones(rate))
    return {name: (rate, samples.astype(np.int32)) for name, (rate, samples) in signals.items()}


SIGNALS = _signals()
S3PRL = {
    "keywords": "channels 1, rate 16000, gain -3.0",
    "speakers": "channels 1, rate 16000, gain -3.0, silence 1 0.1 0.1% -1 0.1 0.1%",
    "queries": "channels 1, rate 16000, norm",
}
# (signal, effects with commas between them); every answer is exact but those of rate.
CASES = [
    ("speech", S3PRL["speakers"]),
    ("speech", f"trim 0.4 0.05, {S3PRL['keywords']}"),
    ("speech", f"trim 0.4 0.05, {S3PRL['queries']}"),
    ("speech", "reverse, silence 1 0.05 -50d 1 0.05 -50d"),
]
CASES += [
    ("bursts", f"silence {arguments}")
    for arguments in (
        "0",
        "1 0.01 0.1%",
        "1 0.01 1%",
        "1 0 0%",
        "1 0.1t -50d",
        "1 1 1%",
        "2 0.03 1%",
        "3 50 1%",
        "9 0.1 1%",
        "0 1 0.1 1%",
        "0 2 0.1 1%",
        "0 1 250s 0.1",
        "0 1 5 1%",
        "1 0.01 1% 1 0.1 1%",
        "1 0.01 1% 3 0.02 1%",
        "1 0.01 0.1% -1 0.05 0.1%",
        "1 0.01 0.1% -2 0.05 0.1%",
        "2 0.05 0.1% -1 0:00.07 1%",
        "0 -1 0.05 1%",
        "0 -1 0 0%",
        "1 0.1 100%",
    )
]
CASES += [
    ("levels", "silence 1 0.05 0.1% -1 0.05 -45dB"),
    ("levels", "silence 1 7s 0% 1 0.03 0.05%"),
    ("stereo", "silence 1 0.01 1% -1 0.05 1%"),
    ("stereo", "silence 0 1 0.02 1%"),
    ("stereo", "silence 1 2 1% -1 1 1%"),
    ("stereo", "channels 1, silence 1 0.01 1% -1 0.05 1%"),
    ("three", "silence 1 0.002 1% -1 0.01 1%"),
    ("three", "channels 2, gain -1.5, silence 1 0.002 1% 1 0.01 1%"),
    ("zeros", "silence 1 0.1 0.1%"),
    ("zeros", "silence 0 -1 0.1 0.1%"),
    ("zeros", "norm -3, pad 0.1 0.1"),
    ("short", "silence 1 0.1 1%"),
    ("short", "silence 0 1 0.1 1%"),
    ("long", "silence 1 0.9 1% -1 1.5 1%"),
    ("long", "silence 2 1 1%"),
    ("long", "silence 0 1 2.1 1%"),
    ("quiet", "norm"),
    ("quiet", "norm -0.1"),
    ("quiet", "gain -n -3"),
    ("quiet", "gain +6, reverse"),
    ("loud", "gain 0"),
    ("loud", "gain -6.5"),
    ("loud", "gain 6"),
    ("loud", "gain -3, gain 3.0"),
    ("loud", "norm 1"),
    ("loud", "channels 1"),
    ("loud", "channels 2"),
    ("loud", "channels 3"),
    ("loud", "channels 7"),
    ("bursts", "trim 0.2 0.35, pad 0.03 7s"),
    ("bursts", "trim 0.95"),
    ("bursts", "trim 0.1 2, pad 0.0125"),
]
RATES = [(f"tones{rate}", "rate 16000") for rate in PASSBAND]
RATES += [("tones8000", f"rate {quality} 16k") for quality in ("-q", "-l", "-m", "-v")]


def split(effects: str) -> list[list[str]]:
    """Effects as torchaudio takes them."""
    return [effect.split() for effect in effects.split(",")]


def ask(rate: int, samples: np.ndarray, effects: str) -> np.ndarray:
    """What SoX answers, int32 (C, T)."""
    with TemporaryDirectory() as folder:
        given, taken = Path(folder, "given.wav"), Path(folder, "taken.wav")
        soundfile.write(given, samples.T, rate, subtype="PCM_32")
        whole = ["sox", "-D", str(given), "-b", "32", "-e", "signed-integer", str(taken)]
        subprocess.run(whole + effects.replace(",", "").split(), check=True)
        return soundfile.read(taken, dtype="int32", always_2d=True)[0].T


def main() -> None:
    """Ask SoX everything and write the answers."""
    answers = {f"{name}: {effects}": ask(*SIGNALS[name], effects) for name, effects in CASES}
    for name, effects in RATES:
        answers[f"{name}: {effects}"] = (ask(*SIGNALS[name], effects) >> 16).astype(np.int16)
    for rate in PASSBAND:
        asked = [ask(rate, np.zeros((1, length), np.int32), "rate 16000").shape[1] for length in LENGTHS]
        answers[f"lengths {rate}"] = np.array(asked)
    np.savez_compressed(ANSWERS, **answers)


if __name__ == "__main__":
    main()
