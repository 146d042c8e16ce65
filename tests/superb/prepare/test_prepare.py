"""Preparation of each corpus: right, once, and whole whenever it is killed."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import soundfile

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.superb import recipe
from s3prl_dphubert.superb.metrics.der import read_rttm
from s3prl_dphubert.superb.prepare import STEPS, iemocap
from s3prl_dphubert.superb.prepare.step import PreparationStep
from s3prl_dphubert.utils import resources
from tests.helpers import published_corpora

RECIPES = recipe.recipe_folders()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return published_corpora.build(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(built, tmp_path, monkeypatch):
    """All corpora, to be damaged at will; nothing is fetched."""
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(built, tmp_path / "data", copy_function=os.link))


def config(task, data, out, part=None):
    task_recipe = recipe.load(RECIPES[task])
    return task_recipe.config(part if part is not None else next(iter(task_recipe.configs)), data, out)


def prepare(task, data, out):
    for name in recipe.load(RECIPES[task]).needs.prepare:
        STEPS[name](data, out, config(task, data, out))
    return out


def content(folder):
    """Path below the folder -> content, of all but marks and locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(path):
    return [line.split() for line in path.read_text().splitlines()]


def replace(path, text):
    """Another file of that name; what links to the old one keeps it."""
    path.unlink()
    path.write_text(text)


def test_asr_lengths_are_those_of_the_audio(data, tmp_path):
    out = prepare("ASR", data, tmp_path / "out") / "lengths"
    assert sorted(path.name for path in out.iterdir()) == [
        "dev-clean.csv",
        "test-clean.csv",
        "train-clean-100.csv",
    ]
    for table, count in (("train-clean-100", 12), ("dev-clean", 4), ("test-clean", 4)):
        with (out / f"{table}.csv").open() as file:
            lengths = {row["file_path"]: int(row["length"]) for row in csv.DictReader(file)}
        root = data / "LibriSpeech"
        assert lengths == {
            str(path.relative_to(root)): soundfile.info(path).frames
            for path in (root / table).rglob("*.flac")
        }
        assert len(lengths) == count
        assert list(lengths.values()) == sorted(lengths.values(), reverse=True)


def test_asr_without_a_split_or_transcripts(data, tmp_path):
    texts = next((data / "LibriSpeech/dev-clean").rglob("*.trans.txt"))
    texts.unlink()
    with pytest.raises(DataError, match=rf"{texts}: no such file; .*openslr.org/12"):
        prepare("ASR", data, tmp_path / "out")
    shutil.rmtree(data / "LibriSpeech/dev-clean")
    with pytest.raises(DataError, match=r"LibriSpeech/dev-clean: no such folder; .*openslr.org/12"):
        prepare("ASR", data, tmp_path / "out")
    (data / "LibriSpeech/dev-clean").mkdir()
    with pytest.raises(DataError, match=r"dev-clean: holds no SPEAKER/CHAPTER/\*\.flac"):
        prepare("ASR", data, tmp_path / "out")
    assert content(tmp_path / "out") == {}


def test_pr_takes_the_lexica_of_the_user(data, tmp_path, caplog):
    lexica = content(prepare("PR", data, tmp_path / "out"))
    own = content(data / "lexicon")
    assert lexica == {f"lexicon/{name}": text for name, text in own.items()}
    assert len(own) == 2
    assert caplog.text.count("is not the published librispeech-lexicon-") == 2


@pytest.mark.parametrize(("task", "name"), [("SID", "veri_test_class.txt"), ("ASV", "voxceleb1_test_v2.txt")])
def test_voxceleb_has_lists_that_fit_its_audio(data, tmp_path, task, name):
    own = {"SID": "iden_split.txt"}.get(task, name)  # VGG calls it so
    assert content(prepare(task, data, tmp_path / "out")) == {name: (data / "VoxCeleb1" / own).read_bytes()}


def test_voxceleb_with_a_speaker_or_part_missing(data, tmp_path):
    for part in ("dev", "test"):
        shutil.rmtree(data / f"VoxCeleb1/{part}/wav/id10003")
    with pytest.raises(DataError, match=r"1 of 6 speakers of .* have no folder .*: id10003; .*voxceleb"):
        prepare("SID", data, tmp_path / "out")
    with pytest.raises(
        DataError, match=r"test/wav/id10003/video/00004.wav and 1 more: no such file; .*trial"
    ):
        prepare("ASV", data, tmp_path / "out")
    (data / "VoxCeleb1/test").rename(data / "VoxCeleb1/Test")
    for task in ("SID", "ASV"):
        with pytest.raises(DataError, match=r"VoxCeleb1/test/wav: no such folder; .*voxceleb"):
            prepare(task, data, tmp_path / "out")


@pytest.mark.parametrize("line", ["4 id10001/video/00000.wav", "1 id10001/00000.wav", "1 id1/v/0.wav", "#"])
def test_voxceleb_with_a_list_that_is_none(data, tmp_path, line):
    replace(data / "VoxCeleb1/iden_split.txt", f"1 id10001/video/00000.wav\n{line}\n")
    with pytest.raises(DataError, match=r"iden_split.txt: .* is no line of such a list"):
        prepare("SID", data, tmp_path / "out")


def test_sd_folders_tell_who_speaks_when(data, tmp_path):
    out = prepare("SD", data, tmp_path / "out")
    root = data / "Libri2Mix/wav16k/max"
    for name, split, count in (("train", "train-100", 8), ("dev", "dev", 2), ("test", "test", 2)):
        audio = dict(rows(out / name / "wav.scp"))
        assert sorted(audio.values()) == sorted(map(str, (root / split / "mix_both").iterdir()))
        seconds = {mixture: float(time) for mixture, time in rows(out / name / "reco2dur")}
        assert seconds == {mixture: soundfile.info(path).duration for mixture, path in audio.items()}
        assert len(seconds) == count
        speakers = dict(rows(out / name / "utt2spk"))
        turns = {
            said: (mixture, float(start), float(end))
            for said, mixture, start, end in rows(out / name / "segments")
        }
        assert turns.keys() == speakers.keys()
        assert len(turns) == 2 * count
        for said, (mixture, start, end) in turns.items():
            assert speakers[said] in [source.partition("-")[0] for source in mixture.split("_")]
            assert (start, 0 < end - start < seconds[mixture]) == (0.15, True)
        truth = read_rttm(out / name / "rttm")
        for said, (mixture, start, end) in turns.items():
            assert truth[mixture][speakers[said]] == [pytest.approx((start, end), abs=1e-3)]
        by_speaker = {speaker: names for speaker, *names in rows(out / name / "spk2utt")}
        assert {said: speaker for speaker, names in by_speaker.items() for said in names} == speakers


def test_sd_keeps_two_apart_who_speak_at_the_same_time(data, tmp_path):
    turns = data / "LibriMix/metadata/LibriSpeech/dev_clean.rttm"
    line = "SPEAKER {} 1 0.500 1.250 <NA> <NA> {} <NA> <NA>\n"
    sources = [
        source
        for path in (data / "Libri2Mix/wav16k/max/dev/mix_both").iterdir()
        for source in path.stem.split("_")
    ]
    pairs = [source.split("-", 1) for source in sources]
    replace(turns, "".join(line.format(utterance, speaker) for speaker, utterance in pairs))
    speakers = dict(rows(prepare("SD", data, tmp_path / "out") / "dev" / "utt2spk"))
    assert sorted(speakers.values()) == ["100", "101", "102", "103"]


def test_sd_without_mixtures_or_turns(data, tmp_path):
    root, out = data / "Libri2Mix/wav16k/max", tmp_path / "out"
    turns = data / "LibriMix/metadata/LibriSpeech/test_clean.rttm"
    text = turns.read_text()
    for wrong, message in (
        (text.replace(" 100 ", " 999 "), "70-0000 is said by 999, in 100-70-0000_101-71-0000 by 100"),
        ("\n".join(text.splitlines()[1:]), "has no turns of 100-70-0000"),
        ("SPEAKER 1\n", "'SPEAKER 1' is no line of an RTTM"),
        ("", "is empty; it holds turns"),
    ):
        replace(turns, wrong)
        with pytest.raises(DataError, match=message):
            prepare("SD", data, out)
    audio = next((root / "test/mix_both").iterdir())
    replace(turns, text)
    audio.unlink()
    with pytest.raises(DataError, match=rf"{audio}: no such file; .*LibriMix"):
        prepare("SD", data, out)
    replace(root / "metadata/mixture_dev_mix_both.csv", "mixture_ID\n1_2\n")
    with pytest.raises(DataError, match="has no column length"):
        prepare("SD", data, out)
    shutil.rmtree(root)
    with pytest.raises(DataError, match=r"max: no such folder; it holds Libri2Mix .*generate_librimix_sd.sh"):
        prepare("SD", data, out)
    assert content(out) == {}


@pytest.mark.s3prl
def test_er_folds_are_what_s3prls_script_makes(data, tmp_path):
    from s3prl.downstream.emotion import IEMOCAP_preprocess

    out = prepare("ER", data, tmp_path / "out") / "meta_data"
    root = data / "IEMOCAP_full_release"
    for leftover in root.rglob("._*"):  # s3prl reads them as text
        leftover.unlink()
    IEMOCAP_preprocess.main(str(root))
    theirs = sorted(path.relative_to(root / "meta_data") for path in (root / "meta_data").rglob("*.json"))
    assert len(theirs) == 10
    for name in theirs:
        ours, wanted = (json.loads((place / name).read_text()) for place in (out, root / "meta_data"))
        assert ours["labels"] == wanted["labels"]
        entries = [sorted(map(str, each["meta_data"])) for each in (ours, wanted)]
        assert entries[0] == entries[1]
        assert len(entries[0]) == (10 if name.name.startswith("test") else 40)


def test_er_goes_through_dialogues_in_s3prls_order(tmp_path):
    """Of lists with all dialogues; that whole lists are equal to the byte takes the corpus to see."""
    order = {name: values["dialogs"].split() for name, values in iemocap._published().items()}
    assert [len(names) for names in order.values()] == [28, 30, 32, 30, 31]
    root = tmp_path / "IEMOCAP"
    for session, names in order.items():
        for dialog in (f"Ses0{session[-1]}{name}" for name in names):
            for said in (f"{dialog}_M000", f"{dialog}_F000"):
                audio = root / session / "sentences/wav" / dialog / f"{said}.wav"
                audio.parent.mkdir(parents=True, exist_ok=True)
                audio.touch()
            text = root / session / "dialog/EmoEvaluation" / f"{dialog}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("".join(f"[0 - 1]\t{dialog}_{who}000\tneu\t[1, 1, 1]\n" for who in "MF"))
    STEPS["iemocap_folds"](tmp_path, tmp_path / "out", {"downstream_expert": {"datarc": {"root": str(root)}}})
    for session, names in order.items():
        said = json.loads((tmp_path / "out/meta_data" / session / "test_meta_data.json").read_text())[
            "meta_data"
        ]
        wanted = [f"Ses0{session[-1]}{name}_{who}000" for name in names for who in "FM"]
        assert [Path(row["path"]).stem for row in said] == wanted


def test_er_says_when_its_lists_are_not_s3prls(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare("ER", data, tmp_path / "out")
    assert caplog.text.count("10 utterances, not the list of s3prl") == 5


def test_er_without_sessions_evaluations_or_audio(data, tmp_path):
    root = data / "IEMOCAP_full_release"
    shutil.rmtree(root / "Session2/sentences/wav/Ses02F_impro01")
    shutil.rmtree(root / "Session2/sentences/wav/Ses02M_script01_1")
    with pytest.raises(
        DataError, match=r"Session2/dialog/EmoEvaluation: holds no evaluation of an utterance"
    ):
        prepare("ER", data, tmp_path / "out")
    shutil.rmtree(root / "Session3/dialog/EmoEvaluation")
    shutil.rmtree(root / "Session2")
    with pytest.raises(DataError, match=r"Session3/dialog/EmoEvaluation: no such folder; .*sail.usc.edu"):
        prepare("ER", data, tmp_path / "out")
    for number in (3, 4, 5):
        shutil.rmtree(root / f"Session{number}")
    with pytest.raises(DataError, match="holds 1 of the folders Session1 to Session5"):
        prepare("ER", data, tmp_path / "out")


def test_sf_slots_are_the_texts_or_the_corpus_own(data, tmp_path):
    texts = (data / "SNIPS/all.iob.snips.txt").read_text()
    assert [texts.count(f" {slot} ") for slot in ("number", "day", "month")] == [12, 11, 9]
    assert content(prepare("SF", data, tmp_path / "out")) == {"slots.txt": b"O\nnumber\nday\nmonth"}
    (data / "SNIPS/slots.txt").write_text("O\nnumber\nmonth\nyear\nday\n")
    assert content(prepare("SF", data, tmp_path / "out")) == {"slots.txt": b"O\nnumber\nmonth\nyear\nday"}
    (data / "SNIPS/slots.txt").write_text("O\nnumber\n")
    with pytest.raises(DataError, match=r"slots.txt: lacks day, month, which all.iob.snips.txt has"):
        prepare("SF", data, tmp_path / "out")


def test_sf_without_voices_or_tags(data, tmp_path):
    for audio in (data / "SNIPS/valid").glob("Geraint-*"):
        audio.unlink()
    with pytest.raises(DataError, match=r"SNIPS/valid: holds no audio of Geraint"):
        prepare("SF", data, tmp_path / "out")
    replace(data / "SNIPS/all.iob.snips.txt", "Ivy-snips-train-0 BOS THREE FIVE EOS\tO O Ask\n")
    with pytest.raises(DataError, match="Ivy-snips-train-0 has not a tag for each word"):
        prepare("SF", data, tmp_path / "out")


def test_qbe_names_audio_that_its_lists_have_and_the_disk_has_not(data, tmp_path):
    assert content(prepare("QbE", data, tmp_path / "out")) == {}
    root = data / "quesst14Database"
    (root / "Audio/doc_2.wav").unlink()
    with pytest.raises(
        DataError, match=r"Audio/doc_2.wav: no such file; .*language_key_utterances.lst lists it"
    ):
        STEPS["quesst_lists"](data, tmp_path / "new", config("QbE", data, tmp_path))
    replace(root / "scoring/language_key_utterances.lst", "quesst/a.wav czech\n")
    with pytest.raises(DataError, match="lists nothing in nnenglish"):
        prepare("QbE", data, tmp_path / "out")


@pytest.mark.parametrize("task", [task for task in RECIPES if task.lower() in published_corpora.CORPORA])
def test_what_is_made_once_is_not_made_again(data, tmp_path, task):
    out = tmp_path / "out"
    names = recipe.load(RECIPES[task]).needs.prepare
    before = content(prepare(task, data, out))
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if not path.name.endswith(".lock")}
    assert content(prepare(task, data, out)) == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    for name in before:
        (out / name).unlink()
        assert content(prepare(task, data, out)) == before, name
    assert bool(names) == any(times)


def test_a_changed_corpus_is_prepared_anew(data, tmp_path):
    out = tmp_path / "out"
    prepare("ASR", data, out)
    chapter = data / "LibriSpeech/dev-clean/110/8"
    shutil.copytree(data / "LibriSpeech/dev-clean/110/7", chapter)
    (chapter / "110-7.trans.txt").rename(chapter / "110-8.trans.txt")
    assert len(rows(prepare("ASR", data, out) / "lengths/dev-clean.csv")) == 1 + 6
    table = data / "VoxCeleb1/iden_split.txt"
    prepare("SID", data, out)
    replace(table, table.read_text().splitlines()[0])
    assert rows(prepare("SID", data, out) / "veri_test_class.txt") == [["2", "id10001/video/00000.wav"]]
    moved = tmp_path / "moved"
    data.rename(moved)
    prepare("SD", moved, out)
    assert str(moved) in (out / "dev/wav.scp").read_text()


def make(data, folder, config):
    """Two files and a folder, of the content that the input has."""
    text = (data / "input").read_text()
    for name in ("one", "two"):
        (folder / name).write_text(text)
    (folder / "inner").mkdir()
    (folder / "inner" / "three").write_text(text)


def killed(step, data, out, moment):
    """Run a step in a process that is killed before its change of the disk of that number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [moment]

    def hook(event, arguments):
        writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
        opens = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (writes or opens) and str(arguments[0]).startswith(str(out)):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)
    try:
        step(data, out, {})
    finally:
        os._exit(0)


def test_a_step_that_is_killed_anywhere_leaves_old_or_new_or_is_made_again(tmp_path):
    step = PreparationStep("kept", make, lambda data, config: [data / "input"])
    (tmp_path / "input").write_text("old")
    wanted = {
        name: {each: name.encode() for each in ("one", "two", "inner/three")} for name in ("old", "new")
    }
    codes = []
    while not codes or codes[-1]:
        out = tmp_path / f"out{len(codes)}"
        (tmp_path / "input").write_text("old")
        step(tmp_path, out, {})
        assert content(out) == wanted["old"]
        (tmp_path / "input").write_text("new")
        codes.append(killed(step, tmp_path, out, len(codes)))
        step(tmp_path, out, {})
        assert content(out) == wanted["new"]
        assert list(out.rglob("*.part")) == []
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 10


def test_two_processes_prepare_once(tmp_path):
    def slowly(data, folder, config):
        with (data / "calls").open("a") as file:
            file.write("call\n")
        time.sleep(0.5)
        (folder / "made").touch()

    step = PreparationStep("slow", slowly, lambda data, config: [])
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=step, args=(tmp_path, tmp_path / "out", {})) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "call\n"
    assert list(content(tmp_path / "out")) == ["made"]


def test_steps_are_called_by_their_names_and_used():
    assert all(step.name == name for name, step in STEPS.items())
    mini = recipe.recipe_folders(resources.find("downstream_recipes/free_superb"))
    folders = [*RECIPES.values(), *mini.values()]
    used = {name for folder in folders for name in recipe.load(folder).needs.prepare}
    assert used == STEPS.keys()
