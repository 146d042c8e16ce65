"""Query by example: spoken words to find in sentences of other voices, in the layout of QUESST 2014."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from xml.sax.saxutils import quoteattr

from ...constants import SAMPLE_RATE
from ..layout import CorpusPlan, Piece
from ..utterance import AlignedUnit, Material, Utterance, shuffled
from ..voices import DEV, ROLES, TEST

ROOT = "quesst14Database"
DOCUMENTS, DOCUMENT_SECONDS = 300, (1.0, 10.0)
DOCUMENT_VOICES = ("chief", "faye", "henry", "naomi")
"""Voices of the documents; the other test voices say the queries."""

QUERIES = {DEV: 50, TEST: 150}
LISTED = {DEV: "dev", TEST: "eval"}
"""Names of the splits in QUESST."""

SHORTEST, LETTERS, COMMON = 0.25, 4, 0.1
"""Least seconds and letters of a query, and the largest share of documents that may contain it."""

MARGIN = 0.02  # seconds kept at either side of a word
LANGUAGE = "nnenglish"  # the language that SUPERB searches


def plan(material: Material) -> CorpusPlan:
    """Plan documents of four test voices, and queries of the other voices that no upstream has heard.

    There is no training. As in QUESST, the two splits share the documents; their queries are different
    words by different voices.
    """
    documents = _documents(material)
    places: dict[str, list[tuple[str, AlignedUnit]]] = defaultdict(list)
    for name, utterance in documents.items():
        for word in utterance.words:
            places[word.text].append((name, word))
    pieces = [
        Piece.of(utterance, f"{ROOT}/Audio/{name}.wav", "QbE", "documents")
        for name, utterance in documents.items()
    ]
    lines = [f"quesst14/Audio/{name}.wav {LANGUAGE}\n" for name in documents]
    texts = {f"{ROOT}/scoring/language_key_utterances.lst": "".join(lines)}
    used: set[str] = set()
    for split, label in ((TEST, LISTED[TEST]), (DEV, LISTED[DEV])):
        queries = _queries(material, split, places, used)
        used |= {word.text for _, word in queries.values()}
        rows = []
        for name, (utterance, word) in queries.items():
            path = f"{label}_queries/{name}.wav"
            render = partial(utterance.audio, max(word.start - MARGIN, 0.0), word.end + MARGIN)
            pieces.append(Piece.of(utterance, f"{ROOT}/{path}", "QbE", split, render, word.text))
            rows.append(f"quesst14/{path} {LANGUAGE}\n")
        texts[f"{ROOT}/scoring/language_key_{label}.lst"] = "".join(rows)
        folder = f"{ROOT}/scoring/groundtruth_quesst14_{label}/quesst14_{label}"
        texts |= {f"{folder}.{kind}": text for kind, text in _truth(documents, queries, places).items()}
    return CorpusPlan(tuple(pieces), texts)


def _documents(material: Material) -> dict[str, Utterance]:
    shortest, longest = DOCUMENT_SECONDS
    spoken = material.of_the_game(voices=DOCUMENT_VOICES)
    suitable = [u for u in spoken if u.words and shortest <= u.clip.seconds <= longest]
    documents = shuffled(suitable, lambda u: u.clip.path, "qbe")[:DOCUMENTS]
    return {f"quesst14_{number:05}": utterance for number, utterance in enumerate(documents, start=1)}


def _queries(
    material: Material, split: str, places: dict[str, list[tuple[str, AlignedUnit]]], used: set[str]
) -> dict[str, tuple[Utterance, AlignedUnit]]:
    """Return name -> one token of each suitable word that occurs in documents, but not in too many."""
    voices = [voice for voice in ROLES[split] if voice not in DOCUMENT_VOICES]
    most = COMMON * len({name for occurrences in places.values() for name, _ in occurrences})
    tokens = [
        (u, word)
        for u in material.of_the_game(voices=voices)
        for word in u.words
        if word.seconds >= SHORTEST
        and len(word.text) >= LETTERS
        and word.text not in used
        and 0 < len({name for name, _ in places.get(word.text, ())}) <= most
    ]
    queries: dict[str, tuple[Utterance, AlignedUnit]] = {}
    for u, word in shuffled(tokens, lambda pair: f"{pair[0].clip.path}/{pair[1].start:.2f}", "qbe"):
        queries.setdefault(word.text, (u, word))
    selected = list(queries.values())[: QUERIES[split]]
    return {f"quesst14_{LISTED[split]}_{number:04}": pair for number, pair in enumerate(selected, start=1)}


def _truth(
    documents: dict[str, Utterance],
    queries: dict[str, tuple[Utterance, AlignedUnit]],
    places: dict[str, list[tuple[str, AlignedUnit]]],
) -> dict[str, str]:
    """Return suffix -> content of the ground-truth files that score a search."""
    total = sum(utterance.clip.samples for utterance in documents.values()) / SAMPLE_RATE
    excerpts = "".join(
        f'  <excerpt audio_filename="{name}.wav" channel="1" tbeg="0.000" dur="{u.clip.seconds:.3f}" '
        'source_type="splitcts"/>\n'
        for name, u in documents.items()
    )
    terms = "".join(
        f"  <term termid={quoteattr(name)}><termtext>{name}</termtext></term>\n" for name in queries
    )
    lexemes = "".join(
        f"LEXEME {document} 1 {place.start:.2f} {place.seconds:.2f} {name} lex {voice} 1.0\n"
        for name, (_, word) in queries.items()
        for document, place in places[word.text]
        for voice in (documents[document].clip.voice,)
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return {
        "ecf.xml": f'{head}<ecf source_signal_duration="{total:.3f}" version="1">\n{excerpts}</ecf>\n',
        "tlist.xml": f'{head}<termlist ecf_filename="ecf.xml" version="1">\n{terms}</termlist>\n',
        "rttm": lexemes,
    }
