"""Diarization: conversations of two voices, as Kaldi folders whose recordings are named below the corpus.

s3prl needs absolute paths; the preparation ``kaldi_places`` writes them.
"""

from __future__ import annotations

from ...constants import SAMPLE_RATE
from ..layout import Piece, Plan
from ..utterance import Material
from ..voices import DEV, TEST, TRAIN
from .conversations import Conversation, converse

ROOT = "conversations"
COUNTS = {TRAIN: 240, DEV: 40, TEST: 60}
TURNS = 2
"""Of each voice in a conversation."""

OVERLAP = (-0.5, 1.5)  # seconds


def plan(material: Material) -> Plan:
    """Three splits; the test set has only voices that ``hubert_nano`` never heard."""
    pieces: list[Piece] = []
    texts: dict[str, str] = {}
    for split, count in COUNTS.items():
        said = material.unheard_in_tests(split)
        tables: dict[str, list[str]] = {}
        for conversation in converse(said, count, TURNS, OVERLAP, f"sd-{split}"):
            path = f"{ROOT}/{split}/wav/{conversation.name}.flac"
            pieces.append(
                Piece(path, "SD", split, conversation.voices, conversation.render, conversation.clips)
            )
            for table, row in _rows(conversation, path):
                tables.setdefault(table, []).append(f"{row}\n")
        texts |= {f"{ROOT}/{split}/{table}": "".join(sorted(rows)) for table, rows in tables.items()}
    return Plan(tuple(pieces), texts)


def _rows(conversation: Conversation, path: str) -> list[tuple[str, str]]:
    """Kaldi's tables, and who speaks when."""
    name, seconds = conversation.name, conversation.samples / SAMPLE_RATE
    rows = [("wav.scp", f"{name} {path}"), ("reco2dur", f"{name} {seconds:.3f}")]
    said: dict[str, list[str]] = {voice: [] for voice in conversation.voices}
    for turn in conversation.turns:
        voice = turn.utterance.clip.voice
        for start, end in turn.speech:
            part = f"{name}-{voice}-{round(100 * start):05}"
            said[voice].append(part)
            rows.append(("segments", f"{part} {name} {start:.2f} {end:.2f}"))
            rows.append(("utt2spk", f"{part} {name}-{voice}"))
            speaker = f"<NA> <NA> {name}-{voice} <NA> <NA>"
            rows.append(("rttm", f"SPEAKER {name} 1 {start:.2f} {end - start:.2f} {speaker}"))
    rows += [("spk2utt", f"{name}-{voice} {' '.join(parts)}") for voice, parts in said.items()]
    return rows
