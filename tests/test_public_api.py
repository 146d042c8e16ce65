"""The public names: complete, lazy, and usable without YAML."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import s3prl_dphubert
from s3prl_dphubert import Budget, CompressConfig, GatedModel, StudentConfig, compress, load_model, prune
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.utils import resources
from tests.helpers.compression_runs import STAGE, make_place, settings
from tests.helpers.models import tiny


def test_every_public_name_can_be_imported():
    assert dir(s3prl_dphubert) == sorted(s3prl_dphubert.__all__)
    assert set(s3prl_dphubert._HOMES) == set(s3prl_dphubert.__all__)
    for name in s3prl_dphubert.__all__:
        assert getattr(s3prl_dphubert, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'compres'"):
        s3prl_dphubert.compres  # noqa: B018


def test_the_package_alone_imports_nothing():
    """The plugin is imported at the start of every interpreter, so that this has to cost nothing."""
    script = (
        "import sys; before = set(sys.modules); import s3prl_dphubert\n"
        "print(sorted(set(sys.modules) - before - {'s3prl_dphubert'}))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.usefixtures("one_thread")
def test_compress_with_a_teacher_and_a_budget(tmp_path):
    place = make_place(tmp_path)
    stage = {**STAGE, "updates": 2, "warmup": 1}
    data = {"train": str(place / "x.tsv"), "batch": settings(place)["data"]["batch"]}
    model = compress(
        teacher=place / "teacher",
        data=data,
        budget={"sparsity": 0.4, "warmup": 1, "tolerance": 1.0},
        objective={"groups": [[0], [1, 3]]},
        stage1=stage,
        stage2=stage,
        out=tmp_path / "out",
    )
    full = sum(p.numel() for p in load_model(place / "teacher").parameters())
    assert sum(p.numel() for p in model.parameters()) <= 0.6 * full
    with pytest.raises(ConfigError, match="out is missing, allowed: the directory of the run"):
        compress(CompressConfig.create(teacher="hubert_mini", data="x.tsv"))


def test_configurations_from_a_base_and_changes():
    config = CompressConfig.create(teacher="hubert_mini", data="x.tsv", budget=0.5)
    assert (config.data.train, config.budget.shares, config.stage1.updates) == (
        "x.tsv",
        {"parameters": 0.5},
        50_000,
    )
    macs = CompressConfig.create(
        config, budget=Budget({"macs": 0.6}), stage1={"updates": 20_000}, stage2=None
    )
    assert (macs.budget.shares, macs.stage1.updates, macs.stage1.warmup) == ({"macs": 0.6}, 20_000, 15_000)
    assert (macs.stage2, macs.data) == (None, config.data)
    own = {"teacher": "hubert_mini", "data": "x.tsv"}
    for budget, amounts, shares in (
        ("24M", {"parameters": 24e6}, {}),
        ({"macs": "8G"}, {"macs": 8e9}, {}),
        ({"parameters": 1e6, "sparsity": {"macs": 0.5}}, {"parameters": 1e6}, {"macs": 0.5}),
        (Budget(parameters="2M", warmup=7), {"parameters": 2e6}, {}),
    ):
        created = CompressConfig.create(**own, budget=budget).budget
        assert (created.amounts, created.shares) == (amounts, shares)
    over = CompressConfig.create("dphubert_base", budget={"parameters": "24M", "macs": "20G"})
    assert (over.budget.amounts, over.budget.shares) == ({"parameters": 24e6, "macs": 20e9}, {})
    assert CompressConfig.create(**own, sizes=[0.5, "0.75", "1M"]).sizes == (0.5, 0.75, "1M")
    shipped = CompressConfig.create("distilhubert", student=StudentConfig(layers=3))
    assert (shipped.student.layers, shipped.stage1) == (3, None)
    with pytest.raises(ConfigError) as caught:
        CompressConfig.create(teacher=3, data={"train": "x.tsv", "valid_batches": 0}, budgt=0.5)
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "budgt: unknown field",
        "teacher is 3, expected a string",
        "data.valid_batches is 0, allowed: 1 or more",
    ]
    with pytest.raises(resources.ResourceError, match=r"allowed: .*dphubert_base,"):
        CompressConfig.create("dphubert_bas")


def test_prune_takes_a_gated_model():
    torch.manual_seed(0)
    model = tiny("hubert")
    assert prune(GatedModel(model), Budget(0.5)).config.num_layers == model.config.num_layers
    with pytest.raises(
        ConfigError, match=r"model is SpeechModel, expected a GatedModel, .* GatedModel\(model\) adds"
    ):
        prune(model, Budget(0.5))


def test_imports_leave_matplotlibs_backend_alone():
    script = (
        "import matplotlib; matplotlib.use('svg')\n"
        "from s3prl_dphubert import compress\n"
        "from s3prl_dphubert.bench import speed_report\n"
        "from s3prl_dphubert.compression import run_plots\n"
        "from s3prl_dphubert.superb.report import relative_plot, report_plots\n"
        "print(matplotlib.get_backend())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "svg\n", run.stderr
