"""Teachers from ESPnet's HuBERT recipes compute what torchaudio's and fairseq's models compute."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch import nn
from torchaudio.models import hubert_pretrain_model

from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import CheckpointError
from tests.checkpoints import test_fairseq as of_fairseq
from tests.checkpoints import test_torchaudio as of_torchaudio
from tests.helpers.hidden_states import assert_parity, scramble
from tests.helpers.hub_server import Repo, served, use

CONV = {"extractor_conv_layer_config": [[12, 10, 5], [12, 3, 2], [12, 3, 4], [12, 4, 8]]}
TORCHAUDIO = {key: value for key, value in of_torchaudio.SMALL.items() if key != "aux_num_out"} | CONV


class Holder(nn.Module):
    """A module that holds others under the names of ESPnet's classes."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def write(folder, encoder, kind, settings, **more):
    """Write an experiment as ESPnet does; returns the averaged model's file."""
    model = Holder(encoder=encoder)
    encoder.register_buffer("global_step", torch.tensor([7]))
    folder.mkdir(exist_ok=True)
    config = {
        "input_size": 1,
        "token_list": [str(number) for number in range(500)],
        "encoder": kind,
        "encoder_conf": settings,
        "frontend": None,
        "normalize": None,
        **more,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), folder / "valid.loss.ave.pth")
    torch.save({"model": model.state_dict(), "optimizers": [], "reporter": {}}, folder / "checkpoint.pth")
    return folder / "valid.loss.ave.pth"


@pytest.fixture
def experiment(tmp_path):
    original = scramble(
        hubert_pretrain_model(**TORCHAUDIO, **of_torchaudio.MASKING, num_classes=5, final_dim=8)
    )
    path = write(
        tmp_path / "exp",
        Holder(hubert_pretrain_model=original),
        "torchaudio_hubert",
        TORCHAUDIO | {"final_dim": 8},
    )
    return original.wav2vec2, path


@pytest.mark.parametrize("shape", ["base", "large"])
def test_torchaudios_hubert(shape, tmp_path):
    settings = TORCHAUDIO | (of_torchaudio.LARGE if shape == "large" else {})
    original = scramble(
        hubert_pretrain_model(**settings, **of_torchaudio.MASKING, num_classes=5, final_dim=8)
    )
    path = write(tmp_path, Holder(hubert_pretrain_model=original), "torchaudio_hubert", settings)
    model = load_model(path)
    assert_parity(model, of_torchaudio.runner(original.wav2vec2))
    config = model.config
    assert (config.dropout, config.attention_dropout) == (0.11, 0.12)
    assert (config.ffn_dropout, config.projection_dropout) == (0.13, 0.14)
    assert not config.normalize_waveform


def test_the_trainers_own_checkpoint(experiment):
    original, path = experiment
    assert_parity(load_model(path.with_name("checkpoint.pth")), of_torchaudio.runner(original))


def test_a_checkpoint_on_the_hub(experiment, tmp_path, monkeypatch):
    original, path = experiment
    files = {f"exp/run/{name}": path.with_name(name).read_bytes() for name in (path.name, "config.yaml")}
    with served() as server:
        server.repos["espnet/model"] = Repo(files)
        use(server, tmp_path, monkeypatch)
        model = load_model("espnet/model/exp/run/valid.loss.ave.pth")
        assert server.fetched() == ["valid.loss.ave.pth", "config.yaml"]
        del server.repos["espnet/model"].files["exp/run/config.yaml"]
        server.repos["espnet/model"].commit = "b" * 40
        with pytest.raises(CheckpointError, match=r"whose config\.yaml is missing beside it"):
            load_model("espnet/model/exp/run/valid.loss.ave.pth")
    assert_parity(model, of_torchaudio.runner(original))


@pytest.mark.parametrize("shape", ["base", "large"])
def test_fairseqs_hubert(shape, tmp_path):
    changes = of_fairseq.LARGE if shape == "large" else {}
    original, _ = of_fairseq.made("hubert", **changes)
    settings = {
        "output_size": 32,
        "linear_units": 48,
        "attention_heads": 4,
        "num_blocks": 3,
        "dropout_rate": 0.11,
        "attention_dropout_rate": 0.12,
        "activation_dropout": 0.13,
        "dropout_input": 0.14,
        "conv_feature_layers": of_fairseq.CONVS,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "hubert_dict": "dict.txt",
        "normalize": True,  # which ESPnet does not hand on
        **changes,
    }
    model = load_model(write(tmp_path, Holder(encoder=original), "hubert_pretrain", settings))
    assert_parity(model, of_fairseq.runner(original))
    config = model.config
    assert (config.dropout, config.attention_dropout) == (0.11, 0.12)
    assert (config.ffn_dropout, config.projection_dropout) == (0.13, 0.14)


def test_fields_that_the_recipe_leaves_out_have_espnets_defaults():
    from s3prl_dphubert.checkpoints.espnet import read_torchaudio_config
    from tests.helpers.models import FAMILIES

    assert read_torchaudio_config({}, "test") == FAMILIES["hubert_base"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalize": "utterance_mvn"}, "normalize is 'utterance_mvn', allowed: null"),
        ({"preencoder": "sinc"}, "preencoder is 'sinc', allowed: null"),
        ({"frontend": "default", "input_size": None}, "frontend is 'default', allowed: null"),
        ({"encoder_conf": [1]}, r"encoder_conf is \[1\], expected a mapping"),
        ({"encoder_conf": {"encoder_num_layers": 0}}, "encoder_num_layers is 0, allowed: 1 to 1000"),
        ({"encoder_conf": {"encoder_num_layers": 2}}, "unexpected|shape"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(change, message, experiment):
    path = experiment[1].with_name("config.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_model(experiment[1])


def test_a_frontend_that_input_size_switches_off(experiment):
    path = experiment[1].with_name("config.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"frontend": "default"}))
    assert_parity(load_model(experiment[1]), of_torchaudio.runner(experiment[0]))


def test_a_folder_or_a_file_alone_says_what_is_missing(experiment):
    path = experiment[1]
    with pytest.raises(CheckpointError, match=r"experiment of ESPnet; .* such as .*valid\.loss\.ave\.pth"):
        load_model(path.parent)
    path.with_name("config.yaml").write_text("- a list\n")
    with pytest.raises(CheckpointError, match=r"config\.yaml: holds \['a list'\], expected a mapping"):
        load_model(path)
    path.with_name("config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"of ESPnet, whose config\.yaml is missing beside it"):
        load_model(path)
