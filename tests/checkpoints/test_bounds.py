"""Small inputs that ask for much are refused before they get it.

Each is read in a process of its own, with 2 GB of memory beyond what the imports take, and within 20 s.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.unpickler import read_foreign_pickle
from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.model.state_dict import load_weights_only
from s3prl_dphubert.utils import pickle_bounds
from tests.helpers import foreign_checkpoints
from tests.helpers.golden import GOLDEN, ROOT
from tests.helpers.models import tiny

MEMORY, SECONDS = 2 << 30, 20
READ = """
import json, os, resource, sys
from pathlib import Path
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import DPHubertError
from s3prl_dphubert.model.state_dict import load_weights_only
from s3prl_dphubert.utils.config_io import read_yaml
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for name, source in json.loads(sys.argv[1]).items():
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        print(json.dumps(["end", name, status]), flush=True)
        continue
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]),) * 2)
    answer = "accepted"
    try:
        if source == "itself":
            bytearray(2 * int(sys.argv[2]))
        readers = {".yaml": read_yaml, ".pth": load_model, ".pt": load_weights_only}
        readers[Path(source).suffix](Path(source))
    except DPHubertError as error:
        answer = f"refused {error}"
    except MemoryError:
        answer = "MemoryError"
    print(json.dumps(["answer", name, answer]), flush=True)
    os._exit(0)
"""
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)


def laughs():
    """A value of a few hundred bytes that is huge when it is written out."""
    value = ["x"]
    for _ in range(40):
        value = [value, value]
    return value


def released(**config):
    content = torch.load(GOLDEN / "hubert_post_norm_pruned.pth", weights_only=True)
    return {**content, "config": {**content["config"], **config}}


def heads(folder):
    torch.save(released(encoder_num_heads=[300_000_000, 2]), folder / "a.pth")


def shared_rows(folder):
    torch.save(released(encoder_remaining_heads=[list(range(100_000))] * 200_000), folder / "a.pth")


def huge_field(folder):
    torch.save(released(extractor_mode=laughs()), folder / "a.pth")


def deflated(part):
    def write(folder):
        file = io.BytesIO()
        torch.save({"x": torch.zeros(4)}, file)
        with (
            zipfile.ZipFile(file) as archive,
            zipfile.ZipFile(folder / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in archive.namelist():
                if not name.endswith(part):
                    packed.writestr(name, archive.read(name))
                    continue
                with packed.open(name, "w") as member:
                    for _ in range(200):
                        member.write(bytes(10_000_000))

    return write


def overlapping(folder):
    """Two thousand storages that are the same bytes of the archive."""
    torch.save({str(i): torch.zeros(1) for i in range(2000)}, folder / "a.pth")
    data = (folder / "a.pth").read_bytes()
    with zipfile.ZipFile(folder / "b.pth", "w") as archive, zipfile.ZipFile(io.BytesIO(data)) as source:
        for name in source.namelist():
            content = bytes(4_000_000) if name.endswith("data/0") else source.read(name)
            archive.writestr(name, content)
        big = archive.getinfo(next(name for name in archive.namelist() if name.endswith("data/0")))
        for info in archive.filelist:
            if "/data/" in info.filename:
                info.header_offset, info.file_size = big.header_offset, big.file_size
                info.compress_size, info.CRC = big.compress_size, big.CRC
        archive._didModify = True
    (folder / "b.pth").rename(folder / "a.pth")


def expanded(content, path):
    """Tensors of one number, with strides of 0 in the right shapes."""
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in content.items()}, path)


def expanded_teacher(shape):
    def write(folder):
        settings, state = foreign_checkpoints.fairseq()
        state = {**state, "encoder.layers.0.fc1.weight": torch.zeros(()).expand(shape)}
        torch.save({"args": settings, "model": state}, folder / "a.pth")

    return write


def expanded_model(folder):
    content = released(encoder_embed_dim=2**16)
    state = {name: torch.zeros(()).expand(2**14, 2**16) for name in content["state_dict"]}
    torch.save({**content, "state_dict": state}, folder / "a.pth")


def many_views(folder):
    settings, state = foreign_checkpoints.fairseq()
    memory = torch.zeros(1000, 2500)
    views = {f"encoder.layers.{i}.fc1.weight": memory.t() for i in range(2000)}
    torch.save({"args": settings, "model": {**state, **views}}, folder / "a.pth")


def layers(**fields):
    def write(folder):
        save_model(tiny("hubert"), folder / "a.pth")
        path = folder / "a.pth" / "config.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, **{k: values[k][:1] * n for k, n in fields.items()}}, indent=0))

    return write


def transformers(**fields):
    def write(folder):
        values, state = foreign_checkpoints.transformers()
        (folder / "a.pth").mkdir()
        (folder / "a.pth" / "config.json").write_text(json.dumps(values | fields))
        save_file(state, folder / "a.pth" / "model.safetensors")

    return write


def pickled(*parts):
    def write(folder):
        (folder / "a.pth").write_bytes(b"\x80\x02" + b"".join(parts) + b".")

    return write


def yaml(text):
    def write(folder):
        (folder / "a.yaml").write_text(text)

    return write


def convolutions(text):
    def write(folder):
        settings, state = foreign_checkpoints.fairseq()
        torch.save({"args": settings | {"conv_feature_layers": text}, "model": state}, folder / "a.pth")

    return write


def own(write):
    """A file that only :func:`load_weights_only` reads, as in the folders of export-hub."""

    def write_own(folder):
        write(folder)
        (folder / "a.pth").rename(folder / "own.pt")

    return write_own


def key_in_a_zip(folder):
    torch.save({"x": 1}, folder / "b.pth")
    with zipfile.ZipFile(folder / "b.pth") as archive, zipfile.ZipFile(folder / "a.pth", "w") as changed:
        for name in archive.namelist():
            deep = b"\x80\x02}N" + b"\x85" * 2_000_000 + b"Ns."
            changed.writestr(name, deep if name.endswith("data.pkl") else archive.read(name))


BOMBS = {
    "heads": heads,
    "rows of heads that are one": shared_rows,
    "a field that is huge when printed": huge_field,
    "a deflated storage": deflated("data/0"),
    "a deflated pickle": deflated("data.pkl"),
    "parts of a zip that overlap": overlapping,
    "expanded tensors": expanded_model,
    "an expanded tensor of a teacher": expanded_teacher((2**16, 2**15)),
    "a tensor of 2^50 numbers": expanded_teacher((2**25, 2**25)),
    "two thousand views of one storage": many_views,
    "layers": layers(heads=200_000, ffn=200_000),
    "convolutions": layers(conv_channels=100_000, conv_kernels=100_000, conv_strides=100_000),
    "layers of transformers": transformers(num_hidden_layers=10**9, num_attention_heads=10**9),
    "convolutions of transformers": transformers(
        conv_dim=[8] * 100_000, conv_kernel=[2] * 100_000, conv_stride=[1] * 100_000
    ),
    "convolutions of fairseq": convolutions("[(8, 2, 1)]" + " * 99" * 8),
    "a long text of fairseq": convolutions("[" + "(8, 2, 1)," * 500_000 + "]"),
    "a deep tuple as a key": pickled(b"}N", b"\x85" * 2_000_000, b"Ns"),
    "a key that holds itself often": pickled(b"}Nq\x00", b"h\x00h\x00\x86q\x00" * 60, b"Ns"),
    "a deep tuple made by lists": pickled(
        b"}Nq\x00ctorch\nSize\nq\x01", b"h\x01]h\x00a\x85Rq\x00" * 300_000, b"Ns"
    ),
    "ten million lists": pickled(b"(", b"]" * 10_000_000, b"l"),
    "classes": pickled(b"(", b"".join(b"ca\n%d\n" % i for i in range(400_000)), b"l"),
    "keys of one hash": pickled(
        b"}(",
        b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N" for i in range(200_000)),
        b"u",
    ),
    "a deep tuple in a zip": key_in_a_zip,
    "a deep tuple in a file of ours": own(key_in_a_zip),
    "a deflated file of ours": own(deflated("data/0")),
    "aliases": yaml(LAUGHS),
    "merged aliases": yaml(
        "a: &a {x: 1}\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join([f'*{chr(97 + i)}'] * 9)}]}}\n"
            for i in range(12)
        )
    ),
    "a value that holds itself": yaml("a: &a [*a]"),
    "a long YAML": yaml("[" + "1, " * 3_000_000 + "]"),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Name of a bomb -> status of the process that read it, and its answer."""
    sources = {"the limit": "itself"}
    for name, write in BOMBS.items():
        folder = tmp_path_factory.mktemp("bomb")
        write(folder)
        source = next(path for path in map(folder.joinpath, ("a.yaml", "own.pt", "a.pth")) if path.exists())
        assert sum(path.stat().st_size for path in (source, *source.glob("*"))) < 11_000_000
        sources[name] = str(source)
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(sources), str(MEMORY), str(SECONDS)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {kind: {name: value for k, name, value in rows if k == kind} for kind in ("end", "answer")}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_small_inputs_that_ask_for_much_are_refused(name, ends):
    assert ends["end"][name] == 0  # neither a crash nor out of time
    assert ends["answer"][name].startswith("refused ")
    assert not {"MemoryError", "allocate"} & set(re.findall(r"\w+", ends["answer"][name]))  # by a bound
    assert len(ends["answer"][name]) < 1500


@pytest.mark.slow
def test_the_limit_is_real(ends):
    assert ends["answer"]["the limit"] == "MemoryError"


def test_plain_pickles_within_the_bounds_are_read(tmp_path):
    """The bounds leave what checkpoints hold: optimizers, vocabularies, configurations in configurations."""
    value = {"words": {str(i): i for i in range(20_000)}, "state": {i: {"step": i} for i in range(3000)}}
    for _ in range(40):
        value = {"inner": value, "list": [1, (2, 3)]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol=2))
    assert read_foreign_pickle(tmp_path / "a.pkl") == value


def test_a_changed_number_is_found_by_its_checksum(tmp_path):
    """torch reads storages without looking at it, so that a run would go on with other weights."""
    path = tmp_path / "state.pt"
    torch.save({"module": {"weight": torch.arange(1000.0)}}, path)
    assert load_weights_only(path)["module"]["weight"][7] == 7
    data = bytearray(path.read_bytes())
    data[data.index(torch.tensor(7.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["module"]["weight"].isfinite().all()
    with pytest.raises(CheckpointError, match=r"state\.pt: damaged: 'state/data/0' has another checksum"):
        load_weights_only(path)


def test_a_pickle_that_claims_a_long_text_is_read_no_further_than_it_is_long():
    file = io.BytesIO(b"\x80\x02X" + (2**31 - 1).to_bytes(4, "little") + b"x" * 100)
    tracemalloc.start()
    with pytest.raises(ValueError, match="but only 100 remain"):
        pickle_bounds.check(file)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    pickle_bounds.check(io.BytesIO(pickle.dumps({"a": "x" * 100})))
