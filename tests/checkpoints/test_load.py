"""One loader: every form of a source, through ``load_model``, the commands and the upstreams."""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchaudio
from safetensors.torch import save_file
from torchaudio.pipelines import Wav2Vec2Bundle

from s3prl_dphubert import load_model, load_teacher, save_model
from s3prl_dphubert.checkpoints import dphubert_pth
from s3prl_dphubert.checkpoints.teachers import TEACHERS
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.model.cost import macs, parameters
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.structured import prune
from s3prl_dphubert.upstream.entries import dphubert_local
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import to_dict
from tests.helpers import foreign_checkpoints
from tests.helpers.golden import GOLDEN
from tests.helpers.hub_server import Repo, served, use
from tests.helpers.models import FAMILIES, assert_same, gated, outputs, tiny


@pytest.fixture
def server(monkeypatch, tmp_path):
    with served() as server:
        use(server, tmp_path, monkeypatch)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
        monkeypatch.chdir(tmp_path)
        yield server


def directory(server):
    return save_model(tiny("hubert"), Path("ours"))


def transformers_directory(server):
    values, state = foreign_checkpoints.transformers()
    Path("transformers").mkdir()
    Path("transformers", "config.json").write_text(json.dumps(values))
    save_file(state, "transformers/model.safetensors")
    return "transformers"


def dphubert_file(server):
    dphubert_pth.write(tiny("hubert"), "a.pth")
    return "a.pth"


def fairseq_file(server):
    settings, state = foreign_checkpoints.fairseq()
    torch.save({"args": argparse.Namespace(**settings), "model": state}, "a.pt")
    return "a.pt"


def wavlm_file(server):
    settings, state = foreign_checkpoints.fairseq()
    torch.save({"cfg": settings, "model": state}, "a.pt")
    return "a.pt"


def s3prl_file(server):
    settings, state = foreign_checkpoints.fairseq()
    torch.save({"task_cfg": {}, "model_cfg": settings, "model_weight": state}, "a.pt")
    return "a.pt"


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def teacher_on_the_hub(server):
    server.repos["facebook/hubert-base-ls960"] = Repo(files(transformers_directory(server)))
    return "hubert_base"


def own_on_the_hub(server):
    server.repos["user/repo"] = Repo(files(directory(server)))
    return "user/repo"


def revision_on_the_hub(server):
    server.repos["user/repo"] = Repo(
        {}, revisions={"v1": Repo(files(transformers_directory(server)), "f" * 40)}
    )
    return "user/repo@v1"


def file_on_the_hub(server):
    server.repos["user/repo"] = Repo({"sub/a.pth": Path(dphubert_file(server)).read_bytes()})
    return "user/repo/sub/a.pth"


def url(server):
    file_on_the_hub(server)
    return f"{server.url}/user/repo/resolve/main/sub/a.pth"


def bundle(server):
    arguments, state = foreign_checkpoints.torchaudio()
    Path("torch", "checkpoints").mkdir(parents=True)
    torch.save(state, "torch/checkpoints/tiny.pth")
    torchaudio.pipelines.TINY = Wav2Vec2Bundle("tiny.pth", arguments, 16_000, False, "Wav2Vec2")
    return "torchaudio:TINY"


def states(stage, student, model, **more):
    """A checkpoint of run_pretrain."""
    recipe = {"stage": stage, "gates": to_dict(more["gates"]), "budget": to_dict(Budget(sparsity=0.5))}
    module = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    full = Budget(sparsity=0.5).costs(model.config)
    torch.save(
        {
            "Step": 3,
            "Upstream_Config": {"recipe": recipe, "shape": model.config.to_dict(), "updates1": None},
            "DPHuBERT": {"module": module, "full_costs": full},
            "Args": argparse.Namespace(upstream="dphubert"),
        },
        f"states-{stage}.ckpt",
    )
    return f"states-{stage}.ckpt"


def second_stage(server):
    return states(2, tiny("hubert"), tiny("hubert"), gates=gated(tiny("hubert")).gates.config)


FORMS = (
    directory,
    transformers_directory,
    dphubert_file,
    fairseq_file,
    wavlm_file,
    s3prl_file,
    teacher_on_the_hub,
    own_on_the_hub,
    revision_on_the_hub,
    file_on_the_hub,
    url,
    bundle,
    second_stage,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_model(form, server, monkeypatch):
    monkeypatch.setattr(torchaudio.pipelines, "TINY", None, raising=False)  # taken away again afterwards
    source, expected = form(server), tiny("hubert")
    model = load_model(source)
    assert_same(outputs(model), outputs(expected), 1e-6)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "feature_extractor.dummy_weight"
    ]
    assert not model.config.normalize_waveform
    expert = dphubert_local(source)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expert.parameters(), strict=True))


def test_the_first_stage_of_a_pretraining_is_pruned(server):
    torch.manual_seed(0)
    student = gated(tiny("hubert"))
    source = states(1, student, student.model, gates=student.gates.config)
    model, budget = load_model(source), Budget(sparsity=0.5)
    expected = prune(student, budget)
    assert model.config == expected.config
    assert parameters(model.config) <= 0.5 * parameters(student.model.config)
    assert_same(outputs(model), outputs(expected), 0.0)


def test_damaged_checkpoints_of_a_pretraining(server):
    source = second_stage(server)
    content = torch.load(source, weights_only=False)
    for change, message in (
        (lambda c: c["DPHuBERT"]["module"].update({"student.x": 3}), "student.x is int, expected a tensor"),
        (lambda c: c["Upstream_Config"].pop("shape"), "not of run_pretrain -u dphubert, or incomplete"),
        (lambda c: c["Upstream_Config"]["recipe"].update(gates=3), "not of run_pretrain -u dphubert"),
        (lambda c: c["DPHuBERT"].update(module=[]), "not of run_pretrain -u dphubert"),
    ):
        damaged = copy.deepcopy(content)
        change(damaged)
        torch.save(damaged, "damaged.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load_model("damaged.ckpt")


def fine_tuned(upstream, origin, **content):
    """Save a checkpoint like s3prl's run_downstream -f; return the model whose tensors its upstream has."""
    model = tiny("hubert")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    arguments = argparse.Namespace(upstream=upstream, upstream_ckpt=origin, downstream="speech_commands")
    saved = {
        "Downstream": {},
        "Args": arguments,
        "Config": {},
        "Upstream": UpstreamExpert(model).state_dict(),
    }
    torch.save({**saved, **content}, "dev-best.ckpt")
    return model


def test_an_upstream_that_s3prl_fine_tuned(server, capsys):
    save_model(tiny("hubert"), Path("before"))
    expected = fine_tuned("dphubert_local", "before")
    assert_same(outputs(load_model("dev-best.ckpt")), outputs(expected), 0.0)
    assert main(["convert", "dev-best.ckpt", "after"]) == 0
    assert_same(outputs(load_model("after")), outputs(expected), 0.0)


def test_an_upstream_with_a_name_of_the_user_that_s3prl_fine_tuned(server, monkeypatch):
    save_model(tiny("hubert"), Path("before"))
    Path("upstreams.yaml").write_text("my_model: before\n")
    expected = fine_tuned("my_model", None)
    with pytest.raises(CheckpointError, match=r"fine-tuned from my_model None, .* still in your files"):
        load_model("dev-best.ckpt")
    monkeypatch.setenv("S3PRL_DPHUBERT_UPSTREAMS", "upstreams.yaml")
    assert_same(outputs(load_model("dev-best.ckpt")), outputs(expected), 0.0)


@pytest.mark.parametrize(
    ("upstream", "origin", "content", "message"),
    [
        (
            "dphubert_local",
            "before",
            {"Upstream": None},
            "without -f, so it holds no upstream; .* on: before",
        ),
        ("dphubert_local", "gone", {}, "that it was fine-tuned from is needed; gone: no such file"),
        ("dphubert_local", "dev-best.ckpt", {}, "that is not itself fine-tuned"),
        ("dphubert_url", "http://127.0.0.1:9/a.pth", {}, "fine-tuned from dphubert_url 'http"),
        ("hubert", None, {}, "fine-tuned from hubert None, expected dphubert,"),
        ("dphubert_local", "before", {"Upstream": [1]}, "dev-best.ckpt: damaged"),
        ("dphubert_local", "before", {"Args": 3}, "dev-best.ckpt: damaged"),
        ("dphubert_local", "hubert_mini", {}, "tensor .* is missing"),
    ],
)
def test_fine_tuned_upstreams_that_are_refused(upstream, origin, content, message, server):
    save_model(tiny("hubert"), Path("before"))
    fine_tuned(upstream, origin, **content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model("dev-best.ckpt")
    assert "\n" not in str(caught.value)
    assert server.log == []


def a_run(server):
    save_model(tiny("hubert"), Path("run/model"))
    return "run"


def a_run_of_s3prl(server):
    Path("run").mkdir()
    for number in (2, 4):
        Path(f"run/states-{number}.ckpt").write_text("")
        os.utime(f"run/states-{number}.ckpt", (number, number))
    return "run"


def weights_alone(server):
    save_model(tiny("hubert"), Path("saved"))
    return "saved/model.safetensors"


def tensors_alone(server):
    torch.save(tiny("hubert").state_dict(), "a.pt")
    return "a.pt"


def a_pipe(server):
    os.mkfifo("a.pt")
    return "a.pt"


def of_transformers(wrap):
    def write(server):
        values, state = foreign_checkpoints.transformers()
        Path("saved").mkdir()
        Path("saved/config.json").write_text(json.dumps(values))
        torch.save(wrap(state), "saved/pytorch_model.bin")
        return "saved"

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_run, "run: the folder of a run; give that of its model, run/model"),
        (
            a_run_of_s3prl,
            r"run: the folder of a run of s3prl; give one of its files, such as run/states-4\.ckpt",
        ),
        (weights_alone, "model.safetensors: one file of a checkpoint; give its folder, saved"),
        (tensors_alone, r"a\.pt: holds tensors without a configuration; give the folder"),
        (a_pipe, r"a\.pt: neither a folder nor a regular file"),
        (of_transformers(lambda state: {"state_dict": state}), "inside state_dict; save that mapping alone"),
        (
            of_transformers(lambda state: {f"module.{name}": tensor for name, tensor in state.items()}),
            r"begin with module\.; save model\.module\.state_dict",
        ),
    ],
)
def test_what_to_give_instead_is_said(make, message, server):
    with pytest.raises(CheckpointError, match=message):
        load_model(make(server))


def test_both_names_of_the_loader_are_one_function():
    assert load_teacher is load_model
    shipped = load_model(resources.find("assets/hubert_mini"))
    assert_same(outputs(load_model("hubert_mini")), outputs(shipped), 0.0)


def test_names_and_paths_of_the_same_name(server):
    save_model(tiny("wavlm"), Path("hubert_mini"))
    assert load_model("hubert_mini").config.num_buckets == 0
    assert load_model("./hubert_mini").config.num_buckets == 32
    assert load_model(Path("hubert_mini")).config.num_buckets == 32
    server.repos["user/repo"] = Repo(files(directory(server)))
    Path("user").mkdir()
    Path("hubert_mini").rename("user/repo")
    assert load_model(Path("hubert_mini")).config.num_buckets == 0  # nothing is there any more
    assert load_model("user/repo").config.num_buckets == 32


def test_refresh_downloads_again(server):
    for form, name in ((own_on_the_hub, "model.safetensors"), (url, "a.pth")):
        source = form(server)
        load_model(source)
        downloads = server.fetched().count(name)
        load_model(source)
        assert server.fetched().count(name) == downloads > 0
        load_model(source, refresh=True)
        assert server.fetched().count(name) == 2 * downloads


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hubert_nano", "^hubert_nano: no longer ships; use hubert_mini, another model"),
        ("nothing", r"^nothing: no such file or directory; expected a path, a Hub id .* wavlm_large,"),
        ("x" * 5000, "no such file or directory; expected a path"),
        ("torchaudio:NONE", "torchaudio:NONE: no such bundle; available: .*HUBERT_BASE"),
        ("model.onnx", r"model\.onnx: an exported model, which s3prl_dphubert\.export\.load_exported loads"),
        ("model.xml", "load_exported loads"),
        ("empty", "empty: config.json is missing"),
        ("text.pt", r"text\.pt: damaged"),
        (GOLDEN / "wavlm_gated.pth", "holds the gates of a student in training"),
    ],
)
def test_what_is_no_model_is_one_line(source, message, server):
    for name in ("model.onnx", "model.xml", "text.pt"):
        Path(name).write_text("text")
    Path("empty").mkdir()
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(source)
    assert "\n" not in str(caught.value)
    assert server.log == []


COMMANDS = (
    ["inspect", "{source}"],
    ["profile", "{source}", "--seconds", "0.5", "--repeats", "1"],
    ["convert", "{source}", "out"],
    ["convert", "{source}", "out.pth"],
    ["export-hub", "{source}", "out"],
    ["export", "{source}", "out.onnx", "--format", "onnx"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:3:2]))
def test_commands_take_what_the_loader_takes(command, server, capsys):
    source = revision_on_the_hub(server)
    assert main([word.format(source=source) for word in command]) == 0
    if command[0] in ("inspect", "profile"):
        assert f"{parameters(tiny('hubert').config):,}" in capsys.readouterr().out
        assert main([word.format(source="hubert_mini") for word in command]) == 0
        assert f"{TEACHERS['hubert_mini'].parameters:,}" in capsys.readouterr().out


def test_teachers_are_as_large_as_their_shapes():
    shapes = {
        "hubert_mini": load_model("hubert_mini").config,
        "wavlm_base_plus": FAMILIES["wavlm_base"],
        "wav2vec2_large_lv60k": FAMILIES["wav2vec2_large"],
    }
    for name, teacher in TEACHERS.items():
        shape = shapes.get(name) or FAMILIES[name]
        assert (teacher.parameters, teacher.macs) == (parameters(shape), macs(shape, 160_000)), name


def test_teachers_are_listed_without_torch(capsys):
    assert main(["teachers"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "name"
    assert [row.split()[0] for row in rows] == list(TEACHERS)
    assert "  315,438,208" in rows[2] and rows[2].endswith("Apache-2.0    facebook/hubert-large-ll60k")
    script = (
        "import sys; from s3prl_dphubert.cli import main; main(['teachers']); "
        "assert not {'torch', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
