"""Tasks that may keep hidden states, their amount of audio and its size."""

from __future__ import annotations

import pytest
import soundfile

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.superb.recipe import load
from s3prl_dphubert.superb.run import corpus
from s3prl_dphubert.superb.run.corpus import measure, seconds
from s3prl_dphubert.superb.run.feature_cache import FeatureCache
from s3prl_dphubert.superb.run.feature_cache_policy import estimate, needed, options, refusal
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.tasks import all_tasks, find
from s3prl_dphubert.upstream.cached_expert import CachedOptions
from s3prl_dphubert.upstream.downstream_sampling import RANDOM_CROPS, SIGHTINGS
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import read_yaml
from tests.helpers.golden import ROOT
from tests.helpers.s3prl_runs import python
from tests.helpers.s3prl_tasks import TASKS as MINIATURES

HEARD = {"pr": 20, "asr": 20, "ks": 31, "qbe": 8, "asv": 12, "er": 20, "ic": 16, "sf": 10, "sd": 8}
"""Files that each miniature task reads, of those whose hidden states may be kept."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "own"))


def test_size():
    assert needed(1, 13, 768, 320) == 998_400
    assert needed(100 * 3600, 13, 768, 320) == 359_424_000_000


@pytest.mark.parametrize("name", HEARD)
def test_hours_of_a_task(name, tmp_path):
    """Of all files once, whether a list or their headers tell; at 16 kHz or any other rate."""
    task, config = find(name), MINIATURES[name](tmp_path / "corpus").config
    lengths = {
        path: soundfile.info(path).frames / soundfile.info(path).samplerate
        for suffix in ("wav", "flac")
        for path in (tmp_path / "corpus").rglob(f"*.{suffix}")
        if "_background_noise_" not in path.parts and not (name == "asv" and "dev" in path.parts)
    }
    assert len(lengths) == HEARD[name]
    assert seconds(task, config) == pytest.approx(sum(lengths.values()), rel=1e-3)
    estimated = estimate(task, config, ModelConfig())
    assert estimated.bytes == pytest.approx(998_400 * estimated.seconds, abs=1)
    assert estimated.text() == f"{estimated.seconds / 3600:.2f} h of audio, {estimated.bytes / 1e9:.2f} GB"


@pytest.mark.parametrize("name", ["sid", "asv"])
def test_recipe_whose_files_are_too_short_to_be_cropped_keeps_hidden_states(name, tmp_path):
    """The upstream, which knows that the downstream crops, is told that whole files come."""
    root = resources.find("downstream_recipes")
    cropped, whole = load(root / name).task, load(root / "free_superb" / name).task
    upstream = UpstreamSpec("dphubert_local", str(tmp_path))
    cache = FeatureCache(tmp_path / "cache")
    written = {}
    for title, task in (("cropped", cropped), ("whole", whole)):
        (tmp_path / title).mkdir()
        training, _ = cache.upstreams(upstream, task, tmp_path / title)
        written[title] = read_yaml(training.options)
    assert refusal(cropped, training=True) and not refusal(whole, training=True)
    assert "features" not in written["cropped"] and written["whole"]["features"]["evaluation"] is True


def test_headers_are_read_once(tmp_path, monkeypatch):
    config = MINIATURES["ic"](tmp_path / "corpus").config
    first = seconds(find("ic"), config)
    monkeypatch.setattr(corpus, "probe_whole", None)
    assert seconds(find("ic"), config) == first
    path = next((tmp_path / "corpus" / "wavs" / "speakers" / "train").glob("*.wav"))
    path.write_bytes(path.read_bytes() + bytes(2))  # the corpus has changed
    with pytest.raises(TypeError):
        seconds(find("ic"), config)
    assert measure([]).seconds == 0


def test_what_cannot_be_told(tmp_path):
    with pytest.raises(DataError, match="ST: how much audio it has cannot be told"):
        seconds(find("ST"), {})
    with pytest.raises(DataError, match=r"IC: the lists of its audio cannot be read .*nowhere"):
        seconds(find("IC"), {"downstream_expert": {"datarc": {"file_path": str(tmp_path / "nowhere")}}})
    with pytest.raises(DataError, match=r"KS: the lists of its audio cannot be read .KeyError 'datarc'"):
        seconds(find("KS"), {"downstream_expert": {}})
    corpus = {"path": str(tmp_path), "name": "libriphone", "train": ["none"], "dev": [], "test": []}
    with pytest.raises(DataError, match=r"none: no \*\*/\*.flac"):
        seconds(find("PR"), {"downstream_expert": {"corpus": corpus}})


def test_every_task_is_decided():
    assert all(task.reuse.reason for task in all_tasks())
    refused = {task.name for task in all_tasks() if refusal(task, training=True)}
    assert refused == {"SID", "ASV"} == {task.name for task in all_tasks() if task.downstream in RANDOM_CROPS}
    assert [task.name for task in all_tasks() if task.downstream in SIGHTINGS] == ["KS"]
    assert refusal(find("SID"), training=False)
    assert not refusal(find("ASV"), training=False)
    assert {task.name for task in all_tasks() if task.audio is None} == {"ST"}
    assert "cuts 8 s out of longer utterances at random" in refusal(find("ASV"), training=True)


def test_options_are_those_of_the_upstream(tmp_path):
    made = CachedOptions.read(None, options(tmp_path, "3GB", evaluation=True))
    assert made.padding == "exact"
    assert (made.features.cache, made.features.bytes, made.features.evaluation) == (
        str(tmp_path),
        3 * 10**9,
        True,
    )
    assert not CachedOptions.read(None, options(tmp_path, 3)).features.evaluation


DRAWN = """
import random, sys
random.seed(0)
sys.path.insert(0, sys.argv[1])
import numpy, torch
from pathlib import Path
from importlib import import_module
from tests.helpers.s3prl_tasks import TASKS
from s3prl_dphubert import register
register()
for name in sys.argv[2:]:
    task = TASKS[name](Path(name))
    expert = import_module(f"s3prl.downstream.{task.downstream}.expert").DownstreamExpert(
        upstream_dim=8, upstream_rate=320, expdir=".", **task.config
    )
    split = {"qbe": "eval"}.get(name, "train")
    seen = []
    for epoch in range(3):
        try:
            loader = expert.get_dataloader(split, epoch=epoch)
        except TypeError:
            loader = expert.get_dataloader(split)
        batches = [wavs for wavs, *_ in loader]
        seen.append({torch.as_tensor(wav).numpy().tobytes() for wavs in batches for wav in wavs})
    later = set.union(*seen[1:])
    print(f"drawn {name} {len(later)} {len(later - seen[0])}")
"""


@pytest.mark.slow
@pytest.mark.s3prl
def test_what_the_data_sets_of_s3prl_draw(tmp_path):
    """Waveforms of later epochs that the first did not have: none, but where the table says so.

    Keyword spotting draws its items, so an epoch has not all; what is new beside its words is silence.
    """
    names = ("pr", "asr", "qbe", "sid", "asv", "sd", "er", "ic", "sf", "ks")
    done = python("-c", DRAWN, str(ROOT), *names, cwd=tmp_path).ok()
    drawn = {line.split()[1]: line.split()[2:] for line in done.out.splitlines() if line[:6] == "drawn "}
    assert len(drawn) == 10
    new = {name: int(number) for name, (_, number) in drawn.items()}
    assert {name for name, number in new.items() if number} == {"sid", "asv", "ks"}
    assert all(int(later) > 0 for later, _ in drawn.values())
