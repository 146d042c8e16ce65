"""Second half of the demo: the corpus of voices, and the runs of s3prl on it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import soundfile
import yaml

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.demo import voice_corpus
from s3prl_dphubert.demo.speaker_id import ComparedUpstream, identify, table
from s3prl_dphubert.errors import ConfigError, RunError
from s3prl_dphubert.superb.run.workers.launcher import Launcher
from s3prl_dphubert.utils import resources
from tests.helpers.models import tiny

RECIPE = "downstream_recipes/demo_sid/config.yaml"


@pytest.fixture
def speech(tmp_path):
    """Two voices with eight embedded clips each, and one with too few."""
    whole = resources.find("assets/speech")
    with (whole / "manifest.tsv").open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    chosen = []
    for voice, count in (("gcin_zh_5", 8), ("asterisk_fr_june", 8), ("pocketsphinx_librivox", 5)):
        chosen += [row for row in rows if row["speaker"] == voice][:count]
    folder = tmp_path / "speech"
    folder.mkdir()
    lines = ["path\tspeaker\tlang"]
    lines += [f"{whole / row['path']}\t{row['speaker']}\t{row['lang']}" for row in chosen]
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder


@pytest.fixture
def recipe(tmp_path):
    """The shipped recipe for two steps, each of which is saved."""
    values = yaml.safe_load(resources.find(RECIPE).read_text(encoding="utf8"))
    values["runner"] |= {"total_steps": 2, "save_step": 1, "eval_step": 2, "log_step": 1}
    values["downstream_expert"]["datarc"] |= {"train_batch_size": 4, "max_timestep": 8000}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf8")
    return path


def test_every_voice_with_enough_clips_is_in_all_splits():
    clips = voice_corpus.choose()
    assert len({clip.name for clip in clips}) == len({clip.source for clip in clips}) == len(clips) == 281
    counts = {}
    for clip in clips:
        counts.setdefault(clip.speaker, [0, 0, 0])[clip.split - 1] += 1
    assert sorted(counts) == [f"id{number}" for number in range(10_001, 10_008)]
    assert all(min(parts) >= 3 and sum(parts) <= voice_corpus.MOST for parts in counts.values())
    assert all(train > dev + test for train, dev, test in counts.values())
    assert voice_corpus.chance(clips) == pytest.approx(9 / 56)


def test_who_speaks_two_languages_is_one_speaker():
    allison = {clip.speaker for clip in voice_corpus.choose() if "allison" in clip.name}
    folders = {clip.name.split("/")[1] for clip in voice_corpus.choose() if clip.speaker in allison}
    assert len(allison) == 1
    assert folders == {"asterisk_en_allison", "asterisk_es_allison"}


def test_the_corpus_has_every_file_of_its_list(speech, tmp_path):
    clips = voice_corpus.choose(speech)
    voice_corpus.build(tmp_path / "a", clips)
    voice_corpus.build(tmp_path / "b", voice_corpus.choose(speech))
    lines = (tmp_path / "a" / voice_corpus.LIST).read_text(encoding="utf8").splitlines()
    assert len(lines) == 16
    for line in lines:
        name = re.fullmatch(r"[123] (id1000[12]/\w+/\d{5}\.wav)", line)[1]
        path = tmp_path / "a" / "dev" / "wav" / name
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert info.frames > 3_000
        assert path.read_bytes() == (tmp_path / "b" / "dev" / "wav" / name).read_bytes()
    assert len(list((tmp_path / "a").rglob("*.wav"))) == 16


def test_a_whole_corpus_is_kept_and_another_choice_replaces_it(speech, tmp_path):
    clips = voice_corpus.choose(speech)
    voice_corpus.build(tmp_path / "corpus", clips)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").rglob("*")}
    voice_corpus.build(tmp_path / "corpus", clips)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").rglob("*")} == before
    voice_corpus.build(tmp_path / "corpus", clips[:8])
    assert len(list((tmp_path / "corpus").rglob("*.wav"))) == 8


def test_table():
    rows = [
        ComparedUpstream("fbank", "fbank"),
        ComparedUpstream("t", "big", 3_250_000, 1_500_000_000, Path("t")),
    ]
    lines = table(rows, {"fbank": 0.5, "t": 1.0}, 0.16, 10.0).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["fbank", "0.000", "–", "50.0"],
        ["big", "3.250", "1.500", "100.0"],
        ["always", "the", "same", "voice", "–", "–", "16.0"],
    ]
    assert "MACs of 10 s (G)" in lines[0]
    assert len({len(line) for line in lines}) == 1


def test_a_recipe_must_save_its_last_step(speech, recipe, tmp_path):
    values = yaml.safe_load(recipe.read_text(encoding="utf8"))
    values["runner"]["save_step"] = 3
    recipe.write_text(yaml.safe_dump(values), encoding="utf8")
    with pytest.raises(ConfigError, match=r"runner\.save_step is 3, allowed: a divisor .* 2"):
        identify([ComparedUpstream("fbank", "fbank")], tmp_path / "sid", recipe, speech)


@pytest.mark.slow
@pytest.mark.s3prl
def test_s3prl_trains_evaluates_resumes_and_is_not_run_again(speech, recipe, tmp_path, monkeypatch, capsys):
    """Real runs of s3prl: training and evaluation, then both again from the checkpoint of step 1."""
    model, out = save_model(tiny("hubert"), tmp_path / "model"), tmp_path / "sid"
    upstreams = [ComparedUpstream("small", "a small one", checkpoint=model)]
    accuracies, chance = identify(upstreams, out, recipe, speech)
    assert chance == 0.5
    assert 0 <= accuracies["small"] <= 1
    folder = out / "small"
    written = yaml.safe_load((out / "config.yaml").read_text(encoding="utf8"))
    assert written["downstream_expert"]["datarc"]["file_path"] == str(out / "corpus")
    assert {"states-2.ckpt", "test_predict.txt", "state.json"} <= {path.name for path in folder.iterdir()}
    assert re.findall(r"a small one +(\w+)", capsys.readouterr().out) == ["training", "evaluation"]

    monkeypatch.setattr(Launcher, "run", None)  # nothing may be run
    assert identify(upstreams, out, recipe, speech) == (accuracies, chance)
    monkeypatch.undo()

    (folder / "evaluated.json").unlink()
    whole = (folder / "states-2.ckpt").read_bytes()
    (folder / "states-2.ckpt").write_bytes(whole[: len(whole) // 2])  # as if it had been killed meanwhile
    assert identify(upstreams, out, recipe, speech)[1] == chance
    log = (out / "small.train.log").read_text(encoding="utf8")
    assert f"Resume from {folder / 'states-1.ckpt'}" in log
    assert (folder / "evaluated.json").exists()

    (folder / "evaluate.log").write_text("test acc: 7.0\n")
    with pytest.raises(
        RunError, match=r"(?s)acc is 700\.0, allowed: .*; the last lines of .*\ntest acc: 7\.0"
    ):
        identify(upstreams, out, recipe, speech)
