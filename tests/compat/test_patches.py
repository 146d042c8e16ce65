"""Repairs of s3prl: made only where needed, once, and without disturbing s3prl."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from types import ModuleType, SimpleNamespace

import pandas
import pytest
import torch
from tqdm import tqdm

from s3prl_dphubert import compat
from s3prl_dphubert.compat import (
    checkpoint_writes,
    dataloaders,
    devices,
    disabled_bars,
    huggingface_hub,
    missing_modules,
    pandas_rows,
)
from s3prl_dphubert.compat.catalyst import DistributedSamplerWrapper
from s3prl_dphubert.compat.import_hook import Finder
from s3prl_dphubert.compat.patch import Ledger, Patch
from s3prl_dphubert.errors import DataError, RunError
from tests.helpers.s3prl_runs import python

BROKEN = """
import sys
from s3prl_dphubert import compat
from s3prl_dphubert.compat.patch import Patch

def fail(module):
    raise KeyError("a name\\nthat is gone")

compat.PATCHES = (Patch("broken", "torchaudio", "", "", lambda module: True, fail), *compat.PATCHES)
import s3prl.hub
row = compat.report()[0]
print(row.name, row.needed, row.applied, row.error, len(s3prl.hub.options()) > 100)
"""
OFF = """
import argparse, io, torch
def attempt(function):
    try:
        function()
    except Exception as error:
        print(type(error).__name__, error)
def load():
    file = io.BytesIO()
    torch.save(argparse.Namespace(), file)
    file.seek(0)
    torch.load(file)
attempt(lambda: __import__("s3prl.hub"))
attempt(load)
from s3prl_dphubert import compat
compat.apply()
print({(row.needed, row.applied) for row in compat.report()})
"""


def patch(needed=lambda module: True, apply=lambda module: None, **options):
    values = {"name": "a patch", "module": "a_module", "reason": "r", "versions": "v"}
    return Patch(**{**values, "needed": needed, "apply": apply, **options})


def test_the_table_says_what_each_patch_is_for():
    assert len(compat.PATCHES) == 51
    assert len({patch.name for patch in compat.PATCHES}) == len(compat.PATCHES)
    assert all(patch.reason and patch.versions for patch in compat.PATCHES)
    assert {patch.module for patch in compat.PATCHES} == compat.MODULES


def test_importing_it_imports_nothing_heavy(tmp_path):
    heavy = ("torch", "torchaudio", "s3prl", "transformers", "numpy", "huggingface_hub", "soundfile")
    code = f"import sys, s3prl_dphubert.compat as c; print([n for n in {heavy} if n in sys.modules])"
    assert python("-c", code, cwd=tmp_path).ok().out == "[]\n"


@pytest.mark.s3prl
def test_a_broken_patch_is_one_line_and_s3prl_goes_on(tmp_path):
    done = python("-c", BROKEN, cwd=tmp_path).ok()
    assert done.out == "broken True False KeyError: 'a name\\nthat is gone' True\n"
    complaints = [line for line in done.err.splitlines() if "s3prl-dphubert" in line]
    assert len(complaints) == 1
    assert complaints[0].startswith("s3prl-dphubert: could not patch broken (KeyError")


@pytest.mark.s3prl
def test_without_patches_the_known_failures_are_back(tmp_path):
    done = python("-c", OFF, cwd=tmp_path, S3PRL_DPHUBERT_COMPAT="0").ok()
    missing, refused, rows = done.out.splitlines()[0], done.out, done.out.splitlines()[-1]
    assert missing.startswith("AttributeError") and "set_audio_backend" in missing
    assert "UnpicklingError Weights only load failed" in refused
    assert rows == "{(None, False)}"


def test_a_ledger_applies_what_is_needed_once():
    ledger, module, applied = Ledger(), ModuleType("a_module"), []
    wanted = patch(apply=applied.append)
    assert ledger.status(wanted).needed is None
    for _ in range(3):
        ledger.run(wanted, module)
    assert applied == [module]
    row = ledger.status(wanted)
    assert (row.needed, row.applied, row.error) == (True, True, "")
    unwanted = patch(needed=lambda module: False, apply=applied.append, name="another")
    ledger.run(unwanted, module)
    assert len(applied) == 1
    assert (ledger.status(unwanted).needed, ledger.status(unwanted).applied) == (False, False)
    ledger.run(wanted, ModuleType("a_module"))  # the module was imported anew
    assert len(applied) == 2


def test_a_ledger_survives_a_check_that_fails(capsys):
    ledger, module = Ledger(), ModuleType("a_module")
    ledger.run(patch(needed=lambda module: module.absent), module)
    row = ledger.status(patch())
    assert (row.needed, row.applied) == (None, False)
    assert row.error.startswith("AttributeError")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """A module that can be imported, and a list of what happened."""
    (tmp_path / "noted_module.py").write_text("import noted; noted.events.append('runs')\n")
    noted = ModuleType("noted")
    noted.events = []
    monkeypatch.setitem(sys.modules, "noted", noted)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield noted.events
    sys.modules.pop("noted_module", None)


def test_a_finder_calls_around_an_import(importable):
    def before(module):
        importable.append("before")
        return lambda: importable.append("done")

    finder = Finder({"noted_module"}, before, lambda name, module: importable.append(name))
    other = Finder({"noted_module"}, lambda module: lambda: None, lambda *_: importable.append("other"))
    for each in (finder, other, finder):
        each.install()
    import noted_module

    assert importable == ["before", "runs", "done", "noted_module", "other"]
    assert sys.meta_path.count(finder) == 1
    assert type(noted_module.__loader__).__name__ == "SourceFileLoader"


def test_a_finder_cleans_up_after_a_module_that_fails(importable, tmp_path):
    (tmp_path / "noted_module.py").write_text("raise RuntimeError('at import')\n")
    finder = Finder({"noted_module"}, lambda _: lambda: importable.append("done"), lambda *_: None)
    finder.install()
    with pytest.raises(RuntimeError, match="at import"):
        __import__("noted_module")
    assert importable == ["done"]


@contextlib.contextmanager
def no_safe_globals():
    known = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(known)


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.s3prl
def test_checkpoints_of_s3prl_load_and_others_do_not():
    from s3prl import optimizers

    model = torch.nn.Linear(2, 2)
    optimizer = optimizers.get_optimizer([model], 10, {"name": "AdamW_with_schedule", "lr": 1e-3})
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {"Args": argparse.Namespace(upstream="x"), "Optimizer": optimizer.state_dict()}
    with no_safe_globals():
        namespace, schedules, _ = checkpoint_writes.PATCHES
        assert namespace.needed(torch)
        assert schedules.needed(optimizers)
        namespace.apply(torch)
        schedules.apply(optimizers)
        assert not namespace.needed(torch)
        assert not schedules.needed(optimizers)
        loaded = torch.load(saved(content))
        assert loaded["Args"] == content["Args"]
        optimizer.load_state_dict(loaded["Optimizer"])
        with pytest.raises(Exception, match="Weights only load failed"):
            torch.load(saved({"Args": Ledger()}))


@pytest.mark.s3prl
def test_checkpoints_are_replaced_whole(tmp_path):
    from s3prl.downstream import runner

    *_, whole = checkpoint_writes.PATCHES
    assert whole.needed(runner)

    class Runner:
        def train(self):
            runner.torch.save({"Step": 1}, str(tmp_path / "dev-best.ckpt"))
            runner.torch.save({"Step": lambda: None}, str(tmp_path / "dev-best.ckpt"))  # fails half-way

    own = SimpleNamespace(torch=torch, Runner=Runner)
    whole.apply(own)
    save = torch.save
    with pytest.raises(AttributeError, match="pickle"):
        own.Runner().train()
    assert torch.save is save
    assert [path.name for path in tmp_path.iterdir()] == ["dev-best.ckpt"]
    assert torch.load(tmp_path / "dev-best.ckpt") == {"Step": 1}


def test_the_hub_keeps_the_names_that_s3prl_imports(monkeypatch):
    (repair,) = (each for each in huggingface_hub.PATCHES if each.name == "huggingface_hub")
    hub = ModuleType("huggingface_hub")
    assert repair.needed(hub)
    repair.apply(hub)
    assert not repair.needed(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    assert hub.HfFolder.get_token() == "hf_of_the_environment"
    with pytest.raises(RunError, match="hf upload"):
        hub.Repository(local_dir="x", clone_from="y")


def test_a_loader_without_a_batch_is_an_error():
    items = list(range(3))
    loader = torch.utils.data.DataLoader(items, batch_size=4, drop_last=True)
    with pytest.raises(RunError, match=r"train: no batch in 3 items at batch size 4.*smaller batch size"):
        dataloaders.check(loader, "train")
    with pytest.raises(RunError, match="dev: no batch in 0 items"):
        dataloaders.check(torch.utils.data.DataLoader([], batch_size=4), "dev")
    dataloaders.check(torch.utils.data.DataLoader(items, batch_size=4), "train")
    dataloaders.check(iter(items), "train")  # without a length there is nothing to check


class Runner:
    """As far as s3prl's is patched."""

    def train(self):
        while pbar.n < pbar.total:  # noqa: F821, it is only read
            pass

    def _get_downstream(self):
        model = torch.nn.Linear(1, 1)
        model.get_dataloader = lambda split, size: torch.utils.data.DataLoader([1], size, drop_last=True)
        return SimpleNamespace(model=model)


def test_a_runner_checks_every_loader():
    runner = SimpleNamespace(Runner=type("Own", (Runner,), {}))
    (repair,) = (each for each in dataloaders.PATCHES if each.name == "empty loaders")
    assert repair.needed(runner)
    repair.apply(runner)
    entry = runner.Runner()._get_downstream()
    assert len(entry.model.get_dataloader("train", 1)) == 1
    with pytest.raises(RunError, match="train: no batch in 1 items at batch size 2"):
        entry.model.get_dataloader("train", 2)


class Expert:
    """As far as ASV's is patched."""

    def forward(self, mode, features, fails=False):
        mask = torch.ones(1).cuda()
        if fails:
            raise KeyError(mode)
        return mask


def test_a_mask_goes_where_the_features_are():
    expert = SimpleNamespace(DownstreamExpert=type("Own", (Expert,), {}))
    repair, *_ = devices.PATCHES
    cuda = torch.Tensor.cuda
    assert repair.needed(expert)
    repair.apply(expert)
    for device in ("cpu", "meta"):
        features = [torch.ones(1, device=device)]
        assert expert.DownstreamExpert().forward("train", features).device.type == device
        with pytest.raises(KeyError):
            expert.DownstreamExpert().forward("train", features, fails=True)
    assert torch.Tensor.cuda is cuda


def test_shares_of_a_draw_are_parts_of_it():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    drawn, epochs = torch.utils.data.WeightedRandomSampler(weights, 6, replacement=False), []
    for epoch in range(2):
        shares = [DistributedSamplerWrapper(drawn, num_replicas=2, rank=rank) for rank in (0, 1)]
        for share in shares:
            share.set_epoch(epoch)
        torch.manual_seed(epoch)  # of the process; it must make no difference
        parts = [list(share) for share in shares]
        assert [len(share) for share in shares] == [len(part) for part in parts] == [3, 3]
        assert sorted(parts[0] + parts[1]) == list(range(6))
        epochs.append(parts)
    assert epochs[0] != epochs[1]


def test_stand_ins_are_seen_by_one_import_only(monkeypatch):
    (repair,) = (each for each in missing_modules.PATCHES if each.name.startswith("catalyst"))
    monkeypatch.setattr(missing_modules.importlib.util, "find_spec", lambda name: None)
    assert repair.needed(ModuleType("expert"))
    undo = repair.apply(ModuleType("expert"))
    from catalyst.data.sampler import DistributedSamplerWrapper as seen

    assert seen is DistributedSamplerWrapper
    undo()
    assert not [name for name in sys.modules if name.split(".")[0] == "catalyst"]


def test_what_a_stand_in_lacks_is_an_error_when_it_is_called(monkeypatch):
    apply = missing_modules._stand_in("sed_eval", {"sed_eval": dict})
    undo = apply(ModuleType("score"))
    import sed_eval

    undo()
    metric = sed_eval.sound_event.EventBasedMetrics
    with pytest.raises(RunError, match=r"sed_eval.sound_event.EventBasedMetrics .*pip install sed_eval"):
        metric(event_label_list=[])
    assert not hasattr(sed_eval, "__file__")


@pytest.mark.parametrize(("text", "value"), [("True", 1), ("on", 1), ("no", 0), ("0", 0)])
def test_strtobool(text, value):
    assert missing_modules._strtobool(text) == value
    with pytest.raises(ValueError, match="'maybe', allowed"):
        missing_modules._strtobool("maybe")


def test_rows_have_names_of_their_own():
    frame = pandas.DataFrame({"path": ["a.wav", "b.wav"], "label": [1, 2]})
    points = pandas_rows.dataframe_to_datapoints(frame, lambda row: row["path"])
    assert points == {"a.wav": {"path": "a.wav", "label": 1}, "b.wav": {"path": "b.wav", "label": 2}}
    with pytest.raises(DataError, match="2 rows have 1 names"):
        pandas_rows.dataframe_to_datapoints(frame, lambda row: "same")


def test_bars_that_are_turned_off_count_steps():
    class Runner:
        def train(self, first=0, **options):
            pbar = runner.tqdm(total=3, file=io.StringIO(), **options)
            pbar.n, steps = first, 0
            while pbar.n < pbar.total:
                steps += 1
                if steps > 9:
                    raise TimeoutError
                pbar.update(1)
            return steps

    runner = SimpleNamespace(tqdm=tqdm, Runner=Runner)
    with pytest.raises(TimeoutError):
        Runner().train(disable=True)
    for patch in disabled_bars.PATCHES:
        assert patch.needed(runner)
    patch.apply(runner)
    assert [Runner().train(disable=off, first=1) for off in (True, False)] == [2, 2]
    assert not patch.needed(runner)
    assert not patch.needed(SimpleNamespace(tqdm=tqdm))  # another project's


@pytest.mark.s3prl
def test_bars_of_both_scripts_are_repaired(tmp_path):
    code = """
from s3prl_dphubert import compat
from s3prl_dphubert.compat import disabled_bars, s3prl_home
import sys
sys.path.insert(0, str(s3prl_home()))
compat.apply()
import s3prl.downstream.runner, pretrain.runner
names = {patch.name for patch in disabled_bars.PATCHES}
print(sorted((row.name, row.needed, row.applied) for row in compat.report() if row.name in names))
"""
    expected = [("steps of run_downstream", True, True), ("steps of run_pretrain", True, True)]
    assert python("-c", code, cwd=tmp_path).ok().out.splitlines()[-1] == str(expected)


def test_the_switch(monkeypatch):
    module = ModuleType("torchaudio")
    monkeypatch.setenv("S3PRL_DPHUBERT_COMPAT", "0")
    assert not compat.enabled()
    compat.patch_module("torchaudio", module)
    assert not vars(module).keys() & {"load", "info", "sox_effects"}
    monkeypatch.delenv("S3PRL_DPHUBERT_COMPAT")
    assert compat.enabled()


WITHOUT_EDITDISTANCE = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "editdistance":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "editdistance" else find(name, *rest)
from s3prl_dphubert import compat
compat.apply()
from s3prl.downstream.asr import expert
from s3prl.downstream.ctc.metric import cer, per, wer
print(json.dumps([expert.editdistance.eval("kitten", "sitting"), wer(["a b d"], ["a b c d"]),
                  cer(["abd"], ["abcd"]), per(["A B"], ["A C B"]), "editdistance" in sys.modules]))
"""


@pytest.mark.s3prl
def test_error_rates_without_editdistance(tmp_path):
    """It has no wheel for Python 3.13, where a C++ compiler would have to build it."""
    printed = python("-c", WITHOUT_EDITDISTANCE, cwd=tmp_path).ok().out
    assert json.loads(printed.splitlines()[-1]) == [3, 0.25, 0.25, 1 / 3, False]
