"""Starts of s3prl's downstreams with a compressed upstream that ``superb run`` does not make."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from xml.etree import ElementTree

import pytest

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.utils import resources
from tests.helpers.models import tiny
from tests.helpers.s3prl_runs import Experiment, assert_resumed, python

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]

LAYERS = 3
TRANSLATES = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("fairseq", "sacrebleu", "sentencepiece", "sacremoses")),
    reason="fairseq is built by hand, as the page of ST says",
)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """Arguments that choose a tiny model."""
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    save_model(tiny("hubert"), path)
    return ["-u", "dphubert_local", "-k", str(path)]


def assert_trained(experiment, out):
    """Two steps, an evaluation of what they left, and two further steps from there."""
    scores = experiment.scores(out)
    assert len(scores) == len(experiment.task.scores) > 0
    assert all(math.isfinite(score) for score in scores)
    for name in experiment.task.files:
        assert (experiment.folder / name).stat().st_size > 0, name
    assert_resumed(experiment.checkpoint(2), experiment.checkpoint(4), LAYERS + 1)


def test_ks_in_processes_of_their_own(tmp_path, upstream):
    experiment = Experiment("ks", tmp_path, upstream)
    experiment.one(experiment.train).ok()
    evaluated = experiment.one(experiment.evaluate).ok()
    resumed = experiment.one(experiment.resume).ok()
    assert_trained(experiment, evaluated.out)
    assert "s3prl-dphubert" not in evaluated.err + resumed.err


def test_ks_on_less_than_a_batch_is_an_error_in_time(tmp_path, upstream):
    experiment = Experiment("ks", tmp_path, upstream)
    size = "config.downstream_expert.datarc.batch_size=64"
    done = experiment.one([*experiment.train, "-o", size])
    assert done.code == 1
    assert "train: no batch in 21 items at batch size 64" in done.err


@pytest.mark.legacy
@pytest.mark.parametrize("name", ["asr", "sid", "er", "pr"])
def test_trains_evaluates_and_resumes(name, tmp_path, upstream):
    """On the libraries of s3prl's own time; ``test_superb_run.py`` does this for every task on today's."""
    experiment = Experiment(name, tmp_path, upstream)
    done = experiment.several(experiment.train, experiment.evaluate, experiment.resume).ok()
    assert_trained(experiment, done.out)
    assert "s3prl-dphubert" not in done.err  # no complaint


@TRANSLATES
def test_translation_trains_evaluates_and_resumes(tmp_path, upstream):
    experiment = Experiment("st", tmp_path, upstream)
    done = experiment.several(experiment.train, experiment.evaluate, experiment.resume).ok()
    assert_trained(experiment, done.out)
    assert "s3prl-dphubert" not in done.err


@pytest.mark.skipif(
    find_spec("pesq") is None or find_spec("pystoi") is None,
    reason="superb_sg is an extra, compiled when it is installed",
)
def test_filterbank_features_are_an_upstream_too(tmp_path):
    """Their frames are 10 ms apart, and so are those of the spectra then."""
    experiment = Experiment("se", tmp_path, ["-u", "fbank"])
    done = experiment.several(experiment.train, experiment.evaluate).ok()
    assert len(experiment.scores(done.out)) == 3


def test_qbe_finds_words_by_every_layer(tmp_path):
    mini = resources.find("assets/hubert_mini")
    layers = range(1 + len(json.loads((mini / "config.json").read_text())["heads"]))
    experiment = Experiment("qbe", tmp_path, ["-u", "dphubert_local", "-k", str(mini)])
    folders = [tmp_path / f"layer{layer}" for layer in layers]
    starts = [[*experiment.layer, "-l", str(layer), "-p", str(folders[layer])] for layer in layers]
    experiment.several(*starts).ok()
    scores = [detections(folder / "benchmark.stdlist.xml") for folder in folders]
    assert [{query: len(terms) for query, terms in each.items()} for each in scores] == [
        {"eval_0": 4, "eval_1": 4} for _ in layers
    ]
    assert len({str(each) for each in scores}) == len(layers) > 2
    best = [{query: max(terms, key=terms.get) for query, terms in each.items()} for each in scores]
    assert best == [{"eval_0": "doc_0", "eval_1": "doc_2"} for _ in layers]


def test_workers_of_a_spawned_kind_are_repaired_too(tmp_path, upstream):
    experiment = Experiment("qbe", tmp_path, upstream)  # whose loader and matcher have workers
    workers = "config.downstream_expert.datarc.num_workers=1"
    start = [*experiment.layer, "-l", "1", "-o", workers]
    experiment.several(start, method="spawn").ok()
    assert len(detections(experiment.folder / "benchmark.stdlist.xml")) == 2


def detections(path):
    """Query -> document -> score."""
    return {
        query.get("termid"): {term.get("file"): float(term.get("score")) for term in query}
        for query in ElementTree.parse(path).getroot()
    }


def test_superb_ks_of_the_newer_interface(tmp_path, upstream):
    experiment = Experiment("ks", tmp_path, upstream)
    data = experiment.task.config["downstream_expert"]["datarc"]
    steps = [f"--train.{name}_step" for name in ("log", "eval", "save")]
    sizes = [f"--build_batch_sampler.{split}.batch_size" for split in ("train", "valid", "test")]
    arguments = {
        "--target_dir": str(tmp_path / "target"),
        "--prepare_data.gsc1": data["speech_commands_root"],
        "--prepare_data.gsc1_test": data["speech_commands_test_root"],
        "--build_upstream.name": upstream[1],
        "--build_upstream.path_or_url": upstream[3],
        "--device": "cpu",
        "--num_workers": "0",
        "--train.total_steps": "2",
        **dict.fromkeys(steps, "2"),
        **dict.fromkeys(sizes, "4"),
    }
    words = [word for pair in arguments.items() for word in pair]
    python("-m", "s3prl.main", "SuperbKS", *words, cwd=tmp_path).ok()
    result = tmp_path / "target/evaluate/valid_best/test/result.yaml"
    assert "accuracy:" in result.read_text()
