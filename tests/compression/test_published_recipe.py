"""The recipe that runs is the one that was asked for: defaults, shipped files and documentation."""

from __future__ import annotations

import re

import pytest
import yaml

from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.pretrain.pretrain_config import RunnerConfig, RunnerData
from s3prl_dphubert.pruning.budget import COUNTS
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import apply_changes, from_dict, merge, read_yaml, to_dict
from tests.helpers.golden import ROOT

# Peng et al. 2023 and its code: run.sh, distill.py, final_distill.py. Seconds are of audio, in an update.
PUBLISHED = {
    "gates.kinds": ["conv", "heads", "ffn"],
    "gates.std": 0.01,
    "budget.sparsity": {"parameters": 0.75},
    "budget.warmup": 5_000,
    "budget.curve": "linear",
    "budget.constraint": "penalty",
    "gates.estimator": "sample",
    "objective.mode": "layer2layer",
    "objective.groups": [[0], [4, 8, 12]],
    "objective.l1": 1.0,
    "objective.l2": 0.0,
    "objective.cos": 1.0,
    "objective.cos_type": "raw",
    "objective.gram": 0.0,
    "objective.gram_intra": 0.0,
    "objective.masking": None,
    "data.batch.min_seconds": 2.0,
    "data.batch.max_seconds": 15.6,
    "data.batch.buckets": 1000,
    "stage1.updates": 50_000,
    "stage1.warmup": 15_000,
    "stage1.lr": 2e-4,
    "stage1.gate_lr": 0.02,
    "stage1.clip": 10.0,
    "stage1.betas": [0.9, 0.999],
    "stage1.eps": 1e-8,
    "stage1.weight_decay": 0.0,
    "stage1.feature_grad_mult": 1.0,
    "stage1.seconds": 640.0,
    "stage2.updates": 25_000,
    "stage2.warmup": 5_000,
    "stage2.lr": 1e-4,
    "stage2.clip": 10.0,
    "stage2.betas": [0.9, 0.999],
    "stage2.eps": 1e-8,
    "stage2.weight_decay": 0.0,
    "stage2.feature_grad_mult": 1.0,
    "stage2.average_best": 1,
    "stage2.seconds": 640.0,
}
SHORT = {
    "objective.groups": [[0], [4, 8, 12]],
    "budget.warmup": 60,
    "budget.constraint": "projection",
    "stage1.updates": 300,
    "stage1.warmup": 40,
    "stage1.lr": 1e-3,
    "stage1.gate_lr": 0.1,
    "stage1.seconds": 24.0,
    "stage2.updates": 200,
    "stage2.warmup": 20,
    "stage2.lr": 1e-3,
    "stage2.seconds": 24.0,
    "data.batch.min_seconds": 0.4,
    "data.batch.max_seconds": 8.0,
    "data.batch.buckets": 20,
}
MINI = SHORT | {
    "budget.warmup": 300,
    "stage1.updates": 2400,
    "stage1.warmup": 300,
    "stage1.lr": 7e-4,
    "stage1.gate_lr": 0.05,
    "stage2.updates": 1200,
    "stage2.warmup": 100,
    "stage2.lr": 7e-4,
    "data.batch.min_seconds": 0.8,
    "data.batch.buckets": 50,
}
DISTIL = {  # DistilHuBERT: Chang et al. 2022 and the settings of s3prl's distiller
    "objective.mode": "distilhubert",
    "objective.groups": [[4], [8], [12]],
    "objective.cos_type": "log_sig",
    "stage2.updates": 200_000,
    "stage2.warmup": 14_000,
    "stage2.lr": 2e-4,
    "stage2.clip": 5.0,
    "stage2.betas": [0.9, 0.98],
    "stage2.eps": 1e-6,
    "stage2.weight_decay": 0.01,
    "stage2.feature_grad_mult": 0.1,
    "stage2.seconds": 300.0,
}
BASELINE = (
    MINI | DISTIL | {"stage2.updates": 3600, "stage2.warmup": 300, "stage2.lr": 7e-4, "stage2.seconds": 24.0}
)
SHORT_BASELINE = {
    "stage2.updates": 500,
    "stage2.warmup": 50,
    "stage2.lr": 1e-3,
    "data.batch.min_seconds": 0.4,
    "data.batch.buckets": 20,
}
PROJECTION = {"budget.constraint": "projection"}
QUARTER = PROJECTION | {
    "stage1.seconds": 160.0,
    "stage2.seconds": 160.0,
    "data.batch.min_seconds": 1.0,
    "data.batch.buckets": 100,
}
EVEN = [[layer] for layer in range(1, 13)]
DEVIATIONS = {
    "any_corpus": QUARTER,
    "demo": SHORT,
    "distilhubert": DISTIL,
    "dpdata2vec_base": {},
    "dphubert_base": {},
    "dphubert_base_100h": {},
    "dphubert_base_both": PROJECTION | {"budget.sparsity": {"parameters": 0.75, "superb_macs": 0.78}},
    "dphubert_base_macs": PROJECTION | {"budget.sparsity": {"superb_macs": 0.75}},
    "dphubert_large": {"objective.groups": [[0], [8, 16, 24]]},
    "dpwav2vec2_base": {},
    "dpwavlm_base_plus": {},
    "dpwavlm_base_plus_macs": PROJECTION | {"budget.sparsity": {"superb_macs": 0.75}},
    "full_width_3_layers": DISTIL
    | {"objective.mode": "layer2layer", "objective.groups": [[[1, 4]], [[2, 8]], [[3, 12]]]},
    "half_width_12_layers": DISTIL | {"objective.mode": "layer2layer", "objective.groups": EVEN},
    "free_superb": MINI,
    "free_superb_both": MINI | {"budget.sparsity": {"parameters": 0.75, "macs": 0.7}},
    "free_superb_distilhubert": BASELINE,
    "free_superb_half_width": BASELINE | {"objective.mode": "layer2layer", "objective.groups": EVEN},
    "demo_distilhubert": BASELINE | SHORT_BASELINE,
}
"""Built-in configuration -> where it means to differ from the published recipe."""

MINIMAL = {"teacher": "hubert_base", "data": {"train": "x.tsv"}}


def facts(config: CompressConfig) -> dict:
    """The values of a filled configuration that :data:`PUBLISHED` names, without those of an absent stage."""
    values, settings = to_dict(config), {}
    for name in PUBLISHED:
        section, _, field = name.rpartition(".")
        inner = values
        for key in section.split("."):
            inner = inner[key]
        if inner is not None and (section != "budget" or config.stage1 is not None):
            seconds = values["data"]["batch"]["seconds_per_batch"]
            settings[name] = inner["accumulate"] * seconds if field == "seconds" else inner[field]
    return settings


def differences_from_published(config: CompressConfig) -> dict:
    return {name: value for name, value in facts(config).items() if value != PUBLISHED[name]}


@pytest.mark.parametrize(
    "file", sorted(resources.find("upstream_configs").glob("*.yaml")), ids=lambda file: file.stem
)
def test_shipped_configurations_differ_where_they_mean_to(file):
    config = from_dict(CompressConfig, read_yaml(file))
    present = facts(config)
    meant = {name: value for name, value in DEVIATIONS[file.stem].items() if name in present}
    meant = {name: value for name, value in meant.items() if value != PUBLISHED[name]}
    assert differences_from_published(config) == meant


def test_whatever_is_left_out_has_its_published_value():
    assert differences_from_published(from_dict(CompressConfig, MINIMAL)) == {}
    assert list(facts(from_dict(CompressConfig, MINIMAL))) == list(PUBLISHED)
    for section in ("stage1", "stage2", "gates", "budget", "objective"):
        for values in ({}, {"precision": "bf16"} if "stage" in section else {}):
            config = from_dict(CompressConfig, MINIMAL | {section: values})
            assert differences_from_published(config) == {}


def test_a_section_is_laid_over_its_own_default():
    config = from_dict(CompressConfig, MINIMAL | {"stage2": {"precision": "bf16"}})
    assert (config.stage2.lr, config.stage2.warmup, config.stage2.updates) == (1e-4, 5_000, 25_000)
    changed = apply_changes(MINIMAL, ["stage2.lr=3e-4"])
    assert from_dict(CompressConfig, changed).stage2.updates == 25_000
    by_name = CompressConfig.create(stage2={"lr": 3e-4}, **MINIMAL)
    assert (by_name.stage2.lr, by_name.stage2.updates) == (3e-4, 25_000)
    with pytest.raises(ConfigError, match=r"stage2\.warmup is 5000, allowed: 0 to updates \(40\)"):
        from_dict(CompressConfig, MINIMAL | {"stage2": {"updates": 40}})
    counts = from_dict(CompressConfig, MINIMAL | {"budget": {"sparsity": {"macs": 0.5}}}).budget.shares
    assert counts == {"macs": 0.5}  # one value, no section


@pytest.mark.parametrize("stage", [1, 2])
def test_pretraining_configurations_are_the_published_recipe(stage):
    folder, suffix = ROOT / "s3prl_dphubert" / "pretrain" / "dphubert", "" if stage == 1 else "_stage2"
    values = read_yaml(folder / f"config_runner{suffix}.yaml")
    datarc = values["pretrain_expert"]["datarc"]
    data = RunnerData.read(datarc)
    train = RunnerConfig.read(values, 1000, datarc["num_workers"]).training()
    model = read_yaml(folder / f"config_model{suffix}.yaml")
    run = {name: model[name] for name in ("teacher", "gates", "budget", "objective")}
    other = {f"stage{3 - stage}": {}}
    batch = to_dict(data)["batch"]
    run |= other | {f"stage{stage}": to_dict(train), "data": {"train": data.train, "batch": batch}}
    assert differences_from_published(from_dict(CompressConfig, run)) == {}
    assert train.precision == "bf16"  # s3prl's runner does not recover from an overflow in fp16


def documented():
    """The YAML blocks of README and documentation that describe runs or parts of them."""
    fields = set(to_dict(from_dict(CompressConfig, MINIMAL)))
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf8"), re.DOTALL):
            try:
                values = yaml.safe_load(block)
            except yaml.YAMLError:  # a list of alternatives
                continue
            if isinstance(values, dict) and set(values) <= fields:
                yield pytest.param(values, id=f"{page.name}-{'-'.join(values)}")


def test_documented_runs_are_found():
    assert len(list(documented())) >= 8


@pytest.mark.parametrize("values", list(documented()))
def test_documented_runs_are_the_published_recipe_but_for_what_they_say(values):
    config = from_dict(CompressConfig, merge(MINIMAL, values))
    named = {
        f"{section}.{field}"
        for section, fields in values.items()
        if isinstance(fields, dict)
        for field in fields
    }
    named |= {f"data.batch.{field}" for field in values.get("data", {}).get("batch", {})}
    if {"stage1.accumulate", "data.batch.seconds_per_batch"} & named:
        named |= {"stage1.seconds", "stage2.seconds"}
    if {f"budget.{count}" for count in COUNTS} & named:
        named.add("budget.sparsity")  # which an amount replaces
    assert set(differences_from_published(config)) <= named


def test_the_short_run_of_the_documentation_is_the_demo():
    """README and tutorial show the run of the demo, and so reach their budget."""
    demo = facts(from_dict(CompressConfig, read_yaml(resources.find("upstream_configs/demo.yaml"))))
    for page in (ROOT / "README.md", ROOT / "docs" / "tutorials" / "first-model.md"):
        blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf8"), re.DOTALL)
        (run,) = (yaml.safe_load(block) for block in blocks if "stage1" in block)
        assert facts(from_dict(CompressConfig, run)) == demo


def test_a_warm_up_of_the_budget_that_outlasts_stage_1_is_refused():
    with pytest.raises(ConfigError, match=r"budget\.warmup is 5000, allowed: 0 to stage1\.updates \(12\)"):
        from_dict(CompressConfig, MINIMAL | {"stage1": {"updates": 12, "warmup": 3}})
    fitting = {"stage1": {"updates": 12, "warmup": 3}, "budget": {"warmup": 12}}
    assert from_dict(CompressConfig, MINIMAL | fitting).budget.warmup == 12
    unused = {"stage1": None, "student": {"layers": 2}, "budget": {"warmup": 10**6}}
    assert from_dict(CompressConfig, MINIMAL | unused).stage1 is None
