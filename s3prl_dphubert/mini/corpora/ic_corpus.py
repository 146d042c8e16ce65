"""Intent classification: commands to a house, synthesised, in the layout of Fluent Speech Commands."""

from __future__ import annotations

from functools import partial

from ..layout import Piece, Plan
from ..sources.espeak import speak
from ..utterance import shuffled
from ..voices import DEV, SPLITS, TEST, TRAIN
from .synthetic_voices import speakers, varied

ROOT = "fluent_speech_commands_dataset"
COMMANDS = {TRAIN: 60, DEV: 40, TEST: 60}
"""Of each speaker."""

_TABLES = {TRAIN: "train", DEV: "valid", TEST: "test"}
_ROOMS = {"kitchen": "in the kitchen", "bedroom": "in the bedroom", "hall": "in the hall", "none": ""}
_SWITCHED = {"lights": "the lights", "fan": "the fan", "music": "the music", "heating": "the heating"}
_SWITCH = {
    "activate": ("turn on {thing} {room}", "switch on {thing} {room}", "please start {thing} {room}"),
    "deactivate": ("turn off {thing} {room}", "switch off {thing} {room}", "please stop {thing} {room}"),
}
_MORE = {
    "increase": {
        "volume": ("make it louder {room}", "turn the sound up {room}", "I can hardly hear it {room}"),
        "heating": ("make it warmer {room}", "turn the heat up {room}", "it is too cold {room}"),
    },
    "decrease": {
        "volume": ("make it quieter {room}", "turn the sound down {room}", "it is much too loud {room}"),
        "heating": ("make it cooler {room}", "turn the heat down {room}", "it is too hot {room}"),
    },
}
_FETCHED = {"newspaper": "the newspaper", "shoes": "my shoes", "juice": "some juice", "book": "the book"}
_FETCH = ("bring me {thing}", "could you get me {thing}", "go and fetch {thing}")


def sentences() -> list[tuple[str, tuple[str, str, str]]]:
    """Each command with its action, object and location."""
    found = []
    for room, where in _ROOMS.items():
        for action, forms in _SWITCH.items():
            for thing, words in _SWITCHED.items():
                found += [(form.format(thing=words, room=where), (action, thing, room)) for form in forms]
        for action, things in _MORE.items():
            for thing, forms in things.items():
                found += [(form.format(room=where), (action, thing, room)) for form in forms]
    for thing, words in _FETCHED.items():
        found += [(form.format(thing=words), ("bring", thing, "none")) for form in _FETCH]
    return [(text.strip(), intent) for text, intent in found]


def plan() -> Plan:
    """The same commands by other speakers in each split."""
    pieces: list[Piece] = []
    texts = {}
    for split in SPLITS:
        rows = [",path,speakerId,transcription,action,object,location\n"]
        for speaker in speakers(split):
            name = speaker.partition("+")[2]
            for number, (text, intent) in enumerate(_chosen(speaker, COMMANDS[split])):
                path = f"wavs/speakers/{name}/{number:04}.wav"
                render = partial(speak, text, varied(speaker, "ic", number))
                label = "/".join(intent)
                pieces.append(Piece(f"{ROOT}/{path}", "IC", split, (name,), render, label=label))
                rows.append(f"{len(rows) - 1},{path},{name},{text},{','.join(intent)}\n")
        texts[f"{ROOT}/data/{_TABLES[split]}_data.csv"] = "".join(rows)
    return Plan(tuple(pieces), texts)


def _chosen(speaker: str, count: int) -> list[tuple[str, tuple[str, str, str]]]:
    return shuffled(sentences(), lambda sentence: sentence[0], f"ic/{speaker}")[:count]
