"""torch.hub loads upstreams from a checkout, without s3prl and without this package installed."""

from __future__ import annotations

import shutil

import pytest

from s3prl_dphubert.checkpoints.directory import save_model
from tests.helpers.golden import ROOT
from tests.helpers.models import tiny
from tests.helpers.virtual_environments import fresh

pytestmark = pytest.mark.slow

NAMES = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]
LOAD = """
import json, sys, types
import torch

absent = ("s3prl", "transformers", "torchaudio", "soundfile", "soxr", "tensorboard", "matplotlib")
sys.modules.update(dict.fromkeys(absent))  # importing any of these fails
for name in ("utils", "model", "hub", "upstream", "options"):  # modules of some other repository
    sys.modules[name] = types.ModuleType(name)
before = set(sys.modules)
torch.hub.set_dir({home!r})
found = {{"listed": torch.hub.list("owner/s3prl-dphubert:main", skip_validation=True)}}
upstream = torch.hub.load({where}, "dphubert_local", ckpt={checkpoint!r}, precision="bf16")
hidden = upstream.eval()([torch.randn(16000), torch.randn(500)])["hidden_states"]
found["shapes"] = [tuple(state.shape) for state in hidden]
found["new"] = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
from s3prl_dphubert.pruning.structured import prune  # long after the call

import s3prl_dphubert
found["home"] = s3prl_dphubert.__file__
print(json.dumps(found))
"""
WANTED = """
import ast, json, pathlib, sys
import torch

torch.hub.load({checkout!r}, "dphubert_local", ckpt={checkpoint!r}, source="local")
import s3prl_dphubert.checkpoints.hub, s3prl_dphubert.checkpoints.load, s3prl_dphubert.upstream.options
import hubconf

ours = [module for name, module in sys.modules.items() if name.startswith("s3prl_dphubert")]
wanted = set()
for module in ours:
    for node in ast.walk(ast.parse(pathlib.Path(module.__file__).read_text())):
        if isinstance(node, ast.Import):
            wanted |= {{alias.name.partition(".")[0] for alias in node.names}}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            wanted.add(node.module.partition(".")[0])
print(json.dumps([len(ours), sorted(wanted - set(sys.stdlib_module_names)), sorted(hubconf.dependencies)]))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone of the repository, where torch.hub puts it."""
    folder = tmp_path_factory.mktemp("hub") / "owner_s3prl-dphubert_main"
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(ROOT / "s3prl_dphubert", folder / "s3prl_dphubert", ignore=ignored)
    shutil.copy(ROOT / "hubconf.py", folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    save_model(tiny("hubert"), path)
    return str(path)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    made = fresh(tmp_path_factory.mktemp("environment"))
    made.link()
    return made


@pytest.mark.parametrize("source", ["local", "github"])
def test_loads_from_a_checkout(environment, checkout, checkpoint, source):
    where = f'{str(checkout)!r}, source="local"'
    if source == "github":  # cloned before, so that nothing is downloaded
        where = '"owner/s3prl-dphubert:main", skip_validation=True'
    where, _, options = where.partition(", ")
    script = LOAD.format(home=str(checkout.parent), where=where, checkpoint=checkpoint)
    answer = environment.answer(script.replace('precision="bf16"', f'precision="bf16", {options}'))
    assert [name for name in answer["listed"] if name.startswith("dp")] == NAMES
    assert answer["shapes"] == [[2, 49, 32]] * 4
    assert "s3prl_dphubert" in answer["new"]
    assert not {"hubconf", "cli", "setup", "errors"} & set(answer["new"])
    assert answer["home"] == str(checkout / "s3prl_dphubert" / "__init__.py")


def test_dependencies_are_what_is_imported(environment, checkout, checkpoint):
    """Of torchaudio only the names of its bundles are of use, and no upstream is one."""
    script = WANTED.format(checkout=str(checkout), checkpoint=checkpoint)
    modules, wanted, listed = environment.answer(script, PYTHONPATH=str(checkout))
    assert modules > 15
    assert set(wanted) - {"torchaudio"} == set(listed)
