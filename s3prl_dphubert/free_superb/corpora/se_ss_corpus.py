"""Enhancement and separation: real speech with added noise, and sums of two real voices."""

from __future__ import annotations

from functools import partial

import numpy as np

from ...constants import SAMPLE_RATE
from ..layout import CorpusPlan, Piece
from ..utterance import Material, Utterance, generator, shuffled
from ..voices import DEV, TEST, TRAIN
from .conversations import Conversation, converse

NOISY_ROOT, MIXED_ROOT = "VoiceBank-DEMAND", "Libri2Mix"
NOISY = {TRAIN: 300, DEV: 30, TEST: 120}
MIXED = {TRAIN: 200, DEV: 30, TEST: 112}
SECONDS, MIXED_SECONDS = (1.5, 6.0), (1.0, 6.0)
RATIOS = {TRAIN: (0.0, 15.0), DEV: (2.5, 17.5), TEST: (2.5, 17.5)}
"""Ranges of the signal-to-noise ratio in dB."""

BABBLE = 5
"""Utterances in a babble; of training voices in every split, so that test voices occur in tests only."""

_SETS = {TRAIN: "trainset_28spk", DEV: "trainset_28spk", TEST: "testset"}
_PREFIX = {TRAIN: "p001", DEV: "p226", TEST: "p232"}  # SUPERB-SG validates on p226 of VoiceBank
_PARTS = {TRAIN: "train-100", DEV: "dev", TEST: "test"}


def enhancement(material: Material) -> CorpusPlan:
    """Plan clean utterances and the same with hiss, hum or babble, in VoiceBank-DEMAND's layout at 16 kHz."""
    pieces: list[Piece] = []
    crowd = [u for u in material.of_the_game(TRAIN) if u.words]
    for split, count in NOISY.items():
        for number, utterance in enumerate(_select(material, split, count)):
            name = f"{_PREFIX[split]}_{number:03}.wav"
            others = shuffled(crowd, lambda u: u.clip.path, f"se/{name}")[:BABBLE]
            mixed = partial(_noisy, utterance, tuple(others), split, name)
            voice, babble = (utterance.clip.voice,), number % len(_NOISES) == len(_NOISES) - 1
            clips = (utterance.clip.path, *((u.clip.path for u in others) if babble else ()))
            for kind, render, sources in (("noisy", mixed, clips), ("clean", utterance.audio, clips[:1])):
                path = f"{NOISY_ROOT}/{kind}_{_SETS[split]}_wav_16k/{name}"
                pieces.append(Piece(path, "SE", split, voice, render, tuple(sources), kind))
    return CorpusPlan(tuple(pieces), {})


def separation(material: Material) -> CorpusPlan:
    """Plan mixtures of two voices, cut to the shorter one, and each voice alone, laid out like Libri2Mix."""
    pieces: list[Piece] = []
    for split, count in MIXED.items():
        utterances = material.of_the_game(split)
        for talk in converse(utterances, count, 1, MIXED_SECONDS, (60.0, 60.0), f"ss-{split}"):
            folder = f"{MIXED_ROOT}/wav16k/min/{_PARTS[split]}"
            for kind, voice in (("mix_clean", None), ("s1", talk.voices[0]), ("s2", talk.voices[1])):
                path, render = f"{folder}/{kind}/{talk.name}.wav", partial(_shortened, talk, voice)
                pieces.append(Piece(path, "SS", split, talk.voices, render, talk.clips, kind))
    return CorpusPlan(tuple(pieces), {})


def _select(material: Material, split: str, count: int) -> list[Utterance]:
    shortest, longest = SECONDS
    utterances = material.of_the_game(split)
    suitable = [u for u in utterances if u.words and shortest <= u.clip.seconds <= longest]
    return shuffled(suitable, lambda u: u.clip.path, "se")[:count]


def _shortened(talk: Conversation, voice: str | None) -> np.ndarray:
    """Return a mixture or one voice of it, as long as the shorter turn (T,)."""
    return talk.render(voice)[: min(turn.utterance.clip.samples for turn in talk.turns)]


def _hiss(random: np.random.Generator, samples: int, others: tuple[Utterance, ...]) -> np.ndarray:
    return random.standard_normal(samples)


def _hum(random: np.random.Generator, samples: int, others: tuple[Utterance, ...]) -> np.ndarray:
    """Return noise that falls by 6 dB per octave, with a tone of mains hum."""
    noise = np.cumsum(random.standard_normal(samples))
    noise -= np.linspace(noise[0], noise[-1], samples)
    tone = np.sin(2 * np.pi * random.choice([50, 60]) * np.arange(samples) / SAMPLE_RATE)
    return noise / (np.std(noise) or 1.0) + 0.3 * tone


def _babble(random: np.random.Generator, samples: int, others: tuple[Utterance, ...]) -> np.ndarray:
    babble = np.zeros(samples)
    for utterance in others:
        babble += np.resize(np.roll(utterance.audio(), int(random.integers(SAMPLE_RATE))), samples)
    return babble


_NOISES = (_hiss, _hum, _babble)


def _noisy(utterance: Utterance, others: tuple[Utterance, ...], split: str, name: str) -> np.ndarray:
    """Return an utterance with noise, whose kind and level follow from the name of the file (T,)."""
    random, clean = generator("se", name), utterance.audio()
    noise = _NOISES[int(name[-7:-4]) % len(_NOISES)](random, len(clean), others)
    ratio = random.uniform(*RATIOS[split])
    power = float(np.mean(clean**2)) / (float(np.mean(noise**2)) or 1.0)
    return (clean + noise * np.sqrt(power * 10 ** (-ratio / 10))).astype(np.float32)
