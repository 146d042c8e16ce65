"""An exported folder loads as s3prl loads it, where this package cannot be imported."""

from __future__ import annotations

import importlib
import math
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import torch

import s3prl_dphubert
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.model.cost import superb_macs
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.upstream.hub_repo import export_hub, imports, sources
from s3prl_dphubert.upstream.options import Options
from tests.helpers.golden import GOLDEN, ROOT
from tests.helpers.hub_server import Repo, served
from tests.helpers.models import SHAPES, tiny
from tests.helpers.s3prl_runs import Experiment

PRUNED = GOLDEN / "wavlm_pruned.pth"
SAMPLES = (9000, 300, 4321)  # one below the receptive field of 400

ALONE = """
import os, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("s3prl_dphubert", "s3prl", "safetensors", "transformers"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import torch
torch.set_num_threads(1)
given, found = sys.argv[1:3]
results = []
for filepath in sys.argv[3:]:
    sys.path.append(filepath)
    from expert import UpstreamExpert
    ckpt_path = os.path.join(filepath, "model.pt")
    model = UpstreamExpert(ckpt=ckpt_path, model_config=None, refresh=False).to("cpu")
    with torch.no_grad():
        results.append(model.eval()(torch.load(given))["hidden_states"])
    assert model.get_downsample_rates("hidden_states") == 320
    sys.path.remove(filepath)
    del sys.modules["expert"]
torch.save(results, found)
print(*sorted(name for name in sys.modules if name.startswith(("dphubert", "s3prl"))))
"""


def waveforms(samples=SAMPLES):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, generator=generator) for count in samples]


@pytest.fixture
def imported(monkeypatch):
    """folder -> the class in its expert.py, which is forgotten again afterwards."""

    def load(folder):
        monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
        return importlib.import_module("expert").UpstreamExpert

    yield load
    for name in [name for name in sys.modules if name == "expert" or name.startswith("dphubert_export_")]:
        del sys.modules[name]


def same(ours, theirs, tolerance=1e-6):
    assert len(ours) == len(theirs) > 2
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(b, a, atol=tolerance, rtol=tolerance)


@pytest.mark.slow
def test_hidden_states_without_this_package(tmp_path):
    """One process loads all folders, one after the other; none takes another's code or weights."""
    models = {shape: tiny(shape) for shape in SHAPES} | {"pruned": load_model(PRUNED)}
    folders = []
    for name, model in models.items():
        folder = export_hub(save_model(model, tmp_path / name), tmp_path / f"{name}-hub")
        (tmp_path / f"{name}-links").mkdir()
        for path in folder.rglob("*"):  # as the Hub's cache lays them out
            if path.is_file():
                blob = tmp_path / "blobs" / f"{name}-{path.relative_to(folder)}".replace("/", "-")
                blob.parent.mkdir(exist_ok=True)
                link = tmp_path / f"{name}-links" / path.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                path.rename(blob)
                link.symlink_to(blob)
        folders.append(str(tmp_path / f"{name}-links"))
    given, computed, script = tmp_path / "given.pt", tmp_path / "found.pt", tmp_path / "alone.py"
    torch.save(waveforms(), given)
    script.write_text(ALONE)
    environment = os.environ | {"S3PRL_DPHUBERT_PLUGIN": "0"}
    command = [sys.executable, "-P", str(script), str(given), str(computed), *folders]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    (package,) = (path.name for path in Path(folders[0]).glob("dphubert_export_*"))
    assert {name.partition(".")[0] for name in loaded} == {package}
    assert len(loaded) == len(sources()) + 1  # every module that goes along, and the package itself
    results = torch.load(computed)
    assert len(results) == len(models) == 7
    with torch.no_grad():
        for model, theirs in zip(models.values(), results, strict=True):
            same(UpstreamExpert(model).eval()(waveforms())["hidden_states"], theirs)


def test_what_the_folder_holds(tmp_path, capsys):
    folder = tmp_path / "some-model"
    assert main(["export-hub", str(PRUNED), str(folder)]) == 0
    assert f"hf upload USER/REPO {folder}" in capsys.readouterr().out
    (package,) = folder.glob("dphubert_export_*")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "expert.py",
        "model.pt",
        "requirements.txt",
        package.name,
    }
    content = torch.load(folder / "model.pt", weights_only=True)
    assert set(content) == {"config", "state_dict"}
    kinds = {type(value) for value in content["config"].values()}
    assert kinds <= {str, bool, int, float, list}
    assert type(content["state_dict"]) is dict
    assert len(content["state_dict"]) > 30
    own = Path(s3prl_dphubert.__file__).parent
    copied = [path for path in package.rglob("*.py") if path != package / "__init__.py"]
    assert len(copied) == len(sources()) > 10
    for path in copied:
        assert path.read_bytes() == (own / path.relative_to(package)).read_bytes()
    assert "Apache License" in (package / "LICENSE").read_text()


def test_the_card_tells_the_cost_and_not_the_place(tmp_path):
    folder = export_hub(PRUNED, tmp_path / "some-model")
    card, config = (folder / "README.md").read_text(), load_model(PRUNED).config
    assert "\n# some-model\n" in card
    for bucket, count in superb_macs(config).items():
        assert f"| SUPERB MACs, {bucket} | {count:,} |" in card
    for row in ("| parameters | 24,335 |", "| stride | 320 samples (20 ms at 16 kHz) |", "| 2 | 1 | 3 | 7 |"):
        assert row in card
    assert "| made from | wavlm_pruned.pth |" in card
    assert str(GOLDEN) not in card
    assert "--hub huggingface -u USER/REPO" in card
    assert "license: yours to choose" in card


def test_requirements_are_what_the_code_imports_as_this_package_asks_for_it():
    assert imports() == ["pyyaml>=6", "torch>=2.8"]
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"].replace(" ", "").split("\n")
    for line in imports():
        assert [other for other in asked if re.fullmatch(rf"{re.escape(line)}(,.*)?", other)], line


def test_what_the_challenge_checks(tmp_path, monkeypatch, imported):
    """Its template constructs the upstream in the folder, and looks up each task's list."""
    folder = export_hub(PRUNED, tmp_path / "submission")
    monkeypatch.chdir(folder)
    upstream = imported(folder)(ckpt="./model.pt")
    assert isinstance(upstream, torch.nn.Module)
    results = upstream(waveforms((160_000,) * 2))
    for task in ("PR", "SID", "ER", "ASR", "ASV", "SD", "QbE", "ST", "SS", "SE", "secret"):
        states = results.get(task, "hidden_states")
        assert isinstance(states, list)
        assert {tuple(state.shape) for state in states} == {(2, 499, 32)}
        assert isinstance(upstream.get_downsample_rates(task), int)


def test_fine_tuning_and_options(tmp_path, imported):
    expert = imported(export_hub(PRUNED, tmp_path / "hub"))
    upstream = expert().train()  # model.pt beside expert.py
    sum(state.square().mean() for state in upstream(waveforms())["hidden_states"]).backward()
    trained = [parameter for parameter in upstream.parameters() if parameter.requires_grad]
    assert len(trained) > 50
    assert all(parameter.grad is not None for parameter in trained)
    options = tmp_path / "options.yaml"
    options.write_text("padding: exact\n")
    ours = UpstreamExpert(load_model(PRUNED), Options(padding="exact"))
    with torch.no_grad():
        theirs = expert(None, str(options), False).eval()(waveforms())["hidden_states"]
        same(ours.eval()(waveforms())["hidden_states"], theirs)
    with pytest.raises(ValueError, match="padding is 'none', allowed: batch, exact"):
        expert(padding="none")


def test_half_the_bytes(tmp_path, imported):
    sizes = {}
    for dtype in ("float32", "float16"):
        folder = tmp_path / dtype
        assert main(["export-hub", "hubert_mini", str(folder), "--dtype", dtype]) == 0
        sizes[dtype] = (folder / "model.pt").stat().st_size
    assert sizes["float16"] < 0.51 * sizes["float32"]
    upstream = imported(tmp_path / "float16")().eval()
    assert {parameter.dtype for parameter in upstream.parameters()} == {torch.float32}
    assert main(["export-hub", "hubert_mini", str(tmp_path / "float16")]) == 2


def test_weights_too_large_for_half_are_refused(tmp_path):
    model = load_model(PRUNED)
    model.encoder.feature_projection.projection.weight.data[0, 0] = 1e5
    source = save_model(model, tmp_path / "source")
    message = r"source in torch\.float16: .* tensor .*\.projection\.weight has non-finite values"
    with pytest.raises(CheckpointError, match=message):
        export_hub(source, tmp_path / "hub", torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    export_hub(source, tmp_path / "hub")


def _without_a_tensor(content):
    del content["state_dict"]["encoder.feature_projection.layer_norm.weight"]


def _with_another_width(content):
    content["config"]["ffn"][0] += 1


def _with_another_field(content):
    content["config"]["widht"] = 1


def _with_a_number(content):
    content["state_dict"]["more"] = 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_a_tensor, r"tensor encoder\.feature_projection\.layer_norm\.weight is missing"),
        (_with_another_width, r"intermediate_dense\.weight has shape \(13, 32\), expected \(14, 32\)"),
        (_with_another_field, "widht: unknown field"),
        (_with_a_number, "more is int, expected a tensor"),
        (lambda content: content.update(config=[]), "config is list, expected a mapping"),
        (lambda content: content.pop("config"), "holds state_dict, expected config and state_dict"),
        (lambda content: content.update(more=Path("/")), "refused, holds more than plain tensors"),
    ],
)
def test_a_wrong_model_is_named(tmp_path, imported, change, said):
    folder = export_hub(PRUNED, tmp_path / "hub")
    expert, file = imported(folder), folder / "model.pt"
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    with pytest.raises(ValueError, match=rf"model\.pt: .*{said}"):
        expert(str(file))


def test_a_damaged_or_missing_model_is_named(tmp_path, imported):
    folder = export_hub(PRUNED, tmp_path / "hub")
    expert, file = imported(folder), folder / "model.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"model\.pt: damaged or not a torch file"):
        expert(str(file))
    file.unlink()
    with pytest.raises(ValueError, match=r"model\.pt: no such file"):
        expert()


def test_nothing_is_left_of_a_checkpoint_that_does_not_load(tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(PRUNED.read_bytes()[:-1000])
    assert main(["export-hub", str(tmp_path / "bad.pth"), str(tmp_path / "hub")]) == 2
    assert "bad.pth" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.slow
@pytest.mark.s3prl
def test_s3prl_trains_and_evaluates_it_from_the_hub(tmp_path):
    """s3prl's own run_downstream --hub huggingface, with a real download from a server on loopback.

    The repository asks for a token in training; the evaluation takes the cache, without one.
    """
    folder = export_hub(PRUNED, tmp_path / "hub")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    experiment = Experiment("ks", tmp_path, ["--hub", "huggingface", "-u", "user/repo"])
    with served() as server:
        server.repos["user/repo"] = Repo(files, gated=True)
        environment = {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        trained = experiment.one(experiment.train, **environment, HF_TOKEN="hf_secret").ok()
        assert "model.pt" in server.fetched()
    assert "[Runner] - Downloading upstream model user/repo from the Hugging Face Hub" in trained.out
    assert "0. pyyaml>=6\n1. torch>=2.8\n" in trained.out
    evaluated = experiment.one(experiment.evaluate, **environment, HF_HUB_OFFLINE="1").ok()
    (accuracy,) = experiment.scores(evaluated.out)
    assert math.isfinite(accuracy)
    assert experiment.checkpoint(2)["Featurizer"]["weights"].shape == (5,)
