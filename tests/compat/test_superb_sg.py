"""Repairs that only the tasks of SUPERB-SG need."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from s3prl_dphubert import compat, doctor
from s3prl_dphubert.compat import asteroid, devices, fairseq_import, mask_downstreams, missing_modules
from s3prl_dphubert.superb import recipe
from s3prl_dphubert.superb.run import preflight
from s3prl_dphubert.superb.run.plan import RunPlan
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.tasks import all_tasks, find, spec, st

EXPERTS = ("enhancement_stft", "enhancement_stft2", "separation_stft", "separation_stft2")


def chosen_by(patches, end):
    (chosen,) = (patch for patch in patches if patch.name.endswith(end))
    return chosen


def test_what_s3prl_takes_from_asteroid_is_there_and_the_rest_is_not(monkeypatch):
    monkeypatch.setattr(missing_modules.importlib.util, "find_spec", lambda name: None)
    for name in EXPERTS:
        patch = chosen_by(missing_modules.PATCHES, f"(downstream.{name}.expert)")
        assert patch.needed(ModuleType("expert")) and patch.early
        undo = patch.apply(ModuleType("expert"))
        try:
            from asteroid.losses import PITLossWrapper
            from asteroid.metrics import MetricTracker, get_metrics

            assert get_metrics is asteroid.get_metrics
            assert issubclass(PITLossWrapper, torch.nn.Module)
            with pytest.raises(
                ValueError, match=r"asteroid.metrics.MetricTracker is needed here: pip install asteroid"
            ):
                MetricTracker(16_000)
        finally:
            undo()
        assert "asteroid.metrics" not in sys.modules


def test_versions_are_told_without_pkg_resources(monkeypatch):
    monkeypatch.setattr(missing_modules.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    undo = chosen_by(missing_modules.PATCHES, "(pyworld)").apply(ModuleType("pyworld"))
    try:
        assert importlib.import_module("pkg_resources").get_distribution("torch").version == (
            importlib.import_module("importlib.metadata").version("torch")
        )
    finally:
        undo()
    assert "pkg_resources" not in sys.modules


def expert_of_its_time(monkeypatch):
    """The shape of s3prl's module: a device chosen when it is imported, a window on the GPU."""
    package = ModuleType("stft")
    loss, module = ModuleType("stft.loss"), ModuleType("stft.expert")
    module.__package__ = "stft"
    source = """
    import torch
    device = torch.device("meta")

    class SepRNN:
        def forward(self, x, train=True): ...

    class DownstreamExpert:
        def __init__(self):
            window = torch.hann_window(4).cuda()
            self.objective = type("Loss", (), {"window": window})()

        def forward(self, mode, features, scale, records=None):
            return features[0].device, device, loss.device, self.objective.window.device, mode, scale
    """
    module.loss = loss
    loss.device = torch.device("meta")
    exec(textwrap.dedent(source), module.__dict__)
    for name, each in {"stft": package, "stft.loss": loss, "stft.expert": module}.items():
        monkeypatch.setitem(sys.modules, name, each)
    return module, loss


def test_enhancement_computes_where_the_features_are(monkeypatch):
    module, loss = expert_of_its_time(monkeypatch)
    patch = chosen_by(devices.PATCHES, "enhancement_stft device")
    assert [each.name for each in devices.PATCHES][1:] == [f"{name} device" for name in EXPERTS]
    assert patch.needed(module)
    patch.apply(module)
    expert = module.DownstreamExpert()
    *places, mode, scale = expert.forward("dev", [torch.zeros(1)], 3, records={})
    assert {str(place) for place in places} == {"cpu"} and (mode, scale) == ("dev", 3)
    assert (module.device.type, loss.device.type) == ("meta", "meta")  # as it was, outside
    assert not patch.needed(SimpleNamespace(SepRNN=module.SepRNN))


def test_an_estimate_of_nothing_ends_nothing():
    def postprocess(x):
        """As s3prl begins."""
        return x[: int(np.max(np.nonzero(x))) + 1]

    expert = SimpleNamespace(postprocess=postprocess)
    patch = chosen_by(mask_downstreams.PATCHES, "enhancement_stft silence")
    assert patch.needed(expert) and len(mask_downstreams.PATCHES) == len(EXPERTS)
    patch.apply(expert)
    assert not patch.needed(expert)
    assert expert.postprocess(np.zeros(5)).tolist() == [0] * 5
    assert expert.postprocess(np.array([1.0, 0.0])).tolist() == [1]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of that name whose settings are nested as fairseq's are."""

    def write(settings: str, extra: str = ""):
        root = tmp_path / "fairseq"
        for name, text in {
            "__init__.py": f"from fairseq.dataclass import configs\n{extra}",
            "dataclass/__init__.py": "",
            "dataclass/configs.py": f"from dataclasses import dataclass, field\n{settings}",
            "data/__init__.py": "",
            "data/data_utils_fast.py": "",
        }.items():
            (root / name).parent.mkdir(exist_ok=True, parents=True)
            (root / name).write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == "fairseq"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "fairseq"]:
        del sys.modules[name]


NESTED = f"""
@dataclass
class CommonConfig:
    seed: int = 1

@dataclass
class FairseqConfig:
    {fairseq_import.NESTED}
    rate: float = field(default=0.5)

@dataclass(frozen=True, eq=True)
class Fixed:
    name: str = "x"
"""


def test_fairseqs_nested_settings_are_allowed_while_it_is_imported(package):
    package(NESTED)
    before = dataclasses.dataclass
    compat.apply()
    configs = importlib.import_module("fairseq").configs
    assert dataclasses.dataclass is before
    made = configs.FairseqConfig(rate=2.0)
    assert (made.common.seed, made.rate) == (1, 2.0)
    assert made.common is configs.FairseqConfig().common  # shared, as before Python 3.11
    assert hash(configs.Fixed("a")) == hash(configs.Fixed("a")) != hash(configs.Fixed("b"))
    if sys.version_info >= (3, 11):
        with pytest.raises(ValueError, match="mutable default"):
            dataclasses.make_dataclass(
                "Outer", [("inner", int, dataclasses.field(default=dataclasses.make_dataclass("I", [])()))]
            )
        assert next(row for row in compat.report() if row.name == "fairseq dataclasses").applied


def test_a_mended_fairseq_is_left_alone(package):
    package("x = 1\n")
    module = importlib.import_module("fairseq")
    assert not fairseq_import.PATCHES[0].needed(module)
    assert not fairseq_import.PATCHES[0].needed(SimpleNamespace(__path__=["nowhere"]))


def test_a_missing_or_broken_fairseq_is_told(package, monkeypatch):
    assert [task.name for task in all_tasks() if task.blocked is not None] == ["ST"]
    with monkeypatch.context() as patched:
        patched.setattr(st, "find_spec", lambda name: None)
        patched.delitem(sys.modules, "fairseq", raising=False)
        assert "fairseq is missing" in find("ST").blocked()
        assert "git+https://github.com/facebookresearch/fairseq" in find("ST").blocked()
    package(NESTED)
    assert find("ST").blocked() == ""
    package(NESTED, "raise RuntimeError('built for\\nanother torch')\n")
    reason = find("ST").blocked()
    assert "RuntimeError: built for another torch" in reason and "\n" not in reason


def test_doctor_and_the_runner_say_the_same(monkeypatch, tmp_path):
    why = "fairseq is missing, and its release"
    monkeypatch.setattr(spec, "_is_missing", lambda name: name == "sacrebleu")
    monkeypatch.setattr(st, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "fairseq", raising=False)
    advice = doctor._task(find("ST")).text
    assert advice.startswith(f"pip install sacrebleu; {why}")
    translation = recipe.load(recipe.recipe_folders()["ST"])
    plan = RunPlan(UpstreamSpec("fbank"), (translation,), data=tmp_path, out=tmp_path)
    (row,) = preflight.check(plan)
    assert [each for each in row.missing if each.startswith(why)]
    assert "left out: ST" in preflight.table([row])
