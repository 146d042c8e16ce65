"""Slot filling: synthesised requests to an assistant in the layout of Audio SNIPS."""

from __future__ import annotations

import re
from functools import partial

import numpy as np

from ..layout import CorpusPlan, Piece
from ..sources.espeak import speak
from ..utterance import generator
from ..voices import DEV, SPLITS, TEST, TRAIN, synthetic_voices, varied

ROOT = "SNIPS"
REQUESTS = {TRAIN: 60, DEV: 30, TEST: 40}
"""Requests per speaker."""

FOLDERS = {TRAIN: "train", DEV: "valid", TEST: "test"}
VALUES: dict[str, tuple[str, ...]] = {
    "artist": ("nina simone", "the rolling stones", "miles davis", "abba", "clara schumann", "johnny cash"),
    "city": ("berlin", "new york", "lisbon", "oslo", "buenos aires", "cape town", "kyoto", "dublin"),
    "day": ("today", "tomorrow", "on monday", "next friday", "this weekend", "on the first of may"),
    "dish": ("tomato soup", "sushi", "fried rice", "lentil curry", "pancakes", "greek salad"),
    "genre": ("jazz", "heavy metal", "folk music", "opera", "blues", "dance music"),
    "number": ("two", "three", "four", "six", "seven", "ten"),
    "playlist": ("morning run", "road trip", "quiet evening", "old friends", "party time"),
    "time": ("at noon", "at seven o clock", "in the evening", "at half past nine", "after midnight"),
    "title": ("the silent river", "a winter tale", "seven bridges", "the last garden", "blue harbour"),
    "weather": ("rain", "snow", "be sunny", "get stormy", "be foggy", "freeze"),
}
"""Slot -> its values."""

SENTENCES: dict[str, tuple[str, ...]] = {
    "AddToPlaylist": ("add a song by {artist} to {playlist}", "put {artist} on my {playlist} list"),
    "BookRestaurant": (
        "book a table for {number} in {city} {time}",
        "find a place for {number} people with {dish} {day}",
    ),
    "GetWeather": ("will it {weather} in {city} {day}", "is it going to {weather} {time} in {city}"),
    "PlayMusic": ("play some {genre} by {artist}", "I want to hear {genre} {time}"),
    "RateBook": ("give {title} {number} stars", "rate {title} with {number} points"),
    "SearchCreativeWork": ("look for the book {title}", "show me {title} please"),
}
"""Intent -> its sentences."""


def plan() -> CorpusPlan:
    """Plan the same kinds of requests by different speakers in each split."""
    pieces, rows = [], []
    for split in SPLITS:
        for speaker in synthetic_voices(split):
            name = speaker.partition("+")[2]
            for number in range(REQUESTS[split]):
                words, tags, intent = _request(generator("sf", speaker, number))
                path = f"{ROOT}/{FOLDERS[split]}/{name}-snips-{FOLDERS[split]}-{number}.wav"
                voice = varied(speaker, generator("synthetic", speaker, "sf", number))
                render = partial(speak, " ".join(words), voice)
                pieces.append(Piece(path, "SF", split, (name,), render, label=intent))
                text = f"BOS {' '.join(words).upper()} EOS\tO {' '.join(tags)} {intent}"
                rows.append(f"{path.rpartition('/')[2].removesuffix('.wav')} {text}\n")
    return CorpusPlan(tuple(pieces), {f"{ROOT}/all.iob.snips.txt": "".join(rows)})


def _request(random: np.random.Generator) -> tuple[list[str], list[str], str]:
    """Return the words of a random request, their slots, and its intent."""
    intent = sorted(SENTENCES)[random.integers(len(SENTENCES))]
    sentence = SENTENCES[intent][random.integers(len(SENTENCES[intent]))]
    words: list[str] = []
    tags: list[str] = []
    for part in re.findall(r"\{\w+\}|\S+", sentence):
        slot = part.strip("{}")
        if slot == part:
            words.append(part)
            tags.append("O")
            continue
        value = VALUES[slot][random.integers(len(VALUES[slot]))].split()
        words += value
        tags += [slot] * len(value)
    return words, tags, intent
