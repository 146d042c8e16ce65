"""The upstreams in s3prl itself: registered, used, removed, in workers, from a checkout, by hand, off.

Each start of s3prl takes 7 to 11 s, so one process answers many questions.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.utils.environment import s3prl_version
from tests.helpers.models import tiny
from tests.helpers.s3prl_runs import Experiment, python

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]

NAMES = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]
PLUGIN_OFF = {"S3PRL_DPHUBERT_PLUGIN": "0"}
SCRIPT = """
import json, multiprocessing, sys

OWN = ("s3prl_dphubert", "s3prl", "torch", "numpy")
early = sorted(name for name in sys.modules if name.partition(".")[0] in OWN)


def names(_=None):
    from s3prl import hub

    return sorted(name for name in hub.options() if name.startswith("dp"))


def unregistered():
    from s3prl_dphubert import compat

    compat.apply()  # without its repairs, s3prl could not be imported at all
    return names()


def workers(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.map(names, [0])[0]


def new_interface(checkpoint):
    import torch
    from s3prl.nn import Featurizer, S3PRLUpstream

    answers = {"names": sorted(n for n in S3PRLUpstream.available_names() if n.startswith("dp"))}
    answers["ready"] = sorted(n for n in S3PRLUpstream.available_names(True) if n.startswith("dp"))
    exact = S3PRLUpstream("dphubert_local", checkpoint, extra_conf={"padding": "exact"}).eval()
    answers["train"] = S3PRLUpstream("dphubert_local", checkpoint).training
    lengths = torch.tensor([16000, 900, 9000, 800])
    wavs = torch.randn(4, 16000) * (torch.arange(16000) < lengths[:, None])
    states, frames = exact(wavs, lengths)
    answers["states"], answers["frames"] = len(states), [f.tolist() for f in frames]
    alone = []
    for row, length in enumerate(lengths.tolist()):
        own, count = exact(wavs[row : row + 1, :length], lengths[row : row + 1])
        alone += [(a[0, :n] - b[row, :n]).abs().max().item() for a, b, n in zip(own, states, count)]
    answers["apart"] = max(alone)
    short, count = exact(torch.randn(1, 100), torch.tensor([100]))
    answers["short"] = [tuple(short[-1].shape), count[-1].tolist()]
    reduced, _ = Featurizer(exact)(states, frames)
    answers["reduced"] = tuple(reduced.shape)
    return answers


def classic_interface(checkpoint):
    import torch
    from s3prl import hub
    from s3prl.upstream.interfaces import Featurizer

    answers = {}
    wavs = [torch.randn(n) for n in (16000, 500, 8000)]
    upstream = hub.dphubert_local(ckpt=checkpoint, model_config=None, refresh=False)
    for name, options in {
        "weighted": {},
        "last": {"feature_selection": "last_hidden_state"},
        "second": {"layer_selection": 1},
        "one": {"feature_selection": "hidden_state_1"},
    }.items():
        featurizer = Featurizer(upstream, upstream_device="cpu", **options)
        found = featurizer(wavs, upstream(wavs))
        answers[name] = [featurizer.downsample_rate, [tuple(f.shape) for f in found]]
    result = upstream(wavs)
    answers["selected"] = torch.equal(featurizer._select_feature(result), result["hidden_states"][1])
    featurizer, _ = Featurizer(upstream, upstream_device="cpu"), upstream.train()
    torch.cat(featurizer(wavs, upstream(wavs))).square().mean().backward()
    learn = [p for p in upstream.parameters() if p.requires_grad]
    answers["fine-tuned"] = [len(learn), sum(p.grad is not None for p in learn)]
    answers["weights"] = featurizer.weights.grad.abs().sum().item() > 0
    return answers


def by_default(checkpoint):
    import os

    import torch
    from s3prl.nn import S3PRLUpstream

    def states(**options):
        upstream = S3PRLUpstream("dphubert_local", checkpoint, extra_conf=options or None).eval()
        with torch.no_grad():
            return upstream.upstream, upstream(wavs, lengths)[0]

    os.environ.pop("S3PRL_DPHUBERT_PRECISION", None)
    wavs, lengths = torch.randn(1, 9000), torch.tensor([9000])
    upstream, found = states()
    with torch.no_grad():
        chosen = upstream.chosen_precision(torch.device("cpu"))
    _, same = states(precision=chosen)
    answers = {"asked": upstream.options.precision, "chosen": chosen}
    answers["equal"] = all(torch.equal(a, b) for a, b in zip(found, same))
    return answers


def registration():
    import inspect

    import s3prl_dphubert
    from s3prl import hub

    steps = {"source": inspect.getsource(hub) == open(hub.__file__).read()}
    everything = set(vars(hub))
    s3prl_dphubert.unregister()
    steps["removed"] = sorted(everything - set(vars(hub)))
    s3prl_dphubert.unregister()
    steps["gone"] = names()
    hub.dpwavlm = own = lambda: None
    s3prl_dphubert.register()
    s3prl_dphubert.register()
    steps["back"] = names()
    s3prl_dphubert.unregister()
    steps["left"] = [names(), hub.dpwavlm is own]
    return steps


def user_names(checkpoint):
    import torch
    import s3prl_dphubert
    from s3prl import hub
    from s3prl.nn import S3PRLUpstream
    from s3prl_dphubert.errors import ConfigError

    def said(function, *arguments, **options):
        try:
            function(*arguments, **options)
        except ConfigError as error:
            return str(error)
        return "nothing"

    wavs, lengths = torch.randn(1, 9000), torch.tensor([9000])
    direct = S3PRLUpstream("dphubert_local", checkpoint).eval()(wavs, lengths)[0]
    ready = S3PRLUpstream.available_names(only_registered_ckpt=True)
    answers = {"ready": sorted(name for name in ready if name.startswith("my_"))}
    by_name = S3PRLUpstream("my_model").eval()(wavs, lengths)[0]
    answers["equal"] = all(torch.equal(a, b) for a, b in zip(direct, by_name))
    # lhotse calls without arguments
    answers["padding"] = [getattr(hub, "my_exact")().options.padding, hub.my_model().options.padding]
    overridden = hub.my_exact(padding="batch")
    answers["overridden"] = overridden.options.padding
    s3prl_dphubert.register("my_second", checkpoint, precision="bf16")
    s3prl_dphubert.register("my_second", checkpoint, precision="bf16")
    answers["second"] = hub.my_second().options.precision
    answers["refused"] = [
        said(hub.my_model, ckpt=checkpoint),
        said(s3prl_dphubert.register, "hubert", checkpoint),
        said(s3prl_dphubert.register, "dphubert", checkpoint),
        said(s3prl_dphubert.register, "my_second", "hubert_mini"),
        said(s3prl_dphubert.register, "my_third", "nosuch"),
        said(s3prl_dphubert.register, "my_third"),
        said(s3prl_dphubert.register, padding="exact"),
        said(s3prl_dphubert.register, "my_third", checkpoint, precison="bf16"),
        said(s3prl_dphubert.unregister, "my_third"),
    ]
    s3prl_dphubert.unregister("my_second")
    answers["left"] = sorted(name for name in hub.options() if name.startswith("my_"))
    s3prl_dphubert.unregister()
    answers["none"] = [name for name in hub.options() if name.startswith("my_")]
    return answers


if __name__ == "__main__":
    checkpoint, parts = sys.argv[1], sys.argv[2].split(",")
    answers = {"early": early}
    for part in parts:
        if part in ("fork", "spawn", "forkserver"):
            answers[part] = workers(part)
        elif part in ("unregistered", "registration"):
            answers[part] = globals()[part]()
        else:
            answers[part] = globals()[part](checkpoint)
    print("ANSWERS " + json.dumps(answers))
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    save_model(tiny("hubert"), path)
    return str(path)


@pytest.fixture(scope="module")
def ask(tmp_path_factory, checkpoint):
    """Function that runs parts of the script in a process; returns their answers and its stderr."""

    def run(*parts, **environment):
        folder = tmp_path_factory.mktemp("process")
        (folder / "script.py").write_text(SCRIPT)
        done = python("script.py", checkpoint, ",".join(parts), cwd=folder, **environment).ok()
        return json.loads(done.out.split("ANSWERS ")[1]), done.err

    return run


@pytest.fixture(scope="module")
def answers(ask):
    return ask("fork", "new_interface", "classic_interface", "by_default", "registration")


def test_nothing_is_imported_before_s3prl_is(answers):
    assert answers[0]["early"] == ["s3prl_dphubert", "s3prl_dphubert.autoload"]


def test_the_newer_interface(answers):
    answer = answers[0]["new_interface"]
    assert answer["names"] == NAMES
    # s3prl knows those that need a checkpoint by their endings, of which _hub is none.
    assert answer["ready"] == ["dphubert", "dphubert_hub", "dpwavlm"]
    assert answer["train"] is True
    assert answer["states"] == 4
    assert answer["frames"] == [[50, 3, 29, 3]] * 4
    assert answer["apart"] < 1e-5
    assert answer["short"] == [[1, 1, 32], [1]]
    assert answer["reduced"] == [4, 50, 32]


def test_the_classic_interface(answers):
    answer = answers[0]["classic_interface"]
    for name in ("weighted", "last", "second", "one"):
        assert answer[name] == [320, [[49, 32], [2, 32], [25, 32]]]
    assert answer["selected"] is True
    learned, reached = answer["fine-tuned"]
    assert learned == reached > 40
    assert answer["weights"] is True


def test_a_frozen_upstream_takes_the_faster_precision_and_says_so(answers):
    answer, said = answers
    assert answer["by_default"]["asked"] == "auto"
    assert answer["by_default"]["chosen"] in ("fp32", "bf16")
    assert answer["by_default"]["equal"] is True
    assert said.count(f"precision auto: {answer['by_default']['chosen']}, since bf16 takes") == 1


def test_registering_and_removing(answers):
    answer, said = answers
    answer = answer["registration"]
    assert answer["source"] is True  # the module is s3prl's own
    assert answer["removed"] == NAMES
    assert answer["gone"] == []
    assert answer["back"] == NAMES
    assert answer["left"] == [["dpwavlm"], True]
    assert said.count("s3prl has an upstream dpwavlm of its own, which stays") == 2


@pytest.fixture(scope="module")
def listed(tmp_path_factory, checkpoint):
    """File with two good names, one of s3prl's and one that cannot be one."""
    path = tmp_path_factory.mktemp("names") / "upstreams.yaml"
    lines = ("my_model: {0}", "my_exact: {{ckpt: {0}, padding: exact}}", "hubert: {0}", "my-name: {0}")
    path.write_text("\n".join(lines).format(checkpoint) + "\n")
    return {"S3PRL_DPHUBERT_UPSTREAMS": str(path)}


def test_names_of_the_user(ask, listed, checkpoint):
    answer, said = ask("user_names", **listed)
    answer = answer["user_names"]
    assert answer["ready"] == ["my_exact", "my_model"]
    assert answer["equal"] is True
    assert answer["padding"] == ["exact", "batch"] and answer["overridden"] == "batch"
    assert answer["second"] == "bf16"
    expected = (
        f"ckpt (-k) is '{checkpoint}', allowed: none, as it stands for {checkpoint}",
        "name is 'hubert', allowed: any but s3prl's own names",
        "name is 'dphubert', allowed: any but this package's own names",
        f"stands for {checkpoint} already; unregister('my_second') frees it",
        "ckpt is 'nosuch', expected a path, a Hub id",
        "ckpt is '', expected a path",
        "name is None, allowed: letters, digits and _",
        "precison: unknown field; available: precision, padding, features",
        "name is 'my_third', allowed: dphubert, ",
    )
    assert len(answer["refused"]) == len(expected)
    for message, part in zip(answer["refused"], expected, strict=True):
        assert part in message and "\n" not in message
    assert answer["left"] == ["my_exact", "my_model"]
    assert answer["none"] == []
    complaints = [line for line in said.splitlines() if line.startswith("s3prl-dphubert: left out, ")]
    assert len(complaints) == 2 and "my-name" in complaints[0] and "'hubert'" in complaints[1]


def test_a_name_of_the_user_trains_and_evaluates_in_s3prl(tmp_path, listed, checkpoint, monkeypatch):
    experiment = Experiment("sid", tmp_path, ["-u", "my_model", "-f"])
    experiment.one(experiment.train, **listed).ok()
    done = experiment.one(experiment.evaluate, **listed).ok()
    assert len(experiment.scores(done.out)) == 1
    monkeypatch.setenv("S3PRL_DPHUBERT_UPSTREAMS", listed["S3PRL_DPHUBERT_UPSTREAMS"])
    tuned, before = load_model(experiment.folder / "states-2.ckpt"), load_model(checkpoint)
    assert tuned.config == before.config
    pairs = zip(tuned.parameters(), before.parameters(), strict=True)
    assert sum(not torch.equal(a, b) for a, b in pairs) > 40


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers(answers, ask, method):
    answer = answers[0] if method == "fork" else ask(method)[0]
    assert answer[method] == NAMES


def test_switched_off(ask):
    answer, said = ask("unregistered", **PLUGIN_OFF)
    assert answer == {"early": [], "unregistered": []}
    assert "s3prl-dphubert" not in said


def test_a_script_in_a_checkout(tmp_path, checkpoint):
    package = Path(find_spec("s3prl").origin).parent
    ignored = shutil.ignore_patterns("__pycache__", ".cache")
    checkout = shutil.copytree(package, tmp_path / "checkout" / "s3prl", ignore=ignored)
    (checkout / "version.txt").write_text("0.4.18+checkout\n")
    script = checkout / "run_downstream.py"
    script.write_text(script.read_text() + "\nimport s3prl; print('RAN', s3prl.__version__)\n")
    options = tmp_path / "options.yaml"
    options.write_text("precision: bf16\npadding: exact\n")
    experiment = Experiment("ks", tmp_path, ["-u", "dphubert_local", "-k", checkpoint, "-g", str(options)])
    path = str(checkout.parent)
    done = python(str(script), *experiment.train, cwd=checkout, PYTHONPATH=path).ok()
    assert "RAN 0.4.18+checkout" in done.out
    assert experiment.checkpoint(2)["Featurizer"]["weights"].shape == (4,)
    assert [file.read_text() for file in experiment.folder.glob("options_*.yaml")] == [options.read_text()]
    assert "s3prl-dphubert" not in done.err


def test_fine_tuning_by_hand(tmp_path, checkpoint):
    """Where no .pth file is read: our command registers and leaves everything else to s3prl's."""
    upstream = ["-u", "dphubert_local", "-k", checkpoint, "-f", "-s", "last_hidden_state"]
    experiment = Experiment("sid", tmp_path, upstream)
    command = ["-m", "s3prl_dphubert.cli", "run_downstream"]
    python(*command, *experiment.train, cwd=tmp_path, **PLUGIN_OFF).ok()
    tuned, model = experiment.checkpoint(2)["Upstream"], load_model(checkpoint)
    before = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    assert tuned.keys() == before.keys()
    trained = {f"model.{name}" for name, parameter in model.named_parameters() if parameter.requires_grad}
    changed = {name for name in before if not torch.equal(before[name], tuned[name])}
    # A bias of keys moves all scores of a query alike, which changes nothing.
    assert {name for name in trained - changed if not name.endswith("k_proj.bias")} == set()
    assert changed <= trained
    wrong = python(*command, "-m", "nothing", cwd=tmp_path, **PLUGIN_OFF)
    assert wrong.code == 2
    assert "usage: run_downstream.py" in wrong.err and "invalid choice: 'nothing'" in wrong.err


def test_doctor(tmp_path, listed, checkpoint):
    done = python("-m", "s3prl_dphubert.cli", "doctor", cwd=tmp_path, **listed).ok()
    lines = done.out.splitlines()
    assert (len(lines) <= 40 and max(map(len, lines)) <= 110) or "site-packages" in done.out
    rows = {line.split()[0]: line for line in lines if not line.startswith(" ")}
    assert f"s3prl {s3prl_version()}" in " ".join(done.out.split()) and "on, by" in rows["plugin"]
    said = " ".join(done.out.split())
    assert f"upstreams {', '.join(sorted([*NAMES, 'my_exact', 'my_model']))} your names" in said
    assert f"my_exact is {checkpoint}; my_model is {checkpoint}; left out, " in said
    assert all(
        rows[task].endswith("ready")
        for task in ["PR", "ASR", "KS", "QbE", "SID", "ASV", "SD", "ER", "IC", "SF"]
    )
    assert lines[-1].split() == ["verdict", "usable"]
    assert {"GPU", "exports", "cache", "Hub"} <= rows.keys()
    assert done.err == ""
