"""Query by example: spoken words, searched in sentences of other voices, in the layout of QUESST 2014."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from xml.sax.saxutils import quoteattr

from ...constants import SAMPLE_RATE
from ..layout import Plan, piece
from ..utterance import Material, Utterance, Word, shuffled
from ..voices import DEV, ROLES, TEST, UNHEARD

ROOT = "quesst14Database"
DOCUMENTS, DOCUMENT_SECONDS = 240, (1.0, 8.0)
QUERIES = {DEV: 40, TEST: 50}
LISTED = {DEV: "dev", TEST: "eval"}
"""What QUESST calls the splits."""

SHORTEST, LETTERS, COMMON = 0.3, 4, 0.1
"""Of a query: seconds, letters of the word, and the share of documents that it may occur in at most."""

MARGIN = 0.02  # seconds kept beside a word
LANGUAGE = "nnenglish"  # the one that SUPERB searches


def plan(material: Material) -> Plan:
    """Documents of the voices that ``hubert_nano`` never heard, queries of other voices; no training.

    The queries of the two splits are other words by other voices; the documents are the same, as in
    QUESST.
    """
    documents = _documents(material)
    places: dict[str, list[tuple[str, Word]]] = defaultdict(list)
    for name, utterance in documents.items():
        for word in utterance.words:
            places[word.text].append((name, word))
    pieces = [
        piece(f"{ROOT}/Audio/{name}.wav", "QbE", "documents", utterance)
        for name, utterance in documents.items()
    ]
    listed = [f"quesst14/Audio/{name}.wav {LANGUAGE}\n" for name in documents]
    texts = {f"{ROOT}/scoring/language_key_utterances.lst": "".join(listed)}
    taken: set[str] = set()
    for split, label in ((TEST, LISTED[TEST]), (DEV, LISTED[DEV])):
        queries = _queries(material, split, places, taken)
        taken |= {word.text for _, word in queries.values()}
        rows = []
        for name, (utterance, word) in queries.items():
            path = f"{label}_queries/{name}.wav"
            render = partial(utterance.audio, max(word.start - MARGIN, 0.0), word.end + MARGIN)
            pieces.append(piece(f"{ROOT}/{path}", "QbE", split, utterance, render, word.text))
            rows.append(f"quesst14/{path} {LANGUAGE}\n")
        texts[f"{ROOT}/scoring/language_key_{label}.lst"] = "".join(rows)
        folder = f"{ROOT}/scoring/groundtruth_quesst14_{label}/quesst14_{label}"
        texts |= {f"{folder}.{kind}": text for kind, text in _truth(documents, queries, places).items()}
    return Plan(tuple(pieces), texts)


def _documents(material: Material) -> dict[str, Utterance]:
    low, high = DOCUMENT_SECONDS
    fitting = [u for u in material.of_the_game(voices=UNHEARD) if u.words and low <= u.clip.seconds <= high]
    chosen = shuffled(fitting, lambda u: u.clip.path, "qbe")[:DOCUMENTS]
    return {f"quesst14_{number:05}": utterance for number, utterance in enumerate(chosen, start=1)}


def _queries(
    material: Material, split: str, places: dict[str, list[tuple[str, Word]]], taken: set[str]
) -> dict[str, tuple[Utterance, Word]]:
    """One token of each word that may be asked for and occurs in the documents, but not in too many."""
    voices = [voice for voice in ROLES[split] if voice not in UNHEARD]
    most = COMMON * len({name for found in places.values() for name, _ in found})
    tokens = [
        (u, word)
        for u in material.of_the_game(voices=voices)
        for word in u.words
        if word.seconds >= SHORTEST
        and len(word.text) >= LETTERS
        and word.text not in taken
        and 0 < len({name for name, _ in places.get(word.text, ())}) <= most
    ]
    chosen: dict[str, tuple[Utterance, Word]] = {}
    for u, word in shuffled(tokens, lambda pair: f"{pair[0].clip.path}/{pair[1].start:.2f}", "qbe"):
        chosen.setdefault(word.text, (u, word))
    label = LISTED[split]
    first = list(chosen.values())[: QUERIES[split]]
    return {f"quesst14_{label}_{number:04}": pair for number, pair in enumerate(first, start=1)}


def _truth(
    documents: dict[str, Utterance],
    queries: dict[str, tuple[Utterance, Word]],
    places: dict[str, list[tuple[str, Word]]],
) -> dict[str, str]:
    """Suffix -> content of the files that a search is scored with."""
    total = sum(utterance.clip.samples for utterance in documents.values()) / SAMPLE_RATE
    excerpts = "".join(
        f'  <excerpt audio_filename="{name}.wav" channel="1" tbeg="0.000" dur="{u.clip.seconds:.3f}" '
        'source_type="splitcts"/>\n'
        for name, u in documents.items()
    )
    terms = "".join(
        f"  <term termid={quoteattr(name)}><termtext>{name}</termtext></term>\n" for name in queries
    )
    spoken = "".join(
        f"LEXEME {document} 1 {place.start:.2f} {place.seconds:.2f} {name} lex {voice} 1.0\n"
        for name, (_, word) in queries.items()
        for document, place in places[word.text]
        for voice in (documents[document].clip.voice,)
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return {
        "ecf.xml": f'{head}<ecf source_signal_duration="{total:.3f}" version="1">\n{excerpts}</ecf>\n',
        "tlist.xml": f'{head}<termlist ecf_filename="ecf.xml" version="1">\n{terms}</termlist>\n',
        "rttm": spoken,
    }
