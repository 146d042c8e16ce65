"""Released models, URLs and the Hub, through real downloads from a server on loopback."""

from __future__ import annotations

import time

import pytest
import torch

from s3prl_dphubert.checkpoints import dphubert_pth, hub
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import CheckpointError, DPHubertError
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.upstream.entries import dphubert, dphubert_hub, dphubert_url, dpwavlm
from s3prl_dphubert.utils.locking import waiting_lock
from tests.helpers.golden import GOLDEN
from tests.helpers.hub_server import Repo, served, use

SMALL = GOLDEN / "hubert_post_norm_pruned.pth"
OTHER = GOLDEN / "wavlm_pruned.pth"
HEADS = (tuple(range(6)),) * 12
SIZED = {  # made up so that their parameters number as those of the released models
    "DPHuBERT-sp0.75.pth": ((400,) * 5 + (302, 447), (101,) * 9 + (100,) * 3, 0),
    "DPWavLM-sp0.75.pth": ((400,) * 5 + (318, 412), (102,) * 5 + (101,) * 7, 320),
}


@pytest.fixture
def server(monkeypatch, tmp_path):
    with served() as server:
        use(server, tmp_path, monkeypatch)
        yield server


def of_the_right_size(name, path):
    channels, widths, buckets = SIZED[name]
    torch.manual_seed(0)
    config = ModelConfig(conv_channels=channels, heads=HEADS, ffn=widths, num_buckets=buckets)
    dphubert_pth.write(SpeechModel(config), path, torch.float16)
    return path.read_bytes()


def same(expert, model):
    wavs = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(expert(list(wavs))["last_hidden_state"], model.extract_features(wavs)[0][-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "name", "parameters"),
    [(dphubert, "DPHuBERT-sp0.75.pth", 23_585_946), (dpwavlm, "DPWavLM-sp0.75.pth", 23_586_325)],
)
def test_released_models_are_fetched_once_and_checked(server, tmp_path, entry, name, parameters):
    file = tmp_path / name
    data = of_the_right_size(name, file)
    server.repos["pyf98/DPHuBERT"] = Repo({name: data})
    expert = entry(ckpt=None, model_config=None, refresh=False)
    assert sum(p.numel() for p in expert.parameters()) == parameters
    assert same(expert, load_model(file))
    assert server.fetched() == [name]
    entry()
    assert server.fetched() == [name]
    entry(refresh=True)
    assert server.fetched() == [name, name]


def test_a_file_of_another_size_is_refused(server):
    server.repos["pyf98/DPHuBERT"] = Repo({"DPHuBERT-sp0.75.pth": SMALL.read_bytes()})
    with pytest.raises(CheckpointError, match=r"dphubert: .* parameters, expected 23,585,946; .* \(-r\)"):
        dphubert()


def test_without_network_it_says_what_was_wanted_and_what_to_do(server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # retries follow at once
    server.status = 503
    with pytest.raises(DPHubertError, match=r"pyf98/DPHuBERT: cannot fetch DPWavLM-sp0\.75\.pth") as caught:
        dpwavlm()
    assert str(caught.value).endswith("-u dphubert_local -k FILE")
    assert "\n" not in str(caught.value)


def test_checkpoint_directories_on_the_hub(server, tmp_path):
    repos = {}
    for source in (SMALL, OTHER):
        folder = save_model(load_model(source), tmp_path / source.stem)
        repos[source] = Repo({path.name: path.read_bytes() for path in folder.iterdir()})
    repos[OTHER].commit = "f" * 40
    repos[SMALL].revisions["v1"] = repos[OTHER]
    server.repos["user/repo"] = repos[SMALL]
    assert same(dphubert_hub("user/repo", None, False), load_model(SMALL))
    assert same(dphubert_hub(ckpt="user/repo@v1"), load_model(OTHER))
    before = server.fetched().count("model.safetensors")
    dphubert_hub("user/repo")
    assert server.fetched().count("model.safetensors") == before
    dphubert_hub("user/repo", refresh=True)
    assert server.fetched().count("model.safetensors") > before
    with pytest.raises(DPHubertError, match=r"user/repo@v2: cannot fetch config\.json"):
        dphubert_hub("user/repo@v2")


def test_urls(server):
    server.repos["some/files"] = Repo({"model.pth": SMALL.read_bytes()})
    url = f"{server.url}/some/files/resolve/main/model.pth"
    assert same(dphubert_url(url), load_model(SMALL))
    count = len(server.log)
    server.repos["some/files"].files["model.pth"] = OTHER.read_bytes()
    assert same(dphubert_url(ckpt=url, refresh=False), load_model(SMALL))
    assert len(server.log) == count
    assert same(dphubert_url(url, refresh=True), load_model(OTHER))
    server.repos["some/files"].files["bad.pth"] = OTHER.read_bytes()[:-2000]
    with pytest.raises(CheckpointError, match=r"damaged.*it came from http.*bad\.pth, and has been removed"):
        dphubert_url(url.replace("model.pth", "bad.pth"))
    server.repos["some/files"].files["bad.pth"] = OTHER.read_bytes()
    assert same(dphubert_url(url.replace("model.pth", "bad.pth")), load_model(OTHER))
    with pytest.raises(DPHubertError, match="cannot be fetched"):
        dphubert_url(url.replace("model.pth", "none.pth"))
    with pytest.raises(DPHubertError, match=r"ckpt \(-k\) is 'model\.pth', expected a URL"):
        dphubert_url("model.pth")


@pytest.fixture
def url(server):
    server.repos["some/files"] = Repo({"model.pth": SMALL.read_bytes()})
    return f"{server.url}/some/files/resolve/main/model.pth"


def cached(tmp_path):
    """Files in the cache of URLs."""
    return [
        path.name for path in (tmp_path / "torch").rglob("*") if path.is_file() and path.suffix != ".lock"
    ]


def test_a_download_that_is_cut_leaves_nothing_and_starts_again(server, url, tmp_path):
    server.cut = [70_000]
    with pytest.raises(DPHubertError, match=r"cannot be fetched \(the connection ended after 70,000 of "):
        dphubert_url(url)
    assert cached(tmp_path) == []
    assert same(dphubert_url(url), load_model(SMALL))
    assert server.fetched() == ["model.pth"] * 4  # both requests are redirected


def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(server, url, tmp_path):
    dphubert_url(url)
    path = next((tmp_path / "torch").rglob("model.pth"))
    path.write_bytes(path.read_bytes()[:-2000])
    assert same(dphubert_url(url), load_model(SMALL))
    assert server.fetched() == ["model.pth"] * 4  # both requests are redirected


def test_a_silent_server_does_not_hold_the_lock_for_ever(server, url, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "TIMEOUT", 0.3)
    server.delay = 3.0
    begin = time.monotonic()
    with pytest.raises(DPHubertError, match=r"cannot be fetched \(.*timed out"):
        dphubert_url(url)
    assert time.monotonic() - begin < 2.5
    assert cached(tmp_path) == []
    server.delay = 0.0
    assert same(dphubert_url(url), load_model(SMALL))


def test_another_process_is_not_waited_for_for_ever(server, url, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.1)
    path = hub.url_path(url)
    path.parent.mkdir(parents=True)
    with waiting_lock(path.with_suffix(".lock")), pytest.raises(DPHubertError, match="another process"):
        dphubert_url(url)


def test_what_is_no_model_is_refused_by_its_first_bytes(server, url, tmp_path):
    server.repos["some/files"].files["model.pth"] = bytes(20_000_000)
    with pytest.raises(DPHubertError, match=r"begins with b'.*another kind of file"):
        dphubert_url(url)
    assert cached(tmp_path) == []


def test_sizes_are_bounded(server, url, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "LARGEST", 10_000)
    with pytest.raises(DPHubertError, match=r"has 10\d,\d{3} bytes, allowed: 10,000"):
        dphubert_url(url)
    assert cached(tmp_path) == []


def test_trouble_with_names_and_folders_is_one_error(server, url, monkeypatch, tmp_path):
    for bad in (
        "http://[::1/a",
        "http://127.0.0.1:x/a.pth",
        "http://127.0.0.1/\x00",
        "http://127.0.0.1/a\nb",
    ):
        with pytest.raises(DPHubertError, match=r"not a file URL|cannot be fetched"):
            dphubert_url(bad)
    server.repos["some/files"].files["a" * 300 + ".pth"] = SMALL.read_bytes()
    assert same(dphubert_url(url.replace("model.pth", "a" * 300 + ".pth")), load_model(SMALL))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(DPHubertError, match="cannot be fetched"):
        dphubert_url(url)
