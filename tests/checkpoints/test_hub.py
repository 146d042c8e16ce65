"""Downloads end with the right file in the cache or with an error that says what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from s3prl_dphubert.checkpoints import hub
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import CheckpointError
from tests.helpers.golden import GOLDEN
from tests.helpers.hub_server import COMMIT, LARGE, Repo, environment, etag, served, use
from tests.helpers.models import assert_same, outputs, tiny

SMALL = b"small" * 10
BIG = np.random.default_rng(0).bytes(600_000)
OTHER = "f" * 40
ADVICE = "; fetch it elsewhere and give the path of the local file"


@pytest.fixture
def server(monkeypatch, tmp_path):
    with served() as server:
        server.repos["some/model"] = Repo({"small.txt": SMALL, "big.bin": BIG, "sub/deep.txt": b"deep"})
        use(server, tmp_path, monkeypatch)
        yield server


@pytest.fixture
def no_waiting(monkeypatch):
    """Retries follow at once."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def blobs(tmp_path):
    """Whole files in the cache."""
    files = (tmp_path / "cache").rglob("blobs/*")
    return sorted(path for path in files if path.is_file() and path.suffix != ".incomplete")


@pytest.mark.parametrize(
    ("name", "data"), [("small.txt", SMALL), ("big.bin", BIG), ("sub/deep.txt", b"deep")]
)
def test_fetch_and_find_in_the_cache(server, tmp_path, name, data):
    path = hub.fetch("some/model", name)
    assert path.read_bytes() == data
    assert path.parts[-2 - name.count("/")] == COMMIT
    requests = len(server.log)
    assert hub.fetch("some/model", name) == path
    assert [method for method, _, _ in server.log[requests:]] == ["HEAD"]
    assert hub.fetch("some/model", name, revision=COMMIT) == path
    assert len(server.log) == requests + 1  # a commit does not change, so nobody is asked
    hub.fetch("some/model", name, force=True)
    assert server.fetched().count(name.rsplit("/")[-1]) == 2
    assert [blob.name for blob in blobs(tmp_path)] == [etag(data)]


def test_revisions(server):
    server.repos["some/model"].revisions["v2"] = Repo({"small.txt": b"second"}, OTHER)
    assert hub.fetch("some/model", "small.txt", "v2").read_bytes() == b"second"
    assert hub.fetch("some/model", "small.txt", OTHER).read_bytes() == b"second"
    assert hub.fetch("some/model", "small.txt").read_bytes() == SMALL
    server.repos["some/model"].files["small.txt"] = b"changed"
    server.repos["some/model"].commit = "e" * 40
    assert hub.fetch("some/model", "small.txt").read_bytes() == b"changed"
    assert hub.parse_hub_id("a/b/c/d.pth@v2") == (hub.HubRepository("a/b", "v2"), "c/d.pth")
    assert str(hub.HubRepository("a/b", "v2")) == "a/b@v2"
    assert hub.parse_hub_id("a/b") == (hub.HubRepository("a/b"), "")
    assert hub.parse_hub_id("a/b@") is None


@pytest.mark.parametrize(
    ("repo", "name", "revision", "message"),
    [
        ("no/repo", "x", None, "no/repo: cannot fetch x .there is no such repository, or it is private"),
        ("some/model", "x.bin", None, "some/model: cannot fetch x.bin .the repository has no such file"),
        ("some/model", "big.bin", "v9", "some/model@v9: cannot fetch big.bin .there is no revision 'v9'"),
        (
            "gated/model",
            "x",
            None,
            "the repository is gated; accept its terms on its page, then set HF_T",
        ),
        ("a b/c", "x", None, "a b/c: cannot fetch x .*a b/c"),
        ("some/model", "../x", None, r"cannot fetch \.\./x"),
    ],
)
def test_what_is_not_there(server, repo, name, revision, message):
    server.repos["gated/model"] = Repo({"x": b"x"}, gated=True)
    with pytest.raises(hub.DownloadError, match=f"{message}.*{ADVICE}") as caught:
        hub.fetch(repo, name, revision)
    assert isinstance(caught.value, CheckpointError)
    assert isinstance(caught.value, hub.MissingError) == (name == "x.bin")
    assert "\n" not in str(caught.value)


def test_gated_repositories_open_with_a_token(server, monkeypatch):
    server.repos["gated/model"] = Repo({"x": b"x", "big": BIG}, gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.fetch("gated/model", "x").read_bytes() == b"x"
    assert hub.fetch("gated/model", "big").read_bytes() == BIG


def test_interrupted_downloads_go_on_where_they_were(server, no_waiting, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # 10 MB otherwise
    server.cut = [200_000, 300_000]
    assert hub.fetch("some/model", "big.bin").read_bytes() == BIG
    ranges = [where for method, path, where in server.log if method == "GET" and path.startswith("/cdn")]
    assert ranges[0] is None
    starts = [int(where.removeprefix("bytes=").rstrip("-")) for where in ranges[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(BIG)


def test_a_server_that_never_finishes(server, no_waiting, tmp_path):
    server.cut = [0] * 100
    with pytest.raises(hub.DownloadError, match=f"cannot fetch big.bin .*{ADVICE}"):
        hub.fetch("some/model", "big.bin")
    assert blobs(tmp_path) == []
    server.cut = []
    assert hub.fetch("some/model", "big.bin").read_bytes() == BIG


@pytest.mark.parametrize("name", ["big.bin", "small.txt"])
def test_bytes_changed_on_the_way(server, tmp_path, name):
    data = {"big.bin": BIG, "small.txt": SMALL}[name]
    server.spoil = 1
    assert hub.fetch("some/model", name).read_bytes() == data
    assert server.fetched().count(name) == 2
    server.spoil = 99
    with pytest.raises(hub.DownloadError, match="does not have the hash that the Hub states"):
        hub.fetch("some/model", name, force=True)
    assert blobs(tmp_path) == []
    server.spoil = 0
    assert hub.fetch("some/model", name).read_bytes() == data


def test_files_damaged_in_the_cache_are_fetched_again(server, tmp_path):
    path = hub.fetch("some/model", "big.bin")
    blobs(tmp_path)[0].write_bytes(BIG[:-1] + b"!")
    assert hub.fetch("some/model", "big.bin", COMMIT).read_bytes() == BIG
    blobs(tmp_path)[0].write_bytes(BIG[:1000])
    server.status = 503
    with pytest.raises(hub.DownloadError, match="is damaged, and fetching it again failed"):
        hub.fetch("some/model", "big.bin", COMMIT)
    assert path.resolve() == blobs(tmp_path)[0]


@pytest.mark.parametrize("wrong", [-100, 100])
def test_a_size_that_does_not_hold(server, tmp_path, wrong):
    server.claim = wrong
    with pytest.raises(hub.DownloadError, match="size"):
        hub.fetch("some/model", "big.bin")
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_in_trouble(server, no_waiting, status):
    server.status = status
    with pytest.raises(hub.DownloadError, match=f"127.0.0.1.*{status}.*{ADVICE}"):
        hub.fetch("some/model", "big.bin")
    server.status = 0
    path = hub.fetch("some/model", "big.bin")
    server.status = status
    assert hub.fetch("some/model", "big.bin") == path  # the cache answers


def test_no_server(server, no_waiting, monkeypatch):
    path = hub.fetch("some/model", "big.bin")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.fetch("some/model", "big.bin") == path
    with pytest.raises(hub.DownloadError, match=f"127.0.0.1:9 cannot be reached: .*{ADVICE}"):
        hub.fetch("some/model", "small.txt")


SCRIPT = """
import resource, sys
from s3prl_dphubert.checkpoints import hub
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    print(hub.fetch("some/model", sys.argv[1]))
except hub.DownloadError as error:
    print("REFUSED", error)
"""


def start(server, tmp_path, name="big.bin", limit=0, **more):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name, str(limit)],
        env={**os.environ, **environment(server, tmp_path), **more},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return out.strip()


def test_offline(server, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1"}
    answer = finish(start(server, tmp_path, **offline))
    assert answer.startswith(
        "REFUSED some/model: cannot fetch big.bin (it is not in the cache, and HF_HUB_OFF"
    )
    assert server.log == []
    path = hub.fetch("some/model", "big.bin")
    assert finish(start(server, tmp_path, **offline)) == str(path)


def test_full_disk(server, tmp_path):
    answer = finish(
        start(server, tmp_path, limit=100_000)
    )  # a limit of the process, as a disk would have one
    assert answer.startswith("REFUSED some/model: cannot fetch big.bin ([Errno 27] File too large")
    assert blobs(tmp_path) == []
    assert hub.fetch("some/model", "big.bin").read_bytes() == BIG


def test_two_processes_at_once(server, tmp_path):
    server.delay = 0.02
    processes = [start(server, tmp_path) for _ in range(3)]
    (path,) = {finish(process) for process in processes}
    assert Path(path).read_bytes() == BIG
    assert [blob.name for blob in blobs(tmp_path)] == [etag(BIG)]


def test_a_killed_download(server, tmp_path):
    server.delay = 1.0
    process = start(server, tmp_path)
    while not server.fetched():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.delay = 0.0
    assert hub.fetch("some/model", "big.bin").read_bytes() == BIG


def files(folder, **more):
    return {path.name: path.read_bytes() for path in folder.iterdir()} | more


@pytest.fixture
def own(tmp_path):
    return save_model(tiny("hubert"), tmp_path / "own")


def test_our_own_checkpoints_on_the_hub(server, own):
    server.repos["me/small"] = Repo(files(own, **{"training.log": b"x" * LARGE}))
    assert_same(outputs(load_model("me/small")), outputs(load_model(own)), 0.0)
    assert sorted(set(server.fetched())) == ["config.json", "model.safetensors"]


def test_released_files_on_the_hub(server):
    data = (GOLDEN / "wavlm_pruned.pth").read_bytes()
    server.repos["pyf98/DPHuBERT"] = Repo({"DPWavLM.pth": data}, revisions={"v1": Repo({"old/a.pth": data})})
    wanted = outputs(load_model(GOLDEN / "wavlm_pruned.pth"))
    assert_same(outputs(load_model("pyf98/DPHuBERT/DPWavLM.pth")), wanted, 0.0)
    assert_same(outputs(load_model("pyf98/DPHuBERT/old/a.pth@v1")), wanted, 0.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "runs/missing",
            "no such file or directory; on the Hub, runs/missing: cannot fetch config",
        ),
        ("some/model", "some/model: no such .* cannot fetch config.json .the repository has no such file"),
        ("some/model/x.pth@main", "cannot fetch x.pth"),
        (
            "nowhere",
            "nowhere: no such file or directory; expected a path, a Hub id .* hubert_mini, hub",
        ),
        ("/absolute/nowhere", "no such file or directory; expected"),
        ("a/b@", "no such file or directory; expected"),
    ],
)
def test_names_that_lead_nowhere(server, name, message):
    with pytest.raises(CheckpointError, match=message):
        load_model(name)


def huggingface_model(folder, **changes):
    """Files of a small HuBERT as transformers writes them, and of formats that are not needed."""
    import transformers

    config = transformers.HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(12,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **changes,
    )
    torch.manual_seed(0)
    transformers.HubertModel(config).save_pretrained(folder)
    processor = json.dumps({"do_normalize": True, "sampling_rate": 16_000})
    return files(
        folder, **{"preprocessor_config.json": processor.encode(), "README.md": b"x", "tf_model.h5": BIG}
    )


def test_teachers_by_name(server, tmp_path):
    content = huggingface_model(tmp_path / "hf")
    server.repos["facebook/hubert-base-ls960"] = Repo({**content, "pytorch_model.bin": BIG})
    model = load_model("hubert_base")
    assert not model.config.normalize_waveform  # as trained, whatever the Hub's copy says
    assert (model.config.projection_dropout, model.config.ffn_dropout) == (0.1, 0.0)
    assert sorted(set(server.fetched())) == ["config.json", "model.safetensors"]
    assert not load_model("facebook/hubert-base-ls960").config.normalize_waveform
    server.repos["else/where"] = Repo(content)
    other = load_model("else/where")
    assert other.config.normalize_waveform
    assert (other.config.projection_dropout, other.config.ffn_dropout) == (0.0, 0.1)
    assert "preprocessor_config.json" in server.fetched()
    assert torch.equal(
        model.encoder.transformer.layer_norm.weight, other.encoder.transformer.layer_norm.weight
    )
    branches = {method_path.split("/resolve/")[1].split("/")[0] for _, method_path, _ in server.log}
    assert branches == {"main", COMMIT}
    later = [path for _, path, _ in server.log if "config.json" not in path]
    assert later
    assert all(f"/resolve/{COMMIT}/" in path for path in later)  # all files of one commit


def test_pytorch_bin_and_shards_on_the_hub(server, tmp_path):
    content = huggingface_model(tmp_path / "hf")
    del content["preprocessor_config.json"]
    from safetensors.torch import load, save

    state = load(content.pop("model.safetensors"))
    torch.save(state, tmp_path / "pytorch_model.bin")
    binary = {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()}
    server.repos["old/style"] = Repo({**content, **binary})
    names = sorted(state)
    parts = {f"model-{i + 1:05d}-of-00002.safetensors": names[i::2] for i in range(2)}
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    shards = {file: save({name: state[name] for name in part}) for file, part in parts.items()}
    shards["model.safetensors.index.json"] = json.dumps(index).encode()
    server.repos["in/shards"] = Repo({**content, **shards})
    first, second = (load_model(name) for name in ("old/style", "in/shards@main"))
    assert_same(outputs(first), outputs(second), 0.0)
    assert not first.config.normalize_waveform
    requests = len(server.log)
    load_model("in/shards@main")
    assert [path for method, path, _ in server.log[requests:] if method == "GET"] == []
    assert len(server.log) == requests + 1  # what the commit lacks is known, too


@pytest.mark.parametrize("cached", [True, False])
def test_a_teacher_offline(server, no_waiting, tmp_path, cached):
    server.repos["else/where"] = Repo(huggingface_model(tmp_path / "hf"))
    if cached:
        load_model("else/where")
    else:
        hub.fetch("else/where", "config.json")
    server.status = 503
    if cached:
        assert load_model("else/where").config.normalize_waveform
    else:  # nobody knows whether there is a preprocessor, so nothing is guessed
        with pytest.raises(hub.DownloadError, match=r"cannot fetch preprocessor_config\.json"):
            load_model("else/where")
