"""Damaged inputs by the hundred, and what the package makes of them; a script for ``test_damage.py``.

``python damage.py KIND FIRST STOP FOLDER`` tries the cases FIRST to below STOP of a kind (``audio``,
``checkpoint`` or ``teacher``) and prints a JSON line for each: its number, how it ended and the
seconds it took.
Every case depends on its number only, so one that fails can be tried alone.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file, save_file

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.dphubert_pth import load_student
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.data.audio import probe, read
from s3prl_dphubert.data.manifest import scan
from s3prl_dphubert.data.validate import check
from s3prl_dphubert.errors import CheckpointError, DataError
from tests.helpers import foreign_checkpoints
from tests.helpers.golden import GOLDEN
from tests.helpers.models import tiny
from tests.helpers.speech import FORMATS, chirp, encoded, pack

SEED = 1
REFUSED, SOUND = "refused", "sound"
NUMBERS = (0, 1, 2, 7, 255, 65_535, 10**6 + 1, 2**31 - 1, 2**32 - 1)
VALUES = (
    None,
    -1,
    0,
    1,
    3,
    10**9,
    1.5,
    math.nan,
    math.inf,
    True,
    "x",
    "",
    [],
    [3],
    [[]],
    [None] * 3,
    {},
    [-1] * 7,
)


def truncate(data, random):
    return data[: random.integers(len(data))]


def flip(data, random, stop=None):
    """Change 1 to 20 bytes, all before ``stop``."""
    changed = bytearray(data)
    for place in random.integers(0, min(stop or len(data), len(data)), random.integers(1, 21)):
        changed[place] = random.integers(256)
    return bytes(changed)


def flip_head(data, random):
    return flip(data, random, 64)


def blank(data, random):
    """Overwrite a stretch with zeros, like a hole in a file that was copied badly."""
    begin, end = map(int, sorted(random.integers(0, len(data) + 1, 2)))
    return data[:begin] + bytes(end - begin) + data[end:]


def absurd(data, random):
    """Put an absurd number where headers keep rate, channels or a length."""
    place, size = int(random.integers(4, 60)), int(random.choice([2, 4]))
    number = int(random.choice(NUMBERS)) % 256**size
    return data[:place] + number.to_bytes(size, str(random.choice(["little", "big"]))) + data[place + size :]


def splice(data, random):
    """Insert noise, or a piece of the file itself."""
    place, noise = int(random.integers(len(data))), random.bytes(int(random.integers(1, 600)))
    return data[:place] + (noise if random.random() < 0.5 else data[: len(noise)]) + data[place:]


def replace(data, random):
    """Keep the mark of the format only."""
    return data[:4] + random.bytes(int(random.integers(0, 3000)))


DAMAGES = (truncate, flip, flip_head, blank, absurd, splice, replace)


def damaged(data, random):
    return DAMAGES[int(random.integers(len(DAMAGES)))](data, random)


def ended(use, allowed, sound):
    """Return the outcome of one use: refused, or a sound result; anything else is raised."""
    try:
        result = use()
    except allowed:
        return REFUSED
    if not sound(result):
        raise RuntimeError(f"unsound result: {result!r}")
    return SOUND


def worst(outcomes):
    """Refused, if any use was."""
    distinct = set(outcomes)
    return REFUSED if REFUSED in distinct else SOUND


def is_sound(audio):
    return audio.dtype == np.float32 and audio.ndim == 1 and len(audio) > 0 and bool(np.isfinite(audio).all())


def speech(index, random):
    """Suffix and bytes of a short file: of every format, of three rates, mono or stereo."""
    suffix, rate = tuple(FORMATS)[index % len(FORMATS)], int(random.choice([16_000, 8_000, 48_000]))
    data = chirp(0.2, rate)
    return suffix, encoded(
        data if random.random() < 0.7 else np.stack([data, data / 2], axis=1), suffix, rate
    )


def audio(index, random, folder):
    """One damaged file or shard, used in every way that the package uses it."""
    suffix, data = speech(index, random)
    kind = index // len(FORMATS) % 10
    if kind < 2:
        return shard(suffix, data, random, folder)
    if kind == 2:
        suffix, data = "wav", not_finite(random)
    elif kind == 3:  # the suffix of another format
        suffix = str(random.choice([other for other in FORMATS if other != suffix]))
        data = data if random.random() < 0.5 else damaged(data, random)
    else:
        data = damaged(data, random)
    path = folder / f"a.{suffix}"
    path.write_bytes(data)
    return worst(
        (
            ended(lambda: probe(path), DataError, lambda info: info.samples > 0),
            ended(lambda: read(path), DataError, is_sound),
            ended(
                lambda: read(path, 500, 1000), DataError, lambda crop: is_sound(crop) and len(crop) <= 1000
            ),
            ended(lambda: read("memory", data=data), DataError, is_sound),
        )
    )


def not_finite(random):
    wave = np.repeat(chirp(0.2)[:, None], int(random.integers(1, 3)), axis=1)
    wave[int(random.integers(len(wave))), 0] = random.choice([np.nan, np.inf, -np.inf])
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def shard(suffix, data, random, folder):
    """A shard is damaged after its scan, read by the old manifest, then scanned again."""
    path = pack(folder / "a.tar", {f"{i}.{suffix}": data for i in range(3)} | {"0.txt": b"words"})
    manifest = scan([path])[0][""]
    path.write_bytes(damaged(path.read_bytes(), random))
    reads = [ended(lambda e=entry: read(e.path), DataError, is_sound) for entry in manifest.entries]
    report = check(manifest)
    if len(report.bad) < reads.count(REFUSED) or not math.isfinite(report.seconds):
        raise RuntimeError(f"the check found {report.bad}, reading found {reads}")
    again = ended(lambda: scan([path], check=True), DataError, lambda result: len(result[0][""].entries) > 0)
    return worst([*reads, again])


def changed(values, random):
    """A mapping with one value lost or replaced by one that makes no sense there."""
    key = str(random.choice(list(values)))
    values = dict(values)
    value = VALUES[int(random.integers(len(VALUES)))]
    if random.random() < 0.15:
        del values[key]
    elif isinstance(values[key], list | tuple) and values[key] and random.random() < 0.5:
        items = list(values[key])
        items[int(random.integers(len(items)))] = value
        values[key] = items
    else:
        values[key] = value
    return values


def reshaped(state, random):
    """Tensors of which one is lost, not finite, of another shape or another type."""
    name = str(random.choice(list(state)))
    tensor = state[name].clone()
    way = random.integers(5)
    if way == 0:
        return {key: value for key, value in state.items() if key != name}
    if way == 1 and tensor.numel():
        tensor.view(-1)[int(random.integers(tensor.numel()))] = float(random.choice([np.nan, np.inf]))
    elif way == 2:
        tensor = torch.cat([tensor, tensor]) if tensor.ndim else tensor[None]
    elif way == 3:
        tensor = tensor.to(torch.int64)
    else:
        tensor = tensor.flatten()[:-1]
    return {**state, name: tensor}


def directory(random, folder):
    """A damaged checkpoint directory."""
    place = save_model(tiny(str(random.choice(["hubert", "large", "wavlm"]))), folder / "model")
    config, weights = place / "config.json", place / "model.safetensors"
    way = random.integers(5)
    if way == 0:
        config.write_bytes(damaged(config.read_bytes(), random))
    elif way == 1:
        config.write_text(json.dumps(changed(json.loads(config.read_text()), random)))
    elif way == 2:
        weights.write_bytes(damaged(weights.read_bytes(), random))
    elif way == 3:
        weights.write_bytes(flip(weights.read_bytes(), random, 4000))  # its head names types and shapes
    else:
        save_file(reshaped(load_file(weights), random), weights)
    return place


def released(random, folder):
    """A damaged file of the published code."""
    source = GOLDEN / f"{random.choice(['hubert_gated', 'hubert_post_norm_pruned', 'wavlm_pruned'])}.pth"
    place = folder / "a.pth"
    way = random.integers(4)
    if way == 0:
        place.write_bytes(damaged(source.read_bytes(), random))
    elif way == 1:  # the pickle is near the front, the index of the archive at the end
        data = source.read_bytes()
        place.write_bytes(
            data[:-3000] + flip(data[-3000:], random) if random.random() < 0.5 else flip(data, random, 3000)
        )
    else:
        content = torch.load(source, weights_only=True)
        part, damage = ("config", changed) if way == 2 else ("state_dict", reshaped)
        torch.save({**content, part: damage(content[part], random)}, place)
    return place


@torch.no_grad()
def runs(model):
    """A model that loads has finite weights and takes a waveform, if kernels and strides leave it short."""
    samples = model.config.min_samples + 3200
    if samples < 100_000:
        model(torch.zeros(1, samples), torch.tensor([samples]))
    return all(bool(tensor.isfinite().all()) for tensor in model.parameters())


def checkpoint(index, random, folder):
    """One damaged checkpoint, loaded as a model, and a released one as a student too."""
    place = directory(random, folder) if index % 2 else released(random, folder)
    outcomes = [ended(lambda: load_model(place), CheckpointError, runs)]
    if place.is_file():
        outcomes.append(
            ended(lambda: load_student(place), CheckpointError, lambda student: runs(student.model))
        )
    return SOUND if SOUND in outcomes else REFUSED


def fairseq(random, folder):
    """A damaged file of fairseq's form, in either of torch's formats."""
    settings, state = foreign_checkpoints.fairseq()
    way, place = random.integers(5), folder / "a.pt"
    settings = changed(settings, random) if way == 0 else settings
    state = reshaped(state, random) if way == 1 else state
    zipped = bool(random.integers(2))
    content = {"args": argparse.Namespace(**settings), "model": state}
    torch.save(content, place, _use_new_zipfile_serialization=zipped)
    data = place.read_bytes()
    if way == 2:
        place.write_bytes(damaged(data, random))
    elif way == 3:  # the pickle lies in front in both formats
        place.write_bytes(flip(data, random, 6000))
    elif way == 4:
        place.write_bytes(data[:-3000] + flip(data[-3000:], random))
    return place


def huggingface(random, folder):
    """A damaged directory as transformers writes it."""
    values, state = foreign_checkpoints.transformers()
    way = random.integers(4)
    text = json.dumps(changed(values, random) if way == 0 else values).encode()
    (folder / "config.json").write_bytes(damaged(text, random) if way == 1 else text)
    state = reshaped(state, random) if way == 2 else state
    weights = folder / str(random.choice(["model.safetensors", "pytorch_model.bin"]))
    save_file(state, weights) if weights.suffix == ".safetensors" else torch.save(state, weights)
    if way == 3:
        weights.write_bytes(damaged(weights.read_bytes(), random))
    return folder


def teacher(index, random, folder):
    """One damaged teacher of another project."""
    place = (fairseq if index % 2 else huggingface)(random, folder)
    return ended(lambda: load_model(place), CheckpointError, runs)


def main(kind, first, stop, folder):
    torch.set_num_threads(1)
    case = {"audio": audio, "checkpoint": checkpoint, "teacher": teacher}[kind]
    for index in range(int(first), int(stop)):
        place = Path(folder, f"{kind}{index}")
        place.mkdir()
        began = time.monotonic()
        try:
            outcome = case(index, np.random.default_rng((SEED, len(kind), index)), place)
        except Exception:
            outcome = traceback.format_exc()
        print(json.dumps([index, outcome, time.monotonic() - began]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
