"""The page of ``report``: its numbers, what it says of missing parts, and names that are never markup."""

from __future__ import annotations

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from s3prl_dphubert.cli import main
from s3prl_dphubert.run_report.page_blocks import amount
from s3prl_dphubert.superb.scoring import score_file
from tests.helpers.reported_runs import HOSTILE, write_run, write_scores
from tests.helpers.superb_runs import RECORD


class Reader(HTMLParser):
    """Tags in their order with their attributes, and the text of each section."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.section = "head"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "section":
            self.section = values["id"]

    def handle_data(self, data):
        self.texts[self.section] = " ".join([self.texts.get(self.section, ""), *data.split()])

    def pictures(self) -> dict[str, ElementTree.Element]:
        """Alternative text -> embedded SVG."""
        images = [values for tag, values in self.tags if tag == "img"]
        prefix = "data:image/svg+xml;base64,"
        assert all(image["src"].startswith(prefix) for image in images)
        return {
            image["alt"]: ElementTree.fromstring(base64.b64decode(image["src"].removeprefix(prefix)))
            for image in images
        }


def texts(picture: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()) for each in picture.iter("{http://www.w3.org/2000/svg}text")]


def report(folder, *arguments) -> Reader:
    target = folder / "report.html"
    assert main(["report", *map(str, arguments), "--out", str(target), "--overwrite"]) == 0
    reader = Reader()
    reader.feed(target.read_text(encoding="utf8"))
    return reader


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    write_run(place / "first")
    write_scores(place / "scores", "teacher", "first", "fbank")
    return place


def test_a_run_with_scores_has_it_all(place, tmp_path, capsys):
    page = report(tmp_path, place / "first", "--scores", place / "scores", "--measure")
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    head, cost, units = page.texts["head"], page.texts["cost"], page.texts["units"]
    assert " first " in head and "made from hubert_mini · finished" in head
    assert "validation loss 0.125 0.250 right after pruning" in head
    assert "compute for 1 s of audio" in head and "as fast as the teacher" in head
    assert re.search(r"hubert_mini teacher 0\.025 M 100\.0 %", cost)
    assert re.search(r"fastest of 5 runs that took turns", cost) and "× real time" in cost
    assert "0 only the output bias" in units and "4 ids 0 1 2 3" in units
    training = page.texts["training"]
    assert "0.0000 0.2500 0.2500 0.1250 50.10 % target 50.00 % parameters" in training
    assert "first: 2 updates were skipped for values that are not finite." in training
    scores = page.texts["scores"]
    assert re.search(r"teacher 9\.00 k 43\.50 SE 0\.8\d .*first 8\.00 k 48\.50 SE .* fbank 7\.00 k", scores)
    assert "FreeSUPERB; they do not compare with SUPERB's" in scores
    repeat = page.texts["repeat"]
    assert f"s3prl-dphubert compress {place / 'first' / 'config.yaml'} --out NEW" in repeat
    assert "environment stage1 stage2 torch 2.14.1 2.14.1 threads 2 2" in repeat
    assert "Scores were made with torch 2.14.1." in repeat and "python -m s3prl.run_downstream" in repeat
    pictures = page.pictures()
    assert len(pictures) == 6
    assert {"50", "25", "12", "KS"} <= set(texts(pictures["Layer weights of first by task"]))
    assert "bias" in texts(pictures["Units that each layer of first kept"])
    assert "Removed by the gates" in texts(pictures["Loss and sparsity of first over time"])
    assert [
        text for text in texts(pictures["Scores of all models with their standard errors"])
        if text in ("teacher", "first", "fbank")
    ] == ["teacher", "first", "fbank"]  # fmt: skip
    assert "missing" not in [values.get("class") for tag, values in page.tags if tag == "p"]


def test_several_runs_stand_side_by_side(place, tmp_path):
    second = write_run(tmp_path / "second", teacher="hubert_base")
    third = write_run(tmp_path / "deeper" / "second", teacher="hubert_base")
    page = report(tmp_path, place / "first", second, third)
    assert "3 runs" in page.texts["head"]
    assert "made from hubert_mini, hubert_base" in page.texts["head"]
    for name in ("first", str(second), str(third)):  # two of one name by their paths
        assert f" {name} " in page.texts["cost"]
        assert f"Units that each layer of {name} kept" in page.pictures()
    assert page.texts["cost"].count("teacher 0.025 M") == 2
    curves = texts(page.pictures()["Validation loss of all runs"])
    assert {"first", str(second), str(third)} <= set(curves)


def test_what_is_missing_is_said(place, tmp_path):
    run = shutil.copytree(place / "first", tmp_path / "run")
    page = report(tmp_path, run)
    assert "report --measure times the models" in page.texts["cost"]
    assert "No scores were given; report --scores FOLDER" in page.texts["scores"]
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "stage2")
    (run / "results.json").write_text(json.dumps({"valid": {}}))
    page = report(tmp_path, run)
    assert "not finished" in page.texts["head"]
    assert "run: no units to show" in page.texts["units"]
    assert "run: stage2/log.jsonl is missing or empty" in page.texts["training"]
    assert "run: no model yet: stage 1 is not finished" in page.texts["training"]
    assert "run: no environment is recorded" in page.texts["repeat"]
    shutil.rmtree(run / "stage1")
    (run / "config.yaml").write_text("teacher: [")
    (run / "results.json").write_text(json.dumps({"valid": {"stage1": {"loss": 1.0}}}))
    page = report(tmp_path, run, "--measure")
    assert "run: no configuration: " in page.texts["training"]
    assert page.pictures() == {}


def test_models_that_do_not_load_are_named(place, tmp_path):
    run = shutil.copytree(place / "first", tmp_path / "run")
    text = (run / "config.yaml").read_text().replace("hubert_mini", str(tmp_path / "gone"))
    (run / "config.yaml").write_text(text)
    page = report(tmp_path, run, "--measure")
    assert f"{tmp_path / 'gone'} was not timed" in page.texts["cost"]
    assert "compute for 1 s of audio" in page.texts["head"]


def test_scores_without_layer_weights_and_of_a_failed_run(place, tmp_path):
    scores = write_scores(tmp_path / "scores", "a", "b", weighted=False)
    (scores / "1" / "ks" / "failed.json").write_text('{"error": "no disk"}')
    page = report(tmp_path, place / "first", "--scores", scores)
    assert (
        "No layer weights in score.json of a: of an upstream with one hidden state" in page.texts["weights"]
    )
    assert "Left out: KS of b: its last run failed (no disk)" in page.texts["scores"]


def test_results_of_superb_stand_beside_published_ones(place, tmp_path):
    record = replace(RECORD, upstream="small", metrics={"acc": 95.5}, layer_weights={"ks": (0.25,) * 4})
    score_file.write(record, tmp_path / "scores" / "ks")
    page = report(tmp_path, place / "first", "--scores", tmp_path / "scores")
    scores = page.texts["scores"]
    assert "SUPERB parameters KS Acc % ↑ score small 23.6 M 95.50 –" in scores
    assert re.search(r"HuBERT Base \S.* 94\.7 M 96\.30 941", scores)
    assert "FBANK" in scores and "data2vec" not in scores
    assert "small has no score: PR, ASR" in scores
    drawn = texts(page.pictures()["Scores of all models with their standard errors"])
    assert {"small", "HuBERT Base", "DistilHuBERT", "KS Acc % ↑"} <= set(drawn)


def test_exported_files_in_the_directory_are_listed(place, tmp_path):
    run = shutil.copytree(place / "first", tmp_path / "run")
    speed = {"file": 0.002, "onnx, float32": 0.003, "torch, float32": 0.004}
    values = {"file": "small.onnx", "info": {"precision": "int8"}, "bytes": 2_500_000, "speed": speed}
    (run / "small.onnx.report.json").write_text(json.dumps(values | {"mean_error": 0.0123}))
    (run / "other.onnx.report.json").write_text("[")
    page = report(tmp_path, run)
    assert "small.onnx run int8 2.5 MB 2.00 0.50 1.23%" in page.texts["cost"]


def test_names_are_text_and_never_markup(tmp_path):
    run = write_run(tmp_path / "a<b>&'\"$x$", teacher=HOSTILE)
    scores = write_scores(tmp_path / "scores", HOSTILE, "<i>other</i>")
    page = report(tmp_path, run, "--scores", scores, "--title", HOSTILE)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "i", "b", "iframe", "link", "object"}
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    assert HOSTILE in page.texts["scores"] and HOSTILE in page.texts["repeat"]
    assert all(values["src"].startswith("data:") for tag, values in page.tags if tag == "img")
    assert HOSTILE in texts(page.pictures()["Scores of all models with their standard errors"])
    assert all(values["href"].startswith("#") for tag, values in page.tags if tag == "a")


def test_a_page_is_the_same_each_time(place, tmp_path):
    pages = []
    for _ in range(2):
        report(tmp_path, place / "first", "--scores", place / "scores")
        pages.append((tmp_path / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_what_is_there_is_not_overwritten_and_mistakes_are_one_line(place, tmp_path, capsys):
    target = tmp_path / "report.html"
    target.write_text("mine")
    assert main(["report", str(tmp_path / "nothing"), "--out", str(target)]) == 2
    assert "exists already; choose another --out or --overwrite" in capsys.readouterr().err
    assert main(["report", str(place / "first"), "--out", str(tmp_path)]) == 2
    assert "a folder, allowed: a file such as" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "x.html")]) == 2
    assert "holds no run of compress" in capsys.readouterr().err
    assert main(["report", str(place / "first"), "--scores", str(place), "--benchmark", "X"]) == 2
    assert "no results of benchmark 'X'; available: FreeSUPERB" in capsys.readouterr().err
    assert target.read_text() == "mine" and not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1480, "1.48 k"),
        (813_179, "813 k"),
        (5_922_816, "5.92 M"),
        (5.27e10, "52.7 G"),
    ],
)
def test_amounts_have_three_digits(number, text):
    assert amount(number) == text
