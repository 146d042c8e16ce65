"""Repairs of s3prl's data handling: its cached lists of files, and the corpora that its package lacks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from s3prl_dphubert.compat import file_lists
from s3prl_dphubert.errors import DataError
from tests.helpers import corpora

pytestmark = pytest.mark.s3prl


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where lists are kept during a test."""
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_a_corpus_has_a_folder_of_its_own(kept, tmp_path):
    root, other, table = tmp_path / "a", tmp_path / "b", tmp_path / "table"
    for place in (root, other):
        (place / "wav" / "speaker").mkdir(parents=True)
    table.write_text("one")
    names = [file_lists.folder("sid", root, [table])]
    assert names[0].is_dir() and names[0] == file_lists.folder("sid", root, [table])
    table.write_text("two")
    names.append(file_lists.folder("sid", root, [table]))
    names.append(file_lists.folder("sid", other, [table]))
    names.append(file_lists.folder("asv", other, [table]))
    os.utime(root / "wav", (time.time(), time.time() + 10))
    names.append(file_lists.folder("sid", root, [table]))
    (root / "wav" / "another").mkdir()
    names.append(file_lists.folder("sid", root, [table]))
    assert len(set(names)) == 6
    assert all(kept in name.parents for name in names)


def test_sid_does_not_serve_the_list_of_another_corpus(kept, tmp_path):
    from s3prl.downstream.voxceleb1 import dataset

    package = Path(dataset.__file__).parent
    before = sorted(package.iterdir())
    first, second = (corpora.voxceleb(tmp_path / name, test=count) for name, count in (("a", 2), ("b", 3)))
    for corpus, count in ((first, 12), (second, 18), (first, 12)):
        data = dataset.SpeakerClassifiDataset("test", corpus["root"], str(corpus["identify"]))
        assert len(data) == count
        assert all(Path(path).is_relative_to(corpus["root"]) for path in data.dataset)
    assert len(list(kept.glob("sid/*/test.pkl"))) == 2
    assert sorted(package.iterdir()) == before


def test_sid_names_the_recording_that_is_missing(kept, tmp_path):
    from s3prl.downstream.voxceleb1 import dataset

    corpus = corpora.voxceleb(tmp_path / "corpus")
    missing = next((corpus["root"] / "test").rglob("*.wav"))
    missing.unlink()
    with pytest.raises(
        DataError, match=rf"wav/{missing.relative_to(corpus['root'] / 'test/wav')}: no such file"
    ):
        dataset.SpeakerClassifiDataset("test", corpus["root"], str(corpus["identify"]))


def test_ks_passes_over_hidden_files(tmp_path):
    """macOS leaves a small ``._NAME`` beside each file that it copies to a foreign disk."""
    from s3prl.downstream.speech_commands import dataset, expert

    corpus = corpora.speech_commands(tmp_path)
    roots = {
        f"speech_commands{kind}_root": str(corpus[name]) for kind, name in (("", "train"), ("_test", "test"))
    }

    def read():
        lists = expert.split_dataset(roots["speech_commands_root"])
        sets = [dataset.SpeechCommandsDataset(each, **roots) for each in lists]
        weights = [sorted(each.sample_weights) for each in sets]
        return [len(each) for each in (*sets, dataset.SpeechCommandsTestingDataset(**roots))], weights

    before = read()
    for path in list(tmp_path.rglob("*.wav")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    assert read() == before


def test_asv_does_not_serve_the_lengths_of_another_corpus(kept, tmp_path, capsys):
    from s3prl.downstream.sv_voxceleb1 import dataset

    package = Path(dataset.__file__).parent
    before = sorted(package.iterdir())
    first, second = (corpora.voxceleb(tmp_path / name, dev=count) for name, count in (("a", 1), ("b", 2)))
    for corpus, count in ((first, 6), (second, 12), (first, 6)):
        vad = {"min_sec": 4000}
        place = [corpus["root"] / "dev" / "wav"]
        data = dataset.SpeakerVerifi_train(vad, ["Voxceleb1"], place, None, max_timestep=8000)
        assert (len(data), data.speaker_num) == (count, 6)
        assert all(Path(path).is_relative_to(corpus["root"]) for path in data.dataset)
        wav, name, label = data[0]
        assert 0 < len(wav) <= 8000
        assert (name, label) == ("id10001-video-00000", 0)
    assert capsys.readouterr().err.count("Preprocessing: 100%") == 2  # and not for the first one again
    assert len(list(kept.glob("asv/*/.wav_lengths/Voxceleb1_length.pt"))) == 2
    assert sorted(package.iterdir()) == before
    assert Path(dataset.__file__).parent == package


@pytest.fixture
def libri(tmp_path):
    """A miniature LibriSpeech and its tokenizers."""
    from s3prl.downstream.ctc.text import load_text_encoder

    corpus = corpora.librispeech(tmp_path)
    corpus["words"] = load_text_encoder("word", str(corpus["phones"]))
    return corpus


def phones(corpus, split="train-clean-100", size=1, **more):
    from s3prl.downstream.ctc.corpus.libriphone import LibriPhoneDataset

    lexicon = more.pop("lexicon", [str(corpus["lexicon"])])
    return LibriPhoneDataset([split], corpus["words"], size, str(corpus["root"]), lexicon, ratio=1.0, **more)


def test_phones_are_those_of_the_lexicon(libri):
    dataset = phones(libri)
    assert len(dataset) == 12
    texts = {}
    for table in (libri["root"] / "train-clean-100").rglob("*.trans.txt"):
        assert table.read_text().endswith("\n") == (table.parent.parent.name == "100")
        for line in table.read_text().splitlines():
            name, first, second = line.split()
            texts[name] = f"{corpora.WORDS[first]} {corpora.WORDS[second]}"
    for path, tokens in (dataset[index] for index in range(12)):
        assert libri["words"].decode(tokens) == texts[path.stem]
    lengths = [len(tokens) for _, tokens in dataset]
    assert lengths == sorted(lengths, reverse=True)
    rising = [len(tokens) for _, tokens in phones(libri, ascending=True)]
    assert rising == lengths[::-1]


def test_buckets_are_neighbours_of_like_length(libri):
    single, buckets = phones(libri), phones(libri, size=4)
    assert len(buckets) == 12
    assert buckets[3] == [single[index] for index in (3, 4, 5, 6)]
    assert buckets[11] == buckets[8] == [single[index] for index in (8, 9, 10, 11)]
    assert len(phones(libri, size=16)[5]) == 12


def test_the_first_pronunciation_counts(libri, tmp_path):
    extra = corpora.lines(tmp_path / "extra.txt", "ZERO\tAA0", "", "UNUSED B")
    first = phones(libri, lexicon=[str(libri["lexicon"]), str(extra)])
    assert first.utterances == phones(libri, lexicon=str(libri["lexicon"])).utterances
    assert first.utterances != phones(libri, lexicon=[str(extra), str(libri["lexicon"])]).utterances


def test_words_that_the_lexicon_lacks_are_named(libri, tmp_path):
    short = corpora.lines(tmp_path / "short.txt", "ZERO Z IY1 R OW0")
    with pytest.raises(DataError, match=r"dev-clean are in none of .*short.txt: .* add their pron"):
        phones(libri, "dev-clean", lexicon=[str(short)])
    with pytest.raises(DataError, match=r"and \d+ more; add"):
        phones(libri, lexicon=[str(short)])
    with pytest.raises(DataError, match=r"absent.txt, which does not exist"):
        phones(libri, lexicon=["absent.txt"])
    foreign = corpora.lines(tmp_path / "foreign.txt", "ONE W AH1 N", "TWO T U:")
    with pytest.raises(DataError, match=r"foreign.txt:2: .*U: .*TWO"):
        phones(libri, lexicon=[str(foreign)])


def test_utterances_without_a_transcript_are_named(libri):
    folder = libri["root"] / "train-clean-100" / "100" / "7"
    table = folder / "100-7.trans.txt"
    corpora.lines(table, *table.read_text().splitlines()[1:])
    with pytest.raises(DataError, match=r"100-7-0000.flac: no line of its own in 100-7.trans.txt"):
        phones(libri)
    table.unlink()
    with pytest.raises(DataError, match=r"100-7.trans.txt: missing"):
        phones(libri)
    with pytest.raises(DataError, match=r"train-clean-360: no .flac files"):
        phones(libri, "train-clean-360")


def test_characters_of_librispeech(libri):
    from s3prl.downstream.ctc.corpus.librispeech import LibriDataset
    from s3prl.downstream.ctc.text import CharacterTextEncoder

    letters = CharacterTextEncoder([" ", *corpora.LETTERS])
    dataset = LibriDataset(["dev-clean"], letters, 1, str(libri["root"]))
    assert len(dataset) == 4
    path, tokens = dataset[0]
    assert (
        f"{path.stem} {letters.decode(tokens)}"
        in path.with_name(path.stem.rpartition("-")[0] + ".trans.txt").read_text().splitlines()
    )


def test_workers_stay_in_the_configuration(libri):
    from s3prl.downstream.ctc import data

    corpus = {
        "name": "LibriPhone",
        "path": str(libri["root"]),
        "lexicon": [str(libri["lexicon"])],
        "train": ["train-clean-100"],
        "dev": ["dev-clean"],
        "bucketing": True,
        "batch_size": 4,
        "num_workers": 0,
    }
    before = dict(corpus)
    for split, batches, size in (("train", 12, 4), ("dev", 4, 1), ("train", 12, 4)):
        loader = data.load_dataset(split, libri["words"], corpus)
        assert (loader.num_workers, len(loader)) == (0, batches)
        wavs, labels, names = next(iter(loader))
        assert len(wavs) == len(labels) == len(names) == size
    assert corpus == before


@pytest.fixture
def slots(tmp_path):
    """A miniature Audio SNIPS and its tokenizer."""
    from s3prl.downstream.ctc.text import load_text_encoder

    corpus = corpora.snips(tmp_path)
    corpus["tokenizer"] = load_text_encoder("character-slot", str(corpus["letters"]), str(corpus["slots"]))
    return corpus


def commands(corpus, split="train", **more):
    from s3prl.downstream.ctc.corpus.snips import SnipsDataset

    speakers = {"train_speakers": ["Amy", "Ivy"], "test_speakers": ["Brian"]} | more
    return SnipsDataset([split], corpus["tokenizer"], 1, str(corpus["root"]), num_workers=0, **speakers)


def test_slots_surround_their_words(slots):
    dataset = commands(slots, "test")
    said = {path.stem: slots["tokenizer"].decode(tokens) for path, tokens in dataset}
    assert said == {
        "Brian-snips-test-0": "ZERO B-day MONDAY E-day",
        "Brian-snips-test-1": "ONE B-number FIVE E-number",
    }


def test_speakers_are_chosen(slots, capsys):
    assert len(commands(slots)) == 6
    corpora.put(slots["root"] / "train" / "Ivy-unknown.wav", corpora.word("one"))
    assert len(commands(slots)) == 6
    assert "train: 1 of 7 files have no text" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"none of 6 files with text is by one of Joey"):
        commands(slots, train_speakers=["Joey"])
    with pytest.raises(DataError, match=r"corpus.valid_speakers is missing"):
        commands(slots, "valid")


def test_faults_of_slots_are_named(slots):
    text = slots["texts"].read_text()
    slots["texts"].write_text(text.replace("O O day Ask", "O O colour Ask"))
    with pytest.raises(DataError, match=r"snips-train-\d: slot colour is not in text.slots_file"):
        commands(slots)
    slots["texts"].write_text(text.replace("\t", " "))
    with pytest.raises(DataError, match="no tab between words and slots"):
        commands(slots)
    slots["texts"].unlink()
    with pytest.raises(DataError, match=r"all.iob.snips.txt: missing"):
        commands(slots)


def test_tables_of_sentences(tmp_path):
    from s3prl.downstream.ctc.corpus.common_voice import CommonVoiceDataset
    from s3prl.downstream.ctc.text import CharacterTextEncoder

    letters = CharacterTextEncoder([" ", *corpora.LETTERS])
    tables = [
        corpora.lines(tmp_path / f"{name}.tsv", "path\tsentence", *(f"{name}{i}.wav\tONE" for i in range(4)))
        for name in "ab"
    ]
    names = [str(table) for table in tables]
    whole = CommonVoiceDataset(names, letters, 1, "/clips")
    assert [path.name for path, _ in whole] == [f"{name}{i}.wav" for name in "ab" for i in range(4)]
    half = CommonVoiceDataset(names, letters, 1, "/clips", ratio=0.5, offset=1)
    assert [str(path) for path, _ in half] == [f"/clips/{name}{i}.wav" for name in "ab" for i in (1, 3)]
    tables[0].write_text("path\tsentence\nalone.wav\n")
    with pytest.raises(DataError, match=r"a.tsv: row 2 has 1 cells, expected 2"):
        CommonVoiceDataset(names, letters, 1, "/clips")
    tables[0].write_text("path\tsentence\n")
    with pytest.raises(DataError, match="no line below the header"):
        CommonVoiceDataset(names, letters, 1, "/clips")
    with pytest.raises(DataError, match=r"absent.tsv: missing"):
        CommonVoiceDataset(["absent.tsv"], letters, 1, "/clips")
