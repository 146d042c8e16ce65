"""The command ``probe`` on a corpus of tones and tiny models."""

import json

import pytest

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.probe.probe_record import HEADS, PROBES, ProbeRecord
from tests.helpers.models import tiny
from tests.helpers.probe_corpora import UNHEARD, tone_corpus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus with its table, and two models."""
    folder = tmp_path_factory.mktemp("probing")
    (folder / "corpus").mkdir()
    tone_corpus(folder / "corpus").write(folder / "corpus" / "aligned.tsv.gz")
    for name in ("one", "two"):
        save_model(tiny("hubert", seed=len(name) + ord(name[0])), folder / name)
    return folder


@pytest.fixture(scope="module")
def out(place):
    """The records of a model and the floors."""
    arguments = ["probe", str(place / "one"), "--corpus", str(place / "corpus"), "--out", str(place / "out")]
    assert main(arguments) == 0
    return place / "out"


def test_a_model_and_the_floors_are_probed_under_both_heads(out):
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("one.probe.json", "log-mel.probe.json", "mfcc.probe.json", "random-one.probe.json"),
        *("probes.md", "probes.png"),
    }
    record = ProbeRecord.read(out / "one.probe.json")
    assert {(each.probe, each.head) for each in record.scores} == {(p, h) for p in PROBES for h in HEADS}
    assert all(len(record.curves[probe]) == 4 for probe in PROBES)
    assert record.corpus["voices_tested"] == list(UNHEARD)
    assert set(record.seconds) >= {"hidden states", "words, best layer", "verification, layer weights"}


def test_a_spectrum_tells_tones_apart(out):
    floor = ProbeRecord.read(out / "log-mel.probe.json")
    for probe in ("words", "phones"):
        for head in HEADS:
            assert floor.score(probe, head).estimate.value > 85
    assert floor.chance["words"] < 50


def test_finished_records_are_kept_and_never_replaced(place, out, capsys):
    before = {path.name: path.read_bytes() for path in out.glob("*.json")}
    options = ["--corpus", str(place / "corpus"), "--out", str(out), "--no-floors"]
    assert main(["probe", str(place / "one"), *options]) == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.json")} == before
    assert main(["probe", str(place / "two"), "--name", "one", *options]) == 2
    assert "another model or corpus; choose another --out or --name" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.glob("*.json")} == before


def test_a_second_run_gives_the_same_scores(place, out, tmp_path):
    options = ["--corpus", str(place / "corpus"), "--out", str(tmp_path), "--no-floors", "--jobs", "3"]
    assert main(["probe", str(place / "one"), *options]) == 0
    first, second = (json.loads((folder / "one.probe.json").read_text()) for folder in (out, tmp_path))
    for name in ("scores", "curves", "chance", "facts", "corpus"):
        assert first[name] == second[name]


def test_records_are_compared_and_ranked(out, tmp_path, capsys):
    records = [str(out / f"{name}.probe.json") for name in ("one", "log-mel")]
    assert main(["probe", "--compare", *records, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "one-log-mel.png").stat().st_size > 5000
    assert "| one ahead of log-mel by |" in text and "| words (accuracy % ↑) | best layer |" in text
    assert main(["probe", "--order", *records]) == 0
    assert "one → log-mel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "CKPT is missing; --corpus is missing; --out is missing"),
        (["a", "--corpus", "c", "--out", "o", "--name", "x", "--name", "y"], "--name is there 2 times"),
        (["a", "--corpus", "c", "--out", "o", "--jobs", "-1"], "--jobs is -1, allowed: 0 or more"),
        (["a", "b/a", "--corpus", "c", "--out", "o"], "two models have the name 'a'"),
        (["a", "--corpus", "nowhere", "--out", "o"], "nowhere: no such table"),
        (["a", "--compare", "x", "y"], "--compare is given with other work"),
        (["--order", "x"], "x: no such file"),
        (["--compare", ".", "x"], ". is a folder, allowed: a record"),
        (["--order", "x", "y", "--out", "o"], "--out is given with --order, which writes nothing"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["probe", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
