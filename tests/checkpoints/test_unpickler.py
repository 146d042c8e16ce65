"""Foreign pickles: tensors and plain values come out, nothing in them runs, damage is an error."""

from __future__ import annotations

import argparse
import builtins
import collections
import functools
import importlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from s3prl_dphubert.checkpoints.unpickler import DTYPES, Stub, plain, read_foreign_pickle
from s3prl_dphubert.errors import CheckpointError

FORMATS = {"zip": True, "old": False}


@pytest.fixture(params=sorted(FORMATS))
def save(request, tmp_path):
    """Save in torch's zip format and in the one before it."""

    def write(content, name="a.pt"):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=FORMATS[request.param])
        return tmp_path / name

    return write


def test_tensors_and_containers(save):
    base = torch.arange(12.0)
    content = {
        "view": base.view(3, 4).t(),
        "part": base[5:8],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": collections.OrderedDict(b=torch.tensor([1, 2]), a=[(torch.tensor(True), "text")]),
        "size": torch.Size([2, 3]),
        "set": {1, 2},
        "plain": [None, True, 2**70, 1.5, b"bytes"[:0], "ü"],
    }
    loaded = read_foreign_pickle(save(content))
    assert list(loaded) == list(content)
    for name in ("view", "part", "scalar", "empty"):
        assert torch.equal(loaded[name], content[name])
    assert torch.equal(loaded["parameter"], torch.ones(2))
    assert type(loaded["ordered"]) is collections.OrderedDict
    assert list(loaded["ordered"]) == ["b", "a"]
    assert loaded["ordered"]["a"][0][0].item() is True
    assert loaded["size"] == (2, 3)
    assert loaded["set"] == {1, 2}
    assert loaded["plain"][:4] == [None, True, 2**70, 1.5]
    loaded["view"][0, 0] = 9.0  # tensors of one storage share it, as torch.load has it
    assert loaded["view"].untyped_storage().data_ptr() == loaded["part"].untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", sorted({*DTYPES.values()}, key=str), ids=str)
def test_every_type_of_number(save, dtype):
    tensor = torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    loaded = read_foreign_pickle(save({"x": tensor}))["x"]
    assert loaded.dtype == dtype
    assert torch.equal(loaded, tensor)


def test_state_dict_of_a_module(save):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    loaded = read_foreign_pickle(save(module.state_dict()))
    assert set(loaded) == set(module.state_dict())
    module.load_state_dict(loaded)  # the keys' metadata is not needed


def test_containers_that_hold_themselves(save):
    content = {"x": torch.ones(1), "list": []}
    content["self"] = content
    content["list"] += [content["list"], content["x"]]
    loaded = read_foreign_pickle(save(content))
    assert loaded["self"] is loaded
    assert loaded["list"][0] is loaded["list"]
    assert loaded["list"][1] is loaded["x"]
    with pytest.raises(CheckpointError, match="contains itself"):
        plain(loaded)


class Kind(Enum):
    DEFAULT = "default"


class Slots:
    __slots__ = ("x",)


def test_objects_become_stubs_and_their_values_plain(save):
    slots = Slots()
    slots.x = 4
    content = {
        "args": argparse.Namespace(arch="hubert", layers=[1, 2], nested=argparse.Namespace(dropout=0.1)),
        "kind": Kind.DEFAULT,
        "slots": slots,
        "class": Kind,
        "default": collections.defaultdict(list, a=1),
        "deque": collections.deque([1, 2]),
        "number": np.float64(2.5),
        "function": os.path.join,
    }
    loaded = read_foreign_pickle(save(content))
    args = loaded["args"]
    assert isinstance(args, Stub)
    assert (args.module, args.name) == ("argparse", "Namespace")
    assert repr(args) == "<argparse.Namespace, not run>"
    assert isinstance(loaded["class"], type)
    values = plain(loaded)
    assert values["args"] == {"arch": "hubert", "layers": [1, 2], "nested": {"dropout": 0.1}}
    assert values["kind"] == "default"
    assert values["slots"] == {"x": 4}
    assert values["class"] == f"{Kind.__module__}.Kind"
    assert values["default"] == {"a": 1}
    assert values["deque"] == [1, 2] or values["deque"] == [[1, 2]]
    assert values["function"] == "posixpath.join"
    assert isinstance(loaded["number"], Stub)  # numpy's makers are functions like any other


def test_omegaconf(save):
    omegaconf = importlib.import_module("omegaconf")
    values = {"model": {"layers": 3, "mode": "default", "rates": [0.1, {"x": None}]}, "task": {"on": True}}
    assert plain(read_foreign_pickle(save(omegaconf.OmegaConf.create(values)))) == values


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(tmp_path, protocol):
    content = {"a": [1, (2, 3)], "args": argparse.Namespace(x=[1])}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    assert plain(read_foreign_pickle(tmp_path / "a.pkl")) == {"a": [1, (2, 3)], "args": {"x": [1]}}


class Reduced:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """Only so that another one may call what this one makes."""


def attacks(flag):
    """name -> object whose pickle would make the file ``flag`` when loaded."""
    code = f"open({str(flag)!r}, 'w').close()"
    inner = io.BytesIO()
    torch.save(Reduced(exec, code), inner)
    importer = Reduced(importlib.import_module, "os")
    return {
        "system": Reduced(os.system, f"touch '{flag}'"),
        "eval": Reduced(eval, f"__import__('os').system(\"touch '{flag}'\")"),
        "exec": Reduced(exec, code),
        "mkdir": Reduced(os.mkdir, str(flag)),
        "open": Reduced(builtins.open, str(flag), "w"),
        "nested": Reduced(Reduced(getattr, importer, "mkdir"), str(flag)),
        "partial": Reduced(Reduced(functools.partial, exec, code)),
        "map": [Reduced(list, Reduced(map, exec, [code]))],
        "bytes": Reduced(torch.storage._load_from_bytes, inner.getvalue()),
        "torch.load": Reduced(torch.load, str(flag.parent / "inner.pt"), state={"weights_only": False}),
        "pickle.loads": Reduced(pickle.loads, pickle.dumps(Reduced(exec, code))),
        "key": {Reduced(os.mkdir, str(flag)): 1},
        "state": Reduced(argparse.Namespace, state={"x": Reduced(os.mkdir, str(flag))}),
        "rebuild": Reduced(torch._utils._rebuild_parameter, Reduced(os.mkdir, str(flag)), False, {}),
        "from_type": Reduced(torch._tensor._rebuild_from_type_v2, os.mkdir, str, (str(flag),), {}),
    }


@pytest.mark.parametrize("name", sorted(attacks(Path("/nowhere/flag"))))
def test_nothing_is_executed(save, tmp_path, name):
    flag = tmp_path / "executed"
    torch.save(Reduced(os.mkdir, str(flag)), tmp_path / "inner.pt")
    attack = attacks(flag)[name]
    assert isinstance(read_foreign_pickle(save({"x": attack, "y": torch.ones(1)}))["y"], torch.Tensor)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(attack))
    plain(read_foreign_pickle(tmp_path / "a.pkl"))
    assert not flag.exists()


def test_the_attacks_are_real(tmp_path):
    """Loaded the ordinary way, the files above do execute."""
    done = []
    for name in ("system", "exec", "mkdir", "nested", "key", "state", "bytes"):
        flag = tmp_path / name
        pickle.loads(pickle.dumps(attacks(flag)[name]))
        done.append(flag.exists())
    assert done == [True] * 7


def op(*parts):
    """A hand-written pickle of protocol 2."""
    return b"\x80\x02" + b"".join(parts) + b"."


def name(module, function):
    return b"c" + module.encode() + b"\n" + function.encode() + b"\n"


TEXT = b"X\x01\x00\x00\x00a"
BUILT = b"\x85R"  # call with one argument
SET_STATE = b"}" + TEXT + b"K\x01sb"  # state {"a": 1}
SET_SLOTS = b"N}" + TEXT + b"K\x01s\x86b"  # state (None, {"a": 1}), which sets attributes


@pytest.mark.parametrize(
    "parts",
    [
        (name("collections", "OrderedDict"), SET_SLOTS),
        (name("builtins", "set"), SET_SLOTS),
        (name("torch", "Size"), SET_STATE),
        (name("os", "system"), SET_STATE),
        (name("os", "system"), b"]b"),
        (name("os", "system"), b"K\x01a"),
        (name("os", "system"), TEXT, b"K\x01s"),
        (name("collections", "OrderedDict"), BUILT[:0], b"K\x07", BUILT),
        (b"K\x01K\x02", b"R"),
        (TEXT, b"Q"),
        (b"\x82\x01",),
        (b"]r\xff\xff\xff\x7f",),
        (b"h\x05",),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",),
        (b"t",),
        (b"",),
    ],
)
def test_crooked_pickles_are_refused(tmp_path, parts):
    (tmp_path / "a.pkl").write_bytes(op(*parts))
    with pytest.raises(CheckpointError, match=r"a\.pkl"):
        read_foreign_pickle(tmp_path / "a.pkl")
    assert not hasattr(collections.OrderedDict, "a")
    assert not hasattr(Stub, "a")


def test_state_put_into_what_the_reader_offers_stays_in_the_file(tmp_path):
    maker = name("torch._utils", "_rebuild_tensor_v2")
    (tmp_path / "a.pkl").write_bytes(op(maker, SET_SLOTS))
    read_foreign_pickle(tmp_path / "a.pkl")
    assert not hasattr(torch._utils._rebuild_tensor_v2, "a")
    torch.save(torch.ones(2), tmp_path / "b.pt")
    assert torch.equal(read_foreign_pickle(tmp_path / "b.pt"), torch.ones(2))


def test_deep_and_wide_pickles_end(tmp_path):
    (tmp_path / "deep.pkl").write_bytes(op(b"]" * 100_000, b"a" * 99_999))
    with pytest.raises(CheckpointError, match=r"deep\.pkl: damaged"):
        read_foreign_pickle(tmp_path / "deep.pkl")
    laughs = ("a",)
    for _ in range(60):
        laughs = (laughs, laughs)
    stub = argparse.Namespace(x=laughs)
    (tmp_path / "wide.pkl").write_bytes(pickle.dumps(stub))
    pair = plain(read_foreign_pickle(tmp_path / "wide.pkl"))["x"]
    assert pair[0] is pair[1]


def edited(path, change):
    """The zip ``path`` with each member's bytes passed through ``change(name, data)``."""
    members = {info.filename: None for info in zipfile.ZipFile(path).infolist()}
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in members}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            data = change(member, data)
            if data is not None:
                archive.writestr(member, data)
    return path


def last(part):
    return lambda name, data: None if name.endswith(part) else data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (last("data/0"), "data/0"),
        (last("data.pkl"), "0 data.pkl"),
        (lambda name, data: data[:-4] if name.endswith("data/0") else data, "has 8 bytes"),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, "byte order"),
        (
            lambda name, data: data.replace(b"FloatStorage", b"ClownStorage"),
            "unknown storage type ClownStorage",
        ),
        (lambda name, data: data.replace(b"K\x03", b"K\x09", 1), "9"),
    ],
)
def test_faults_in_a_zip_are_named(tmp_path, change, message):
    torch.save({"x": torch.ones(3)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        read_foreign_pickle(edited(tmp_path / "a.pt", change))


def test_kinds_that_are_not_read(tmp_path):
    scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    scripted.save(tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_foreign_pickle(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "old.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(CheckpointError, match="tar files"):
        read_foreign_pickle(tmp_path / "old.tar")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps([0] * 10**6))
    with pytest.raises(CheckpointError, match="compressed"):
        read_foreign_pickle(tmp_path / "packed.pt")
    for missing in ("nothing.pt", "."):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_foreign_pickle(tmp_path / missing)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((5,), (1,), 0), ((2, 2), (2, 2), 0), ((1,), (1,), 4), ((4,), (-1,), 3), ((2**40,), (2**40,), 0)],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, size, stride, offset):
    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, {})

    storage = torch.ones(4).storage()
    torch.save({"x": Tensor()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="tensor"):
        read_foreign_pickle(tmp_path / "a.pt")


def test_truncated_files(save):
    path = save({"x": torch.ones(100), "args": argparse.Namespace(x=1)})
    data = path.read_bytes()
    for size in (0, 1, 4, 20, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"a\.pt"):
            read_foreign_pickle(path)


def test_flipped_weights_in_a_zip_are_noticed(tmp_path):
    torch.save({"x": torch.ones(100)}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    place = data.index(struct.pack("<f", 1.0) * 100)
    data[place + 40] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="CRC"):
        read_foreign_pickle(tmp_path / "a.pt")
