"""FreeSUPERB: a slice of every task, built from small packages made of the embedded speech."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from s3prl_dphubert.data.manifest import Manifest
from s3prl_dphubert.errors import ConfigError, DataError, RunError
from s3prl_dphubert.free_superb import build, clips, inventory, voices
from s3prl_dphubert.free_superb.clips import normalise
from s3prl_dphubert.free_superb.corpora import ks_corpus, sid_asv_corpus
from s3prl_dphubert.free_superb.layout import SYNTHESISED
from s3prl_dphubert.free_superb.sources import packages
from s3prl_dphubert.free_superb.sources.espeak import Voice, speak
from s3prl_dphubert.free_superb.utterance import load
from s3prl_dphubert.superb import recipe
from s3prl_dphubert.superb.metrics import mtwv
from s3prl_dphubert.superb.metrics.der import read_rttm
from s3prl_dphubert.superb.prepare import STEPS
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.readers import read_table
from tests.helpers import debian_packages
from tests.helpers.golden import ROOT
from tests.helpers.s3prl_runs import Experiment

pytestmark = pytest.mark.slow

RECIPES = resources.find("downstream_recipes/free_superb")
OPEN = ("SID",)
"""Tasks whose protocol has the test voices in training."""

SYNTHETIC = ("ER", "IC", "SF")
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.helpers import debian_packages
from s3prl_dphubert.free_superb.build import build
debian_packages.shrink()
folder = Path(sys.argv[2])
build(Path(sys.argv[3]), debs=folder / "debs", tables=folder / "tables")
"""


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """Folder with ``debs`` and ``tables``."""
    folder = tmp_path_factory.mktemp("packages")
    debian_packages.build(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def slice_of_it():
    with pytest.MonkeyPatch.context() as patch:
        debian_packages.shrink(patch.setattr)
        yield


def make(debs: Path, out: Path, *tasks: str, **options: bool) -> Path:
    build.build(out, tasks or ("all",), debs / "debs", tables=debs / "tables", **options)
    return out


@pytest.fixture(scope="module")
def built(debs, tmp_path_factory):
    """A whole build, with the lists of speech without labels."""
    return make(debs, tmp_path_factory.mktemp("mini") / "a", unlabelled=True)


def rows(out: Path) -> list[dict[str, str]]:
    return [row for path in sorted((out / "manifests").glob("*.tsv")) for row in read_table(path, ())]


def heard(split_rows: list[dict[str, str]]) -> dict[tuple[str, str], set[str]]:
    """(Task, split) -> voices."""
    voices_of = defaultdict(set)
    for row in split_rows:
        voices_of[row["task"], row["split"]].update(row["voices"].split())
    return voices_of


def test_all_tasks_are_there(built):
    assert {task for task, _ in heard(rows(built))} == {
        *("ASR", "KS", "QbE", "SID", "ASV", "SD", "ER", "IC", "SF", "SE", "SS")
    }
    assert len(build.CORPORA) == 11
    listed = {row["path"] for row in rows(built)}
    assert len(listed) == len(rows(built))
    for path in listed:
        info = soundfile.info(built / path)
        assert info.samplerate == 16_000 and info.channels == 1 and info.frames > 0


def test_two_builds_are_the_same_to_the_bit(debs, built, tmp_path):
    other = make(debs, tmp_path / "elsewhere")
    assert inventory.digest(other) == inventory.digest(built)
    assert json.loads((other / "splits.json").read_text())["sha256"] == inventory.digest(built)


def check_voices(voices_of: dict[tuple[str, str], set[str]]) -> int:
    """Compare each training split with the validation and test splits of all tasks; return how many pairs."""
    compared = 0
    for (task, split), trained in voices_of.items():
        if split != "train" or task in OPEN:
            continue
        for (other, second_split), second in voices_of.items():
            if second_split != "train" and not other.startswith("ER"):
                assert not trained & second, (task, split, other, second_split)
                compared += 1
    for (task, split), spoken in voices_of.items():
        if split in ("dev", "test") and task not in SYNTHETIC:
            assert spoken <= set(voices.HELD_OUT), (task, split)
        if split in voices.SPLITS and task not in (*OPEN, *SYNTHETIC, "ASV"):
            assert {voices.split_of(voice) for voice in spoken} == {split}, (task, split)
    return compared


def test_no_test_voice_is_in_training(built):
    assert check_voices(heard(rows(built))) >= 100


def test_no_test_voice_is_in_training_of_the_real_benchmark():
    known = json.loads((ROOT / "docs" / "reference" / "free-superb.json").read_text())["tasks"]
    voices_of = {
        (task, split): set(values["voices"])
        for task, splits in known.items()
        for split, values in splits.items()
    }
    assert len(known) == 12 and check_voices(voices_of) >= 150
    for task in ("PR", "ASR", "KS", "SD", "SE", "SS"):
        assert voices_of[task, "test"] == set(voices.ROLES["test"])
        assert voices_of[task, "dev"] == set(voices.ROLES["dev"])
    assert voices_of["PR", "train"] == set(voices.ROLES["train"])
    assert voices_of["SID", "train"] == voices_of["ASV", "test"] == set(voices.HELD_OUT)
    assert voices_of["QbE", "documents"] | voices_of["QbE", "test"] == set(voices.ROLES["test"])


def test_verification_tries_all_pairs(built):
    lines = (built / sid_asv_corpus.ASV_LIST).read_text().split("\n")[:-1]
    files = {name for line in lines for name in line.split()[1:]}
    assert len(lines) == len(set(lines)) == len(files) * (len(files) - 1) / 2
    assert all((built / "VoxCeleb1_verification" / "test" / "wav" / name).is_file() for name in files)
    for label, first, second in map(str.split, lines):
        assert (first.partition("/")[0] == second.partition("/")[0]) == (label == "1")


def test_clips_name_what_they_are_made_of(built):
    clips = {path.relative_to(built / "corpus").as_posix() for path in (built / "corpus").rglob("*.flac")}
    for row in rows(built):
        sources = row["clips"].split()
        assert set(sources) <= clips
        synthesised = row["task"] in build.SYNTHESISED
        assert (row["licences"] == SYNTHESISED) == synthesised == (not sources)
        assert row["licences"] in (SYNTHESISED, "freeware", "CC-BY-SA-3.0")


def test_speech_without_labels_is_nobodys_who_is_tested(built):
    manifests = {name: Manifest.load(built / "unlabelled" / f"{name}.tsv") for name in ("train", "valid")}
    names = {name: {Path(entry.path).stem for entry in each.entries} for name, each in manifests.items()}
    assert not names["train"] & names["valid"]
    spoken = {
        row["name"]: row["voice"] for row in read_table(built / "corpus" / "clips.tsv", ("name", "voice"))
    }
    unnamed = {name for each in names.values() for name in each if name not in spoken}
    assert unnamed == {"asterisk__sounds__fr_CA_f_June__un"}
    used = {spoken[name] for each in names.values() for name in each - unnamed}
    assert used == {"bob", "tam", "witch", "joe", voices.OPERATOR}
    tested = [row for row in rows(built) if row["task"] != "ER" and row["split"] not in ("train",)]
    tested = [row for row in tested if row["task"] != "SE"]  # babble of training voices
    sources = {Path(clip).stem for row in tested for clip in row["clips"].split()}
    assert len(sources) > 30 and not sources & (names["train"] | names["valid"])
    for entry in manifests["train"].entries:
        assert soundfile.info(entry.path).frames == entry.samples


def test_validation_without_labels_is_chosen_by_name(built, debs, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "VALIDATION", 0.5)
    other = make(debs, tmp_path / "half", "qbe", unlabelled=True)
    paths = {}
    for name in ("train", "valid"):
        manifest = Manifest.load(other / "unlabelled" / f"{name}.tsv")
        paths[name] = {Path(entry.path).relative_to(other / "corpus") for entry in manifest.entries}
    assert not paths["train"] & paths["valid"]
    assert 0.3 < len(paths["valid"]) / len(paths["train"] | paths["valid"]) < 0.7
    assert len({path.parts[0] for path in paths["valid"]}) > 1
    entries = Manifest.load(built / "unlabelled" / "valid.tsv").entries
    assert {Path(entry.path).relative_to(built / "corpus") for entry in entries} <= paths["valid"]


def ends(group: int, seconds: float = 20) -> bool:
    """Return whether a group of processes is gone before long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_killed_build_goes_on_and_ends_the_same(debs, built, tmp_path):
    command = [sys.executable, "-c", KILLED, str(ROOT), str(debs), str(tmp_path / "killed")]
    out = tmp_path / "killed"
    clip = f"corpus/{debian_packages.QUEEN}/160006P1.flac"
    for table in (clip, "manifests/speech_commands.tsv", "manifests/fluent_commands.tsv"):
        running = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
        while running.poll() is None and not (out / table).exists():
            time.sleep(0.02)
        assert running.poll() is None, running.communicate()[1][-2000:]
        running.kill()
        running.communicate()
        assert ends(running.pid), "nothing that it started outlives it"
        assert not (out / "splits.json").exists()
    first = (out / "manifests" / "librispeech.tsv").stat().st_mtime_ns
    make(debs, out)
    assert inventory.digest(out) == inventory.digest(built)
    assert (out / "manifests" / "librispeech.tsv").stat().st_mtime_ns == first, "what is whole stays"
    assert not list(out.rglob("*.part")) and not list(out.glob(".*.fresh"))


def test_killed_while_decoding_keeps_what_is_decoded(debs, tmp_path):
    table = packages.table(debs / "tables" / "packages.tsv")
    path = debs / "debs" / table[debian_packages.PROMPTS].file
    whole = clips.decode(debian_packages.PROMPTS, path, tmp_path)
    assert len(whole) == 6
    (tmp_path / f"{debian_packages.PROMPTS}.tsv").unlink()
    intact, lost, *_ = sorted((tmp_path / debian_packages.PROMPTS).glob("*.flac"))
    before = intact.stat().st_mtime_ns
    lost.unlink()
    assert clips.decode(debian_packages.PROMPTS, path, tmp_path) == whole
    assert intact.stat().st_mtime_ns == before and lost.exists()


def test_other_packages_have_all_laid_out_anew(debs, tmp_path):
    out = make(debs, tmp_path / "mini", "qbe")
    first = (out / "manifests" / "quesst.tsv").stat().st_mtime_ns
    make(debs, out, "qbe")
    assert (out / "manifests" / "quesst.tsv").stat().st_mtime_ns == first
    decoded = next((out / "corpus").rglob("*.flac"))
    times = [first, decoded.stat().st_mtime_ns]
    packages_of = (out / ".made").read_text().split()[0]
    (out / ".made").write_text(f"{packages_of}\nother rules")
    make(debs, out, "qbe")
    assert (out / "manifests" / "quesst.tsv").stat().st_mtime_ns > times[0]
    assert decoded.stat().st_mtime_ns == times[1]
    (out / ".made").write_text("other packages")
    make(debs, out, "qbe")
    assert decoded.stat().st_mtime_ns > times[1]


def test_folder_of_real_corpora_is_left_alone(debs, tmp_path):
    (tmp_path / "LibriSpeech").mkdir()
    with pytest.raises(RunError, match="is not empty and holds no build of FreeSUPERB"):
        make(debs, tmp_path, "asr")
    assert [path.name for path in tmp_path.iterdir()] == ["LibriSpeech"]


def test_wrong_package_stops_the_build(debs, tmp_path):
    (tmp_path / "debs").mkdir()
    for path in (debs / "debs").iterdir():
        (tmp_path / "debs" / path.name).write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="has the sha256"):
        build.build(tmp_path / "out", ("asr",), tmp_path / "debs", tables=debs / "tables")
    assert not (tmp_path / "out" / "manifests").exists()


def test_unknown_task_names_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="unknown task ST, allowed: all, asr, asv, er"):
        build.build(tmp_path, ("asr", "st"))


def test_script_tells_voices_and_texts(built):
    table = {
        row["name"]: row for row in read_table(built / "corpus" / "clips.tsv", ("name", "voice", "text"))
    }
    assert table["100001P1"]["voice"] == "bob" and table["100001P1"]["text"] == "Zero yes five."
    assert (table["100063J1"]["voice"], table["100063J1"]["text"]) == ("joe", "Zero zero")
    assert (table["100063J2"]["voice"], table["100063J2"]["text"]) == ("joe", "two.")
    assert table["JOE00421"]["voice"] == "joe"
    assert "C10A_011" not in table, "nobody knows who speaks in a cut scene"
    assert table["C10A_021"]["voice"] == "joe", "but for the hero"
    assert "JOE00411" not in table, "the same recording again"
    assert "0001SSSS" not in {path.stem for path in (built / "corpus").rglob("*.flac")}
    assert {row["name"].rpartition("__")[2] for row in table.values() if row["voice"] == voices.OPERATOR} == {
        f"prompt-{index}" for index in range(6)
    }


def test_keywords_are_cut_where_they_are_said(built):
    """The clip of a word that stands between pauses is in the middle of its second, the rest is nothing."""
    for row in rows(built):
        if row["task"] == "KS" and row["label"] in ks_corpus.KEYWORDS:
            audio = soundfile.read(built / row["path"])[0]
            loud = np.flatnonzero(np.abs(audio) > 0.05)
            assert len(audio) == 16_000 and abs(8000 - (loud[0] + loud[-1]) / 2) < 2500
    train = {
        row["path"].split("/")[1] for row in rows(built) if row["task"] == "KS" and row["split"] == "train"
    }
    assert set(ks_corpus.KEYWORDS) & train and ks_corpus.NOISE in train


def test_turns_of_a_conversation_are_where_the_rttm_says(built):
    turns = read_rttm(built / "conversations" / "test" / "rttm")
    assert len(turns) == 2
    text = (built / "conversations" / "test" / "rttm").read_text()
    quiet_and_loud = []
    for name in sorted({line.split()[1] for line in text.splitlines()}):
        audio = soundfile.read(built / "conversations" / "test" / "wav" / f"{name}.flac")[0]
        speech = np.zeros(len(audio), bool)
        for line in text.splitlines():
            fields = line.split()
            if fields[1] == name:
                first, last = (round(16_000 * float(second)) for second in (fields[3], 0))
                last = first + round(16_000 * float(fields[4]))
                speech[first:last] = True
        quiet_and_loud.append((np.mean(audio[~speech] ** 2), np.mean(audio[speech] ** 2)))
    assert all(loud > 20 * quiet for quiet, loud in quiet_and_loud)


def test_mixtures_are_the_sum_of_their_voices(built):
    mixtures = sorted((built / "Libri2Mix" / "wav16k" / "min" / "test" / "mix_clean").glob("*.wav"))
    assert len(mixtures) == 2
    for path in mixtures:
        parts = [soundfile.read(path.parent.parent / kind / path.name)[0] for kind in ("s1", "s2")]
        np.testing.assert_allclose(soundfile.read(path)[0], sum(parts), atol=2e-4)


def test_same_text_and_voice_sound_the_same_whatever_was_said_before():
    voice = Voice("en-us+f3")
    first = speak("turn on the lights", voice)
    speak("something else altogether", Voice("en-gb-scotland+m2", rate=190))
    assert len(first) > 8000 and np.array_equal(first, speak("turn on the lights", voice))
    assert not np.array_equal(first, speak("turn on the lights", voice.changed(pitch=70)))
    with pytest.raises(DataError, match="no such voice"):
        speak("turn on the lights", Voice("nobody"))


def test_utterances_have_words_and_phones(built, debs):
    labelled = clips.read_clips(built / "corpus" / "clips.tsv")
    utterances = load(labelled, built / "corpus", debs / "tables").utterances
    aligned = [u for u in utterances if u.words]
    assert len(aligned) > 90 and not any(u.phones for u in utterances if not u.words)
    for utterance in aligned:
        spoken = [phone for phone in utterance.phones if phone.text != "SIL"]
        assert [(p.start, p.end) for p in spoken] == [(w.start, w.end) for w in utterance.words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't -- <laughs> STOP...", ("DON'T", "STOP")),
        ("'Tis a well-known 'fact'", ("TIS", "A", "WELL", "KNOWN", "FACT")),
        ("In 1949", ()),
        ("Café", ()),
        ("...", ()),
    ],
)
def test_words_of_a_text(text, words):
    assert normalise(text) == words


def test_alignment_of_another_text_is_refused(debs, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in (debs / "tables").iterdir():
        (tables / path.name).write_bytes(path.read_bytes())
    debian_packages.table(tables / "alignments.tsv.gz", "name\twords", {"100001P1": "0:10 10:10"})
    with pytest.raises(DataError, match=r"100001P1\.flac: has 3 words, alignments\.tsv\.gz has 2"):
        build.build(tmp_path / "out", ("asr",), debs / "debs", tables=tables)


def test_page_and_committed_page_come_from_the_splits(built):
    page = (built / "README.md").read_text()
    counted = json.loads((built / "splits.json").read_text())["tasks"]
    for task, splits in counted.items():
        for split, values in splits.items():
            assert f"| {task} | {split} | {values['files']} | {values['minutes']:.1f} |" in page
    assert (
        "13 voices are\nheld out: death, lou, oracle, prin, zombie validate, and\nbud, chief, faye, " in page
    )
    docs = ROOT / "docs" / "reference"
    assert (
        inventory.page(json.loads((docs / "free-superb.json").read_text()))
        == (docs / "free-superb.md").read_text()
    )


def narrow(expert: dict[str, Any]) -> None:
    """Make a configuration cheap."""
    for model in (expert.get("modelrc", {}), expert.get("model", {})):
        if "RNNs" in model:
            model["project_dim"], model["RNNs"]["dim"] = 16, [16, 16]
        if "hidden_size" in model:
            model["hidden_size"] = 16
    if "max_workers" in expert:
        expert["max_workers"] = 1
    if "vad_config" in expert.get("datarc", {}):
        expert["datarc"]["vad_config"]["min_sec"] = 8000


SHORT = {"total_steps": 2, "log_step": 1, "eval_step": 2, "save_step": 2}
TRAINED = ("pr", "asr", "ks", "sid", "asv", "sd", "er", "ic", "sf", "se", "ss")


@pytest.mark.slow
@pytest.mark.s3prl
def test_s3prl_reads_every_task_by_its_recipe(built, tmp_path):
    """Each task is prepared, trained for two steps on fbank; queries are searched and scored."""
    (tmp_path / "home").mkdir()
    starts = []
    for name in (*TRAINED, "qbe"):
        task_recipe = recipe.load(RECIPES / name)
        assert not task_recipe.missing(built)
        part = next(iter(task_recipe.configs))
        config = task_recipe.config(part, built, tmp_path / name)
        config["runner"] = {**config["runner"], **SHORT} if name != "qbe" else config["runner"]
        narrow(config["downstream_expert"])
        (tmp_path / name).mkdir()
        for step in task_recipe.needs.prepare:
            STEPS[step](built, tmp_path / name, config)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        mode = ["-m", "evaluate", "-t", "test", "-l", "0"] if name == "qbe" else ["-m", "train"]
        downstream, place = task_recipe.task.downstream, str(tmp_path / name / "experiment")
        configured = ["-c", str(tmp_path / f"{name}.yaml"), "-p", place]
        starts.append([*mode, "-d", downstream, *configured, "-u", "fbank", "--device", "cpu"])
    runner = object.__new__(Experiment)
    runner.place = tmp_path
    runner.several(*starts).ok()
    for name in TRAINED:
        assert list((tmp_path / name / "experiment").glob("*states-2.ckpt")), name
    truth = built / "quesst14Database" / "scoring" / "groundtruth_quesst14_eval"
    score = mtwv.score(tmp_path / "qbe" / "experiment" / "benchmark.stdlist.xml", truth)
    assert score.queries > 0 and score.unknown == 0


def test_every_task_has_a_recipe_that_says_where_its_data_is(built):
    folders = recipe.recipe_folders(RECIPES)
    assert sorted(folders) == sorted(task for one in build.CORPORA for task in one.tasks)
    for name, folder in folders.items():
        changed = yaml.safe_load((folder / "config.yaml").read_text())
        assert changed["base"] == f"../../{folder.name}/config.yaml"
        assert not recipe.load(folder).missing(built), name
