"""Runs of SUPERB on the miniature corpora: the recipes that ship, with small models and few steps."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.superb.run.plan import RunPlan, choose
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.scoring.score_file import ScoreRecord
from s3prl_dphubert.utils import resources
from tests.helpers import published_corpora, sg_corpora
from tests.helpers.corpora import lines
from tests.helpers.models import tiny

RUNNER = {"total_steps": 2, "log_step": 1, "eval_step": 1, "save_step": 1, "gradient_accumulate_steps": 1}
_RNN = {"project_dim": 16, "RNNs": {"dim": [16, 16]}}
_SPECAUG = {"time_mask_width_range": [0, 4], "freq_mask_width_range": [0, 5]}
_CLASSIFIER = {"modelrc": {"projector_dim": 16}}
_XVECTOR = {"input_dim": 16, "module_config": {"XVector": {"agg_dim": 24}}}
_SEPARATION = {
    "loaderrc": {"num_workers": 0, "train_batchsize": 2},
    "modelrc": {"rnn_layers": 1, "hidden_size": 16},
}


def _data(**more: Any) -> dict[str, Any]:
    return {"datarc": {"num_workers": 0, **more}}


SMALL: dict[str, dict[str, Any]] = {
    "pr": {"corpus": {"batch_size": 4, "num_workers": 0}, "model": {"project_dim": 16}},
    "asr": {**_data(batch_size=4, train_batch_size=4), "modelrc": _RNN},
    "ks": {**_data(batch_size=8), **_CLASSIFIER},
    "qbe": {"max_workers": 1, **_data()},
    "sid": {**_data(train_batch_size=4, max_timestep=16_000), **_CLASSIFIER},
    "asv": {**_data(train_batch_size=4, max_timestep=16_000), "modelrc": _XVECTOR},
    "sd": {
        "datarc": {"chunk_size": 100},
        "loaderrc": {"num_workers": 0, "train_batchsize": 4},
        "modelrc": {"hidden_size": 16},
    },
    "er": {**_data(), **_CLASSIFIER},
    "ic": {**_data(), **_CLASSIFIER},
    "sf": {"corpus": {"batch_size": 4, "num_workers": 0}, "model": _RNN},
    "se": _SEPARATION,
    "ss": _SEPARATION,
    "vc": {
        **_data(train_batch_size=2, eval_batch_size=2, fbank_config={"gl_iters": 2}),
        "modelrc": {"hidden_dim": 16, "prenet_dim": 8, "lstmp_proj_dim": 8},
    },
    "ood-asr": {"corpus": {"batch_size": 2, "num_workers": 0}, "model": _RNN},
}
"""Task -> what is laid over ``downstream_expert`` of its recipe."""

OWN = {"vc": {"save_step": 2}}
"""Steps of tasks that take long to score each checkpoint."""


RECORD = ScoreRecord(
    task="KS",
    upstream="mine",
    metrics={"acc": 96.0},
    seed=0,
    learning_rate=1e-4,
    s3prl="0.4.18",
    date="2026-11-24T10:00:00",
    command="python -m s3prl.run_downstream",
    parameters=23_590_000,
)
"""The score of a finished task."""


def recipes(folder: Path, names: Iterable[str] = tuple(SMALL), **runner: Any) -> Path:
    """A folder of recipes, each of which extends the one that ships.

    Args:
        folder: to write to.
        names: of tasks.
        runner: values of the ``runner`` section.
    """
    for name in names:
        shipped, place = resources.find("downstream_recipes") / name, folder / name
        shutil.copytree(shipped, place)
        needs = yaml.safe_load((place / "recipe.yaml").read_text())
        needs.pop("counts", None)  # of the whole corpora
        (place / "recipe.yaml").write_text(yaml.safe_dump(needs))
        config = place / "config.yaml"
        config.rename(place / "official.yaml")
        values: dict[str, Any] = {"base": "official.yaml", "downstream_expert": SMALL[name]}
        official = yaml.safe_load((place / "official.yaml").read_text())
        if official["runner"]:
            values["runner"] = {**RUNNER, **runner, **OWN.get(name, {})}
        if "specaug" in official:
            values["specaug"] = _SPECAUG
        config.write_text(yaml.safe_dump(values))
    return folder


def corpora(folder: Path, names: Iterable[str] = tuple(SMALL)) -> Path:
    """The corpora of some tasks, as the shipped recipes look for them, and the truth of QUESST."""
    makers = {
        **published_corpora.CORPORA,
        "se": lambda data: sg_corpora.voicebank(data / "VoiceBank-DEMAND"),
        "ss": lambda data: sg_corpora.libri2mix(data / "Libri2Mix"),
        "vc": lambda data: sg_corpora.vcc2020(data / "VCC2020"),
        "ood-asr": _languages,
    }
    for make in dict.fromkeys(makers[name] for name in names):
        make(folder)
    if "qbe" in names:
        for split in ("dev", "eval"):
            truth(folder / "quesst14Database" / "scoring" / f"groundtruth_quesst14_{split}", split)
    return folder


def _languages(data: Path) -> None:
    sg_corpora.common_voice(data / "cv-corpus-7.0-2021-07-21")
    sg_corpora.sbcsae(data / "SBCSAE")


def truth(folder: Path, split: str) -> None:
    """The first query occurs in the first document, the second one in the third."""
    excerpts = "".join(f'<excerpt audio_filename="doc_{index}.wav"/>\n' for index in range(4))
    queries = "".join(
        f'<term termid="{split}_{index}"><termtext>{split}_{index}</termtext></term>' for index in (0, 1)
    )
    lines(folder / "quesst.ecf.xml", f"<ecf>\n{excerpts}</ecf>")
    lines(folder / "quesst.tlist.xml", f"<termlist>{queries}</termlist>")
    occurrences = (f"LEXEME doc_{2 * index} 1 0 1 {split}_{index} lex SELF <NA>" for index in (0, 1))
    lines(folder / "quesst.rttm", *occurrences)


def upstream(folder: Path) -> Path:
    """A checkpoint of three tiny layers."""
    return save_model(tiny("hubert"), folder)


def command(place: Path, tasks: str, *more: str, out: str = "out", model: str = "model") -> list[str]:
    """``superb run`` on the corpora, recipes and model of a folder."""
    given = {
        "--upstream": "dphubert_local",
        "--ckpt": place / model,
        "--name": "tiny",
        "--tasks": tasks,
        "--data": place / "data",
        "--out": place / out,
        "--recipes": place / "recipes",
        "--device": "cpu",
    }
    words = [str(word) for pair in given.items() for word in pair]
    return [sys.executable, "-m", "s3prl_dphubert.cli", "superb", "run", *words, *more]


def environment(place: Path) -> dict[str, str]:
    """With caches and home of its own."""
    own = {"HOME": str(place), "S3PRL_DPHUBERT_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


@dataclass(frozen=True)
class Done:
    """Result of a run."""

    returncode: int
    stdout: str
    stderr: str


def run(place: Path, tasks: str, *more: str, **options: str) -> Done:
    """Run it to its end, in this process; what it starts are others."""
    words, out, err = command(place, tasks, *more, **options), io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment(place)), redirect_stdout(out), redirect_stderr(err):
        code = main(words[3:])
    return Done(code, out.getvalue(), err.getvalue())


def plan(folder: Path, tasks: str = "ks", **more: Any) -> RunPlan:
    """A plan of filter banks on some tasks, by the recipes that ship."""
    (folder / "data").mkdir(exist_ok=True)
    recipes = choose(tasks, None, more.pop("changes", ()))
    return RunPlan(UpstreamSpec("fbank"), recipes, folder / "data", folder / "out", **more)


def recipe_folder(folder: Path, config: Any = None, needs: Any = None) -> Path:
    """The shipped recipe of KS, changed."""
    place = folder / "recipes" / "ks"
    shutil.copytree(resources.find("downstream_recipes") / "ks", place)
    for name, changes in (("config.yaml", config), ("recipe.yaml", needs)):
        values = yaml.safe_load((place / name).read_text())
        for key, value in (changes or {}).items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        (place / name).write_text(yaml.safe_dump(values))
    return place
