"""Forced alignment finds words at their positions, and rejects texts that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from s3prl_dphubert.free_superb import align
from s3prl_dphubert.free_superb.clips import Clip, read_clips
from s3prl_dphubert.utils.readers import read_table
from tests.helpers import debian_packages

SAID = {
    "a": "FIVE SIX NINE",
    "b": "ZERO SEVEN JUNE",
    "c": "APRIL EIGHT TWO",
    "other": "WEDNESDAY SUNDAY TUESDAY MARCH NINE SEVEN",
    "unknown": "ONE QWRTZ TWO",
}
"""Clip -> text; the texts of the last two do not belong to their recordings."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of sentences, and where their words lie."""
    root = tmp_path_factory.mktemp("align")
    (root / "corpus" / "p").mkdir(parents=True)
    rows, places = ["package\tname\tvoice\ttext\tsamples\n"], {}
    for name, text in SAID.items():
        said = "ONE" if name in ("other", "unknown") else text
        audio, places[name] = debian_packages.sentence([(word, word) for word in said.split()])
        noise = np.random.default_rng(0).normal(0, 1e-4, len(audio))
        soundfile.write(root / "corpus" / "p" / f"{name}.flac", audio + noise, 16_000)
        rows.append(f"p\t{name}\tv\t{text.capitalize()}.\t{len(audio)}\n")
    (root / "corpus" / "clips.tsv").write_text("".join(rows))
    align.main([str(root)])
    return root, places


def spans(text: str) -> np.ndarray:
    """Frames from and to of each word (words, 2)."""
    numbers = np.array([[int(n) for n in part.split(":")] for part in text.split()])
    return np.stack([numbers[:, 0], numbers.sum(1)], 1)


def test_words_are_found_where_they_are(folder):
    root, places = folder
    by_name = {row["name"]: row["words"] for row in read_table(root / "alignments.tsv", ("name", "words"))}
    assert sorted(by_name) == ["a", "b", "c"], "a text that is not said has no places, nor has a strange word"
    for name, words in by_name.items():
        put, ours = spans(places[name]), spans(words)
        assert ours.shape == put.shape
        middles = ours.mean(1)
        assert ((put[:, 0] < middles) & (middles < put[:, 1])).all(), (name, ours, put)
        assert np.abs(ours - put).max() <= 20, (name, ours, put)  # a clip has up to 0.2 s of silence in it


def test_pronunciations_are_those_of_the_words_said(folder):
    phones = {row["word"]: row["phones"] for row in read_table(folder[0] / "lexicon.tsv", ("word", "phones"))}
    assert set(phones) == set(" ".join(SAID[name] for name in "abc").split())
    assert phones["FIVE"] == "F AY V" and phones["SIX"] == "S IH K S" and phones["TWO"] == "T UW"


def test_phones_lie_in_their_words_and_silence_between(folder):
    """The phones of each word are those of its pronunciation, and all of them fill the clip in order."""
    root, _ = folder
    pronunciations = {
        row["word"]: row["phones"] for row in read_table(root / "lexicon.tsv", ("word", "phones"))
    }
    words = {row["name"]: row["words"] for row in read_table(root / "alignments.tsv", ("name", "words"))}
    phones_of = {
        row["name"]: row["phones"].split() for row in read_table(root / "phones.tsv", ("name", "phones"))
    }
    assert phones_of.keys() == words.keys()
    for name, phones in phones_of.items():
        symbols, starts, lengths = zip(*(phone.split(":") for phone in phones), strict=True)
        said = " ".join(pronunciations[word] for word in SAID[name].split())
        assert " ".join(symbol for symbol in symbols if symbol != "SIL") == said
        edges = np.array([*map(int, starts), int(starts[-1]) + int(lengths[-1])])
        assert edges[0] == 0 and (np.diff(edges) == [int(length) for length in lengths]).all()
        assert symbols[0] == symbols[-1] == "SIL"
        spoken = [(a, b) for symbol, a, b in zip(symbols, edges, edges[1:], strict=False) if symbol != "SIL"]
        for start, end in spans(words[name]):
            inside = [(a, b) for a, b in spoken if start - 3 <= (a + b) / 2 <= end + 3]
            assert inside and abs(inside[0][0] - start) <= 10 and abs(inside[-1][1] - end) <= 10


def test_clip_is_aligned_alike_whatever_was_aligned_before(folder):
    root, _ = folder
    clips = read_clips(root / "corpus" / "clips.tsv")
    forwards = [align.align(clip, root / "corpus") for clip in clips]
    backwards = [align.align(clip, root / "corpus") for clip in reversed(clips)]
    assert forwards == backwards[::-1] and any(result.words for result in forwards)


def test_clip_without_words_is_left_out(folder):
    clip = Clip("p", "a", "v", "1949", 16_000)
    assert align.align(clip, folder[0] / "corpus") == align.Alignment()
