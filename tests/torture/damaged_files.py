"""Damaged and hostile files of every kind that the package reads."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.compression.pipeline import compress
from s3prl_dphubert.data.audio import read
from s3prl_dphubert.data.feature_store import Block, FeatureStore
from s3prl_dphubert.data.manifest import Manifest, scan
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.free_superb.clips import Clip
from s3prl_dphubert.free_superb.utterance import load
from s3prl_dphubert.model.cost import parameters
from s3prl_dphubert.pretrain.pretrain_config import PretrainRecipe
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.superb.submission.archive import check
from s3prl_dphubert.upstream.options import Options
from s3prl_dphubert.utils.config_io import from_dict, read_yaml
from tests.helpers import compression_runs, damage, full_submission, superb_runs
from tests.helpers.models import gated, tiny
from tests.helpers.speech import chirp, pack
from tests.torture.sandbox import command, fork

Use = Callable[[], Any]
Random = np.random.Generator


class UnsoundError(Exception):
    """A damaged file was accepted with a result that cannot be right."""


def sound(value: bool, what: str) -> None:
    """Refuse a result."""
    if not value:
        raise UnsoundError(what)


def changed_bytes(path: Path, random: Random) -> None:
    """Damage a file in place."""
    path.write_bytes(damage.damaged(path.read_bytes(), random))


BOMBS: tuple[bytes, ...] = (
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b"a: &a [x, x]\nb: &b [*a, *a, *a]\n" + b"".join(b"c%d: [*b, *b, *b, *b]\n" % n for n in range(2000)),
    b"9" * 6000,
    b'{"a": 1e999, "b": ' + b"9" * 5000 + b"}",
    b"\xff\xfe" + "{}".encode("utf-16-le"),
    b"\x00" * 4096,
    "\u202e\x1b[2J".encode() * 50,
    b"- " * 5000 + b"x",
    b"? " * 3000 + b"x",
    b"{" * 3000,
    b"!!python/object/apply:os.system ['touch executed']\n",
    b"",
    b"\n" * 1_000_000,
    b"a\t" * 2_000_000,
    b'"' + b"x" * 5_000_000,
)
"""Content that is small and asks for much, or means something to a parser or a terminal."""


def _values(path: Path) -> Any:
    """Return what a file of JSON or YAML holds; nothing if it is another one, or damaged already."""
    try:
        return yaml.safe_load(path.read_text()) if path.suffix in (".json", ".yaml") else None
    except (UnicodeDecodeError, yaml.YAMLError):
        return None


def text_damage(path: Path, random: Random) -> None:
    """Damage a text: its bytes, its values, or all of it."""
    way = random.integers(4)
    if way == 0:
        path.write_bytes(BOMBS[int(random.integers(len(BOMBS)))])
    elif way == 1 and (values := _values(path)):
        inner, name = values, None
        while isinstance(inner, dict) and inner and random.random() < 0.7:
            outer, name = inner, str(random.choice(list(inner)))
            inner = inner[name]
        if name is not None:
            outer[name] = damage.changed({"x": inner}, random).get("x", "\x1b[2J" * 30)
        dump = json.dumps if path.suffix == ".json" else yaml.safe_dump
        path.write_text(dump(values))
    else:
        changed_bytes(path, random)


def audio(random: Random, folder: Path, original: Path) -> Use:
    """A recording of any format."""
    suffix, data = damage.speech(int(random.integers(len(damage.FORMATS))), random)
    (folder / "audio").mkdir()
    (folder / "audio" / f"a.{suffix}").write_bytes(damage.damaged(data, random))

    def use() -> None:
        for entry in scan([folder / "audio"], check=True)[0][""].entries:
            wave = read(entry.path)
            sound(damage.is_sound(wave) and abs(len(wave) - entry.samples) <= 2, entry.path)

    return use


def shard(random: Random, folder: Path, original: Path) -> Use:
    """A tar of recordings."""
    suffix, data = damage.speech(int(random.integers(len(damage.FORMATS))), random)
    path = pack(folder / "a.tar", {f"{i}.{suffix}": data for i in range(3)} | {"0.txt": b"words"})
    manifest = scan([path])[0][""]
    changed_bytes(path, random)

    def use() -> None:
        for entry in manifest.entries if random.random() < 0.5 else scan([path], check=True)[0][""].entries:
            sound(damage.is_sound(read(entry.path)), entry.path)

    return use


def _manifest(place: Path) -> None:
    for number in range(3):
        soundfile.write(place / f"{number}.wav", chirp(0.2), 16_000)
    scan([place])[0][""].save(place / "x.tsv")


def manifest(random: Random, folder: Path, original: Path) -> Use:
    """A manifest of three recordings."""

    path = folder / "x.tsv"
    shutil.copy(original / path.name, path)
    text_damage(path, random)

    def use() -> None:
        for entry in Manifest.load(path).entries[:10]:
            sound(damage.is_sound(read(entry.path)), entry.path)

    return use


def _model(source: Path) -> Use:
    def use() -> None:
        model = load_model(source)
        sound(damage.runs(model), "weights that are not finite")

    return use


def directory(random: Random, folder: Path, original: Path) -> Use:
    """A checkpoint directory."""
    place = damage.directory(random, folder)
    if random.random() < 0.2:
        text_damage(place / "config.json", random)
    return _model(place)


def pth(random: Random, folder: Path, original: Path) -> Use:
    """A file of the published code."""
    return _model(damage.released(random, folder))


def foreign(random: Random, folder: Path, original: Path) -> Use:
    """A teacher of fairseq or transformers."""
    return _model((damage.fairseq if random.random() < 0.6 else damage.huggingface)(random, folder))


_CALLS = (
    b"cos\nsystem\n",
    b"cposix\nsystem\n",
    b"csubprocess\ngetoutput\n",
    b"cbuiltins\neval\n",
    b"cos\npopen\n",
)


def hostile(random: Random, folder: Path, original: Path) -> Use:
    """A pickle that has a command executed when a careless program opens it."""
    touch = f"touch {folder / 'executed'}"
    name = _CALLS[int(random.integers(len(_CALLS)))]
    argument = repr(touch) if b"eval" not in name else repr(f"__import__('os').system({touch!r})")
    word = b"S" + argument.encode() + b"\n"
    module, function = name[1:].decode().split()
    ways = (
        b"\x80\x02" + name + b"(" + word + b"tR.",
        b"(i" + name[1:] + word + b".",
        b"(" + name + word + b"o.",
        b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(function)])
        + function.encode() + b"\x93(" + word + b"tR.",
        b"\x80\x02}X\x05\x00\x00\x00model" + name + b"(" + word + b"tRs.",
        b"\x80\x02" + name + b"(" + word + b"t\x81.",
    )  # fmt: skip
    content = ways[int(random.integers(len(ways)))]
    path = folder / str(random.choice(["a.pt", "a.pth", "states-10.ckpt"]))
    if random.random() < 0.5:
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", content)
            archive.writestr("a/version", "3")

    def use() -> None:
        try:
            load_model(path)
        finally:
            sound(not (folder / "executed").exists(), "a command was executed")

    return use


def _states(place: Path) -> None:
    student = gated(tiny("hubert"))
    module = {f"student.{name}": value for name, value in student.state_dict().items()}
    objective = Objective(ObjectiveConfig(groups=((0,), (1, 3))), 32, 32, 3, 3)
    module |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    recipe = from_dict(PretrainRecipe, {"teacher": "x", "budget": {"sparsity": 0.4, "warmup": 4}})
    own = {"recipe": {**recipe.to_dict(), "gates": {"kinds": ["conv", "heads", "ffn"]}}, "updates1": None}
    content = {
        "Step": 10,
        "Upstream_Config": {**own, "shape": student.model.config.to_dict()},
        "DPHuBERT": {"module": module, "full_costs": {"parameters": parameters(student.model.config)}},
    }
    torch.save(content, place / "states-10.ckpt")


def states(random: Random, folder: Path, original: Path) -> Use:
    """A checkpoint of run_pretrain."""

    source, path = original / "states-10.ckpt", folder / "states-10.ckpt"
    way = random.integers(3)
    if way == 0:
        content = torch.load(source, weights_only=True)
        part = content["DPHuBERT"] if random.random() < 0.5 else content["Upstream_Config"]
        if random.random() < 0.5 and "module" in part:
            part["module"] = damage.reshaped(part["module"], random)
        else:
            part.update(damage.changed(part, random))
        torch.save(content, path)
    else:
        data = source.read_bytes()
        path.write_bytes(damage.damaged(data, random) if way == 1 else damage.flip(data, random, 6000))
    return _model(path)


def _exported(place: Path) -> None:
    save_model(tiny("hubert"), place / "model")
    for name, format_ in (("m.onnx", "onnx"), ("m.xml", "openvino")):
        words = ("export", place / "model", place / name, "--format", format_)
        _finish(command(*words), place / "log.txt")


def _finish(function: Callable[[], Any], log: Path) -> None:
    child = fork(function, log).wait(120)
    if child.code != 0:
        raise RuntimeError(child.text or "it did not end")


def exported(random: Random, folder: Path, original: Path) -> Use:
    """Files of ``export`` for both runtimes."""

    name = str(random.choice(["m.onnx", "m.xml"]))
    for file in original.glob("m.*"):
        shutil.copy(file, folder)
    victim = folder / (name if name == "m.onnx" or random.random() < 0.5 else "m.bin")
    if random.random() < 0.5:  # the metadata lies at an end
        data = victim.read_bytes()
        cut = max(0, len(data) - 6000)
        victim.write_bytes(
            data[:cut] + damage.flip(data[cut:], random) if cut else damage.damaged(data, random)
        )
    else:
        changed_bytes(victim, random)

    def use() -> None:
        from s3prl_dphubert import load_exported

        model = load_exported(folder / name)
        hidden, _ = model.extract_features(torch.zeros(1, 16_000), torch.tensor([16_000]))
        sound(all(state.shape == (1, 49, 32) for state in hidden), "states of another shape")

    return use


def run_yaml(random: Random, folder: Path, original: Path) -> Use:
    """The configuration of a run."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(compression_runs.settings(folder)))
    text_damage(path, random)

    def use() -> None:
        from_dict(CompressConfig, read_yaml(path), str(path))

    return use


def upstream_yaml(random: Random, folder: Path, original: Path) -> Use:
    """Options of an upstream."""
    path = folder / "options.yaml"
    path.write_text("precision: bf16\npadding: exact\n")
    text_damage(path, random)
    return lambda: Options.read(path, {})


def score(random: Random, folder: Path, original: Path) -> Use:
    """The score of a task, as a report reads it."""
    path = score_file.write(superb_runs.RECORD, folder / "ks")
    text_damage(path, random)
    return command("superb", "report", folder)


def submission(random: Random, folder: Path, original: Path) -> Use:
    """A predict.zip."""
    texts = full_submission.texts()
    names = [str(name) for name in random.choice(list(texts), 2, replace=False)]
    path = folder / "predict.zip"
    files: dict[str, str | bytes] = {name: texts[name][:20_000] for name in names}
    if random.random() < 0.5:
        files[names[0]] = damage.damaged(str(files[names[0]]).encode(), random)
    elif random.random() < 0.3:
        files[names[0]] = BOMBS[int(random.integers(len(BOMBS)))]
    if random.random() < 0.3:
        files["sd_public/scoring/predictions/x.h5"] = damage.damaged(full_submission.activity(), random)
    full_submission.pack(path, files)
    if random.random() < 0.5:
        changed_bytes(path, random)

    def use() -> None:
        report = check(path)
        sound(all(fault.isprintable() for fault in report.faults), "a fault with control characters")
        if report.faults:
            raise ResultError(report.faults[0])

    return use


_BLOCKS = 6


def cache(random: Random, folder: Path, original: Path) -> Use:
    """The feature cache: whatever is broken in it is computed again, and nothing wrong comes out."""
    blocks = [
        Block(number.to_bytes(16, "little"), torch.full((4, 10 + number, 32), number + 0.5).half(), 0.5)
        for number in range(_BLOCKS)
    ]
    FeatureStore(folder, "model", 4, 32, 10**8).append(blocks)
    changed_bytes(folder / "model" / str(random.choice(["states.f16", "index"])), random)

    def use() -> None:
        store = FeatureStore(folder, "model", 4, 32, 10**8)
        for again in range(2):
            there = 0
            for block, place in zip(blocks, store.find([block.key for block in blocks]), strict=True):
                states = None if place is None else store.read(block.key, place)
                sound(states is None or torch.equal(states, block.states), "other states than were stored")
                there += states is not None
            sound(not again or there == _BLOCKS, f"{there} of {_BLOCKS} blocks after they were stored anew")
            store.append(blocks)

    return use


def _resume(place: Path) -> None:
    compression_runs.make_place(place)
    config = compression_runs.read_config(place)
    _finish(lambda: compress(config, place / "whole"), place / "log.txt")
    shutil.copytree(place / "whole", place / "half")
    shutil.rmtree(place / "half" / "model")
    (place / "half" / "stage2" / "best.pt").unlink(missing_ok=True)
    newest = sorted((place / "half" / "stage2").glob("state-*.pt"))
    if len(newest) > 1:
        newest[-1].unlink()


def resume(random: Random, folder: Path, original: Path) -> Use:
    """The directory of a run that was interrupted in stage 2, or is whole."""

    out = folder / "out"
    shutil.copytree(original / "half", out)
    files = sorted(
        path for path in out.rglob("*") if path.is_file() and not path.name.startswith((".", "events"))
    )
    for _ in range(int(random.integers(1, 3))):
        victim = files[int(random.integers(len(files)))]
        (text_damage if victim.suffix in (".json", ".yaml", ".jsonl", ".md") else changed_bytes)(
            victim, random
        )

    def use() -> None:
        compress(compression_runs.read_config(original), out)
        one, other = (path / "model" / "model.safetensors" for path in (out, original / "whole"))
        sound(one.read_bytes() == other.read_bytes(), f"another model after damage of {victim.name}")

    return use


def alignments(random: Random, folder: Path, original: Path) -> Use:
    """FreeSUPERB's tables of times and pronunciations."""
    for name, head in (
        ("alignments", "name\twords"),
        ("phones", "name\tphones"),
        ("lexicon", "word\tphones"),
    ):
        value = "HELLO:1:2 B:4:5" if "phones" in head else "1:2 4:5"
        data = f"{head}\na__b\t{value}\n".encode()
        if random.random() < 0.4:
            data = (
                BOMBS[int(random.integers(len(BOMBS)))]
                if random.random() < 0.3
                else damage.damaged(data, random)
            )
        packed = gzip.compress(data)
        (folder / f"{name}.tsv.gz").write_bytes(
            damage.damaged(packed, random) if random.random() < 0.4 else packed
        )
    clips = [Clip("a", "a__b", "bob", "Hello world", 16_000)]

    def use() -> None:
        for utterance in load(clips, folder, folder).utterances:
            spans = [*utterance.words, *utterance.phones]
            sound(all(span.start <= span.end for span in spans), "a word that ends before it begins")

    return use


KINDS: dict[str, Callable[[Random, Path, Path], Use]] = {
    "audio": audio,
    "tar shard": shard,
    "manifest": manifest,
    "checkpoint directory": directory,
    "released .pth": pth,
    "foreign teacher": foreign,
    "hostile pickle": hostile,
    "states of run_pretrain": states,
    "exported file": exported,
    "run YAML": run_yaml,
    "upstream YAML": upstream_yaml,
    "score.json": score,
    "predict.zip": submission,
    "feature cache": cache,
    "state to resume": resume,
    "alignments": alignments,
}
"""Kind -> makes a damaged input in a folder, perhaps of an original, and returns what uses it."""

ORIGINALS: dict[str, Callable[[Path], None]] = {
    "manifest": _manifest,
    "states of run_pretrain": _states,
    "exported file": _exported,
    "state to resume": _resume,
}
"""Kind -> fills the folder of its originals."""

SLOW = ("state to resume", "exported file")
"""Kinds that take seconds for each case."""
