"""Enhancement and separation: noise added to real speech, two real voices added to each other."""

from __future__ import annotations

from functools import partial

import numpy as np

from ...constants import SAMPLE_RATE
from ..layout import Piece, Plan
from ..utterance import Material, Utterance, generator, shuffled
from ..voices import DEV, TEST, TRAIN
from .conversations import Conversation, converse

NOISY_ROOT, MIXED_ROOT = "VoiceBank-DEMAND", "Libri2Mix"
NOISY = {TRAIN: 300, DEV: 30, TEST: 60}
MIXED = {TRAIN: 200, DEV: 30, TEST: 60}
SECONDS = (1.5, 6.0)
RATIOS = {TRAIN: (0.0, 15.0), DEV: (2.5, 17.5), TEST: (2.5, 17.5)}
"""Of speech and noise in dB, from and to."""

BABBLE = 5
"""Voices of a babble; training voices in every split, so that a test voice is heard in tests only."""

_SETS = {TRAIN: "trainset_28spk", DEV: "trainset_28spk", TEST: "testset"}
_PREFIX = {TRAIN: "p001", DEV: "p226", TEST: "p232"}  # VoiceBank's p226 is what SUPERB-SG develops on
_PARTS = {TRAIN: "train-100", DEV: "dev", TEST: "test"}


def enhancement(material: Material) -> Plan:
    """Utterances with hiss, hum or babble added, and as they were; VoiceBank-DEMAND's folders at 16 kHz."""
    pieces: list[Piece] = []
    crowd = [u for u in material.of_the_game(TRAIN) if u.words]
    for split, count in NOISY.items():
        for number, utterance in enumerate(_some(material, split, count, "se")):
            name = f"{_PREFIX[split]}_{number:03}.wav"
            others = shuffled(crowd, lambda u: u.clip.path, f"se/{name}")[:BABBLE]
            mixed = partial(_noisy, utterance, tuple(others), split, name)
            used, babble = (utterance.clip.voice,), number % len(_NOISES) == len(_NOISES) - 1
            clips = (utterance.clip.path, *((u.clip.path for u in others) if babble else ()))
            for kind, render, from_ in (("noisy", mixed, clips), ("clean", utterance.audio, clips[:1])):
                path = f"{NOISY_ROOT}/{kind}_{_SETS[split]}_wav_16k/{name}"
                pieces.append(Piece(path, "SE", split, used, render, tuple(from_), kind))
    return Plan(tuple(pieces), {})


def separation(material: Material) -> Plan:
    """Two voices at once, cut to the shorter one, and each alone; Libri2Mix's folders."""
    pieces: list[Piece] = []
    for split, count in MIXED.items():
        said = material.unheard_in_tests(split)
        for talk in converse(said, count, 1, (60.0, 60.0), f"ss-{split}"):
            folder = f"{MIXED_ROOT}/wav16k/min/{_PARTS[split]}"
            for kind, voice in (("mix_clean", None), ("s1", talk.voices[0]), ("s2", talk.voices[1])):
                path, render = f"{folder}/{kind}/{talk.name}.wav", partial(_together, talk, voice)
                pieces.append(Piece(path, "SS", split, talk.voices, render, talk.clips, kind))
    return Plan(tuple(pieces), {})


def _some(material: Material, split: str, count: int, purpose: str) -> list[Utterance]:
    low, high = SECONDS
    said = material.unheard_in_tests(split)
    fitting = [u for u in said if u.words and low <= u.clip.seconds <= high]
    return shuffled(fitting, lambda u: u.clip.path, purpose)[:count]


def _together(talk: Conversation, voice: str | None) -> np.ndarray:
    """A mixture or one voice of it, as long as the shorter turn (T,)."""
    return talk.render(voice)[: min(turn.utterance.clip.samples for turn in talk.turns)]


def _hiss(random: np.random.Generator, samples: int, others: tuple[Utterance, ...]) -> np.ndarray:
    return random.standard_normal(samples)


def _hum(random: np.random.Generator, samples: int, others: tuple[Utterance, ...]) -> np.ndarray:
    """Noise that falls by 6 dB an octave, with a tone of the mains in it."""
    noise = np.cumsum(random.standard_normal(samples))
    noise -= np.linspace(noise[0], noise[-1], samples)
    tone = np.sin(2 * np.pi * random.choice([50, 60]) * np.arange(samples) / SAMPLE_RATE)
    return noise / (np.std(noise) or 1.0) + 0.3 * tone


def _babble(random: np.random.Generator, samples: int, others: tuple[Utterance, ...]) -> np.ndarray:
    whole = np.zeros(samples)
    for utterance in others:
        whole += np.resize(np.roll(utterance.audio(), int(random.integers(SAMPLE_RATE))), samples)
    return whole


_NOISES = (_hiss, _hum, _babble)


def _noisy(utterance: Utterance, others: tuple[Utterance, ...], split: str, name: str) -> np.ndarray:
    """An utterance with noise at a ratio that its name gives (T,)."""
    random, clean = generator("se", name), utterance.audio()
    made = _NOISES[int(name[-7:-4]) % len(_NOISES)](random, len(clean), others)
    ratio = random.uniform(*RATIOS[split])
    power = float(np.mean(clean**2)) / (float(np.mean(made**2)) or 1.0)
    return (clean + made * np.sqrt(power * 10 ** (-ratio / 10))).astype(np.float32)
