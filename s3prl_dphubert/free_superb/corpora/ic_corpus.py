"""Intent classification: synthesised smart-home commands in the layout of Fluent Speech Commands."""

from __future__ import annotations

from functools import partial

from ..layout import CorpusPlan, Piece
from ..sources.espeak import speak
from ..utterance import generator, shuffled
from ..voices import DEV, SPLITS, TEST, TRAIN, synthetic_voices, varied

ROOT = "fluent_speech_commands_dataset"
COMMANDS = {TRAIN: 60, DEV: 40, TEST: 60}
"""Commands per speaker."""

_TABLES = {TRAIN: "train", DEV: "valid", TEST: "test"}
_ROOMS = {"kitchen": "in the kitchen", "bedroom": "in the bedroom", "hall": "in the hall", "none": ""}
_SWITCHABLE = {"lights": "the lights", "fan": "the fan", "music": "the music", "heating": "the heating"}
_SWITCH = {
    "activate": ("turn on {thing} {room}", "switch on {thing} {room}", "please start {thing} {room}"),
    "deactivate": ("turn off {thing} {room}", "switch off {thing} {room}", "please stop {thing} {room}"),
}
_ADJUST = {
    "increase": {
        "volume": ("make it louder {room}", "turn the sound up {room}", "I can hardly hear it {room}"),
        "heating": ("make it warmer {room}", "turn the heat up {room}", "it is too cold {room}"),
    },
    "decrease": {
        "volume": ("make it quieter {room}", "turn the sound down {room}", "it is much too loud {room}"),
        "heating": ("make it cooler {room}", "turn the heat down {room}", "it is too hot {room}"),
    },
}
_FETCHABLE = {"newspaper": "the newspaper", "shoes": "my shoes", "juice": "some juice", "book": "the book"}
_FETCH = ("bring me {thing}", "could you get me {thing}", "go and fetch {thing}")


def sentences() -> list[tuple[str, tuple[str, str, str]]]:
    """Return every command with its action, object and location."""
    commands = []
    for room, location in _ROOMS.items():
        for action, forms in _SWITCH.items():
            for thing, words in _SWITCHABLE.items():
                commands += [
                    (form.format(thing=words, room=location), (action, thing, room)) for form in forms
                ]
        for action, things in _ADJUST.items():
            for thing, forms in things.items():
                commands += [(form.format(room=location), (action, thing, room)) for form in forms]
    for thing, words in _FETCHABLE.items():
        commands += [(form.format(thing=words), ("bring", thing, "none")) for form in _FETCH]
    return [(text.strip(), intent) for text, intent in commands]


def plan() -> CorpusPlan:
    """Plan the same commands by different speakers in each split."""
    pieces: list[Piece] = []
    texts = {}
    for split in SPLITS:
        rows = [",path,speakerId,transcription,action,object,location\n"]
        for speaker in synthetic_voices(split):
            name = speaker.partition("+")[2]
            commands = shuffled(sentences(), lambda command: command[0], f"ic/{speaker}")
            for number, (text, intent) in enumerate(commands[: COMMANDS[split]]):
                path = f"wavs/speakers/{name}/{name}-{number:04}.wav"
                voice = varied(speaker, generator("synthetic", speaker, "ic", number))
                render = partial(speak, text, voice)
                label = "/".join(intent)
                pieces.append(Piece(f"{ROOT}/{path}", "IC", split, (name,), render, label=label))
                rows.append(f"{len(rows) - 1},{path},{name},{text},{','.join(intent)}\n")
        texts[f"{ROOT}/data/{_TABLES[split]}_data.csv"] = "".join(rows)
    return CorpusPlan(tuple(pieces), texts)
