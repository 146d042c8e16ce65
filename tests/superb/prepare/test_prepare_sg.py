"""Preparation of the corpora of SUPERB-SG and of other languages."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import soundfile
import soxr

from s3prl_dphubert.data.audio import SAMPLE_RATE
from s3prl_dphubert.errors import DataError
from s3prl_dphubert.superb.prepare import STEPS, common_voice, corpus_files, covost, separation, vcc2020
from tests.helpers import sg_corpora
from tests.helpers.corpora import lines, put

DRAWN, LAST = ["0001", "0006", "0010", "0015"], "2993"  # random.seed(7), as subsample.py has it


def made(step, data, config=None):
    out = data.parent / "prepared"
    STEPS[step](data, out, config or {})
    return out


def scp(path):
    return dict(line.split() for line in path.read_text().splitlines())


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_voicebank_of_16k_stays_where_it_is(data):
    root = sg_corpora.voicebank(data / "VoiceBank-DEMAND")
    out = made("voicebank_lists", data) / "voicebank"
    names = {
        "train": [f"p228_{n:03}" for n in range(4)],
        "dev": ["p226_000", "p226_001", "p287_000", "p287_001"],
        "test": ["p232_001", "p257_002"],
    }
    for split, wanted in names.items():
        for kind in ("noisy", "clean"):
            paths = scp(out / split / kind / "wav.scp")
            assert list(paths) == wanted
            part = "testset" if split == "test" else "trainset_28spk"
            assert paths == {n: str(root / f"{kind}_{part}_wav_16k" / f"{n}.wav") for n in wanted}
    assert not (out / "wav16k").exists()


def test_voicebank_as_published_is_brought_to_16k(data):
    root = sg_corpora.voicebank(data / "VoiceBank-DEMAND", train=1)
    before = {}
    for place in root.iterdir():
        for path in place.iterdir():
            audio, rate = soundfile.read(path)
            before[place.name, path.name] = audio
            published = root / place.name.removesuffix("_16k") / path.name
            put(published, soxr.resample(audio, rate, 48_000), 48_000)
            path.unlink()
        place.rmdir()
    out = made("voicebank_lists", data) / "voicebank"
    for kind in ("noisy", "clean"):
        (name,) = scp(out / "train" / kind / "wav.scp").values()
        audio, rate = soundfile.read(name)
        assert (rate, soundfile.info(name).subtype) == (SAMPLE_RATE, "PCM_16")
        wanted = before[f"{kind}_trainset_28spk_wav_16k", "p228_000.wav"]
        assert np.std(audio - wanted) < 0.03 * np.std(wanted)  # but for what is close to 8 kHz


def test_voicebank_that_is_not_whole_is_refused(data):
    with pytest.raises(
        DataError, match=r"noisy_testset_wav: no such folder; .* https://doi.org/10.7488/ds/2117"
    ):
        made("voicebank_lists", data)
    root = sg_corpora.voicebank(data / "VoiceBank-DEMAND")
    (root / "noisy_testset_wav_16k" / "p232_001.wav").unlink()
    with pytest.raises(DataError, match="testset has p232_001 noisy or clean only"):
        made("voicebank_lists", data)


def test_mixtures_are_listed_and_a_thousand_drawn_as_s3prl_draws_them(data):
    root = sg_corpora.libri2mix(data / "Libri2Mix")
    out = made("libri2mix_separation", data) / "libri2mix_ss"
    assert sorted(place.name for place in out.iterdir()) == ["dev_1000", "test", "train-100"]
    for split, count in {"train-100": 4, "dev_1000": 2, "test": 2}.items():
        lists = [scp(out / split / kind / "wav.scp") for kind in ("mix_clean", "s1", "s2")]
        assert [len(each) for each in lists] == [count] * 3
        assert lists[0].keys() == lists[1].keys() == lists[2].keys()
        for name, path in lists[1].items():
            assert path == str(root / "wav16k" / "min" / split.removesuffix("_1000") / "s1" / f"{name}.wav")
    names = [f"{number:04}" for number in range(3000)]
    state = random.getstate()
    drawn = separation.draw(reversed(names))
    assert random.getstate() == state
    assert len(drawn) == 1000 and drawn == sorted(drawn)
    assert drawn[:4] == DRAWN and drawn[-1] == LAST
    (root / "wav16k" / "min" / "test" / "s2" / "test-0001.wav").unlink()
    with pytest.raises(DataError, match=r"test: holds 2 mix_clean, 2 s1, 1 s2, allowed: as many of the same"):
        made("libri2mix_separation", data)


@pytest.mark.parametrize("merged", [False, True])
def test_speakers_of_the_challenge_have_a_folder_each(data, merged):
    root = sg_corpora.vcc2020(data / "VCC2020", train=3, test=1)
    if merged:  # as s3prl's data_download.sh leaves it
        for place in list(root.iterdir()):
            for speaker in place.iterdir():
                (root / speaker.name).mkdir(exist_ok=True)
                for path in speaker.iterdir():
                    path.rename(root / speaker.name / path.name)
    out = made("vcc2020_speakers", data) / "vcc2020"
    said = {place.name: sorted(path.stem for path in place.iterdir()) for place in out.iterdir()}
    lists = said.pop("lists")
    assert lists == ["E_dev_list", "E_train_list", "eval_list"]
    assert said == {
        **{name: ["E30001"] for name in vcc2020.SOURCES},
        **{name: ["E10001", "E10061", "E20001", "E20002", "E30001"] for name in vcc2020.TARGETS},
    }
    assert all(soundfile.info(path).samplerate == 24_000 for path in out.rglob("*.wav"))
    train = (out / "lists" / "E_train_list.txt").read_text().split()
    assert (train[0], train[59], train[60], train[-1], len(train)) == (
        "E10001",
        "E10060",
        "E20001",
        "E20050",
        110,
    )
    assert (out / "lists" / "E_dev_list.txt").read_text().split() == [f"E1{n:04}" for n in range(61, 71)]
    assert (out / "lists" / "eval_list.txt").read_text().split() == ["E30001"]
    assert len(vcc2020.LISTS["eval_list"]) == 25


def test_a_challenge_without_speakers_is_refused(data):
    root = sg_corpora.vcc2020(data / "VCC2020")
    for path in (root / "target_task1" / "TEM1").iterdir():
        path.unlink()
    (root / "vcc2020_database_evaluation" / "SEF2" / "E30001.wav").unlink()
    with pytest.raises(DataError) as caught:
        made("vcc2020_speakers", data)
    for fault in ("SEF2 has none of eval_list", "TEM1 has none of E_train_list", "E_dev_list"):
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("language", "said", "wanted"),
    [
        ("es", "¡Buenos  días, «Pedro»!", "BUENOS DÍAS PEDRO"),
        ("es", "Está en 箱", ""),
        ("es", "l’été", "L'ÉTÉ"),
        ("ar", "واحد، اثنان؟", "واحد اثنان"),
        ("ar", "واحد two", ""),
        ("zh-CN", "一 二、三。", "一二三"),
        ("zh-CN", "ㄧ個", "一個"),
        ("zh-CN", "Ｘ 光", ""),
        ("zh-CN", "カ", ""),
    ],
)
def test_sentences_are_normalized(language, said, wanted):
    assert common_voice.normalized(said, language) == wanted


def test_languages_are_prepared(data):
    sg_corpora.common_voice(data / common_voice.CORPUS)
    for part in common_voice.LANGUAGES:
        out = made(f"common_voice_{part}", data)
    counts = {"es": (3, 2, 2), "ar": (4, 2, 2), "zh": (4, 2, 2)}  # without Andes, hello, 箱 and X
    for part, wanted in counts.items():
        place = out / f"common_voice_{part}"
        rows = [
            list(corpus_files.read_table(place / f"{split}.tsv", ("path", "sentence"), ""))
            for split in common_voice.SPLITS
        ]
        assert tuple(map(len, rows)) == wanted
        lengths = [soundfile.info(place / "clips" / row["path"]).frames for row in rows[0]]
        assert lengths == sorted(lengths, reverse=True)
        assert {soundfile.info(path).samplerate for path in place.glob("clips/*.wav")} == {SAMPLE_RATE}
        letters = (place / "letters.txt").read_text().split("\n")[:-1]
        assert letters == sorted({sign for row in rows[0] for sign in row["sentence"]})
    assert "BUENOS DÍAS" in (out / "common_voice_es" / "train.tsv").read_text()
    assert " " not in (out / "common_voice_zh" / "letters.txt").read_text()


def test_a_language_without_sentences_is_refused(data):
    root = sg_corpora.common_voice(data / common_voice.CORPUS)
    header = (root / "es" / "dev.tsv").read_text().splitlines()[0]
    lines(root / "es" / "dev.tsv", header)
    with pytest.raises(DataError, match=r"es/dev.tsv: no sentence can be used"):
        made("common_voice_es", data)
    with pytest.raises(DataError, match=r"ar: no such folder; it holds Common Voice 7 in ar"):
        (root / "ar").rename(root / "arabic")
        made("common_voice_ar", data)


def test_tables_end_lines_at_line_feeds_only(tmp_path):
    path = lines(
        tmp_path / "table.tsv", "path\tsentence\tmore", "a\tone\u2028two\x85three\r", "", "b\tx\\\ty"
    )
    rows = list(corpus_files.read_table(path, ("path",), "there"))
    assert rows[0] == {"path": "a", "sentence": "one\u2028two\x85three", "more": ""}
    assert rows[1] == {"path": "b", "sentence": "x\\", "more": "y"}
    assert list(corpus_files.read_table(lines(path, "path", "a\\\\b"), ("path",), "", escaped=True)) == [
        {"path": "a\\b"}
    ]
    with pytest.raises(DataError, match=r"table.tsv: has no column sentence, split; get it from there"):
        list(corpus_files.read_table(path, ("path", "sentence", "split"), "there"))
    with pytest.raises(DataError, match=r"absent.tsv: no such file; get it from there"):
        list(corpus_files.read_table(tmp_path / "absent.tsv", (), "there"))
    path.write_bytes(b"path\n\xff\n")
    message = r"table.tsv: not readable as a table \(not UTF-8 at byte 5\); get it from there"
    with pytest.raises(DataError, match=message):
        list(corpus_files.read_table(path, ("path",), "there"))


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ("one two", "eins zwei", True),
        ("a", "b c d e f", True),
        ("a", "b c d e f g", False),
        ("a b c d e f", "g", False),
        ("", "b", False),
        ("REMOVE", "b", False),
        ("a", "REMOVEd", False),
    ],
)
def test_pairs_of_a_translation_are_kept(source, target, wanted):
    assert covost.is_usable(source, target) is wanted


def test_covost_needs_its_packages(data, monkeypatch):
    sg_corpora.covost(data)
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(DataError, match="pip install sacremoses"):
        made("covost_en_de", data)
    monkeypatch.setattr(covost, "normalizer", lambda language: str.strip)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(DataError, match="pip install sentencepiece"):
        made("covost_en_de", data)


def test_covost_is_joined_and_sorted(data, monkeypatch):
    """Without the packages of ST: normalization and letters are theirs."""
    root = sg_corpora.covost(data)
    lines(
        root / "covost_v2.en_de.tsv",
        *(root / "covost_v2.en_de.tsv").read_text().splitlines(),
        "absent.mp3\tnichts\ttrain",
    )
    monkeypatch.setattr(covost, "normalizer", lambda language: str.strip)
    monkeypatch.setattr(
        covost, "write_letters", lambda sentences, prefix: prefix.with_suffix(".txt").write_text("x")
    )
    out = made("covost_en_de", data) / "covost_en_de"
    rows = list(corpus_files.read_table(out / "train.tsv", covost.COLUMNS, ""))
    sizes = [int(row["n_frames"]) for row in rows]
    assert len(rows) == 6 and sizes == sorted(sizes)
    assert {row["sr"] for row in rows} == {"48000"}
    row = next(row for row in rows if row["id"] == "common_voice_en_train0")
    assert (row["audio"], row["src_text"], row["tgt_text"]) == (
        "common_voice_en_train0.mp3",
        "zero please",
        "Bitte null .",
    )
    text = (out / "config.yaml").read_text()
    assert f"sentencepiece_model: {out}/spm-tgt_text.model" in text
    assert str(root / "cv-corpus-4-2019-12-10" / "en" / "clips") in text
    assert all((out / f"{split}.tsv").is_file() for split in covost.SPLITS)
