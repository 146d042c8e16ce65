"""Diarization: conversations of two voices in Kaldi folders, with paths relative to the corpus.

s3prl needs absolute paths, which the preparation step ``kaldi_places`` writes.
"""

from __future__ import annotations

from ...constants import SAMPLE_RATE
from ..layout import CorpusPlan, Piece
from ..utterance import Material
from ..voices import DEV, TEST, TRAIN
from .conversations import Conversation, converse

ROOT = "conversations"
COUNTS = {TRAIN: 300, DEV: 40, TEST: 84}
"""Conversations; in the test set three of each pair of voices."""

TURNS, SECONDS = 3, (1.5, 10.0)
"""Turns of each voice in a conversation, and their shortest and longest length."""

OVERLAP = (-0.5, 1.5)  # seconds


def plan(material: Material) -> CorpusPlan:
    """Plan the conversations of three splits, of different voices each."""
    pieces: list[Piece] = []
    texts: dict[str, str] = {}
    for split, count in COUNTS.items():
        utterances = material.of_the_game(split)
        tables: dict[str, list[str]] = {}
        for conversation in converse(utterances, count, TURNS, SECONDS, OVERLAP, f"sd-{split}"):
            path = f"{ROOT}/{split}/wav/{conversation.name}.flac"
            pieces.append(
                Piece(path, "SD", split, conversation.voices, conversation.render, conversation.clips)
            )
            for table, row in _rows(conversation, path):
                tables.setdefault(table, []).append(f"{row}\n")
        texts |= {f"{ROOT}/{split}/{table}": "".join(sorted(rows)) for table, rows in tables.items()}
    return CorpusPlan(tuple(pieces), texts)


def _rows(conversation: Conversation, path: str) -> list[tuple[str, str]]:
    """Return (table, row) for Kaldi's tables and the RTTM of one conversation."""
    name, seconds = conversation.name, conversation.samples / SAMPLE_RATE
    rows = [("wav.scp", f"{name} {path}"), ("reco2dur", f"{name} {seconds:.3f}")]
    segments: dict[str, list[str]] = {voice: [] for voice in conversation.voices}
    for turn in conversation.turns:
        voice = turn.utterance.clip.voice
        for start, end in turn.speech:
            segment = f"{name}-{voice}-{round(100 * start):05}"
            segments[voice].append(segment)
            rows.append(("segments", f"{segment} {name} {start:.2f} {end:.2f}"))
            rows.append(("utt2spk", f"{segment} {name}-{voice}"))
            speaker = f"<NA> <NA> {name}-{voice} <NA> <NA>"
            rows.append(("rttm", f"SPEAKER {name} 1 {start:.2f} {end - start:.2f} {speaker}"))
    rows += [("spk2utt", f"{name}-{voice} {' '.join(names)}") for voice, names in segments.items()]
    return rows
