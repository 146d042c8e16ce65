"""Phonetic content of each layer: accuracy of a linear probe on held-out voices.

``python -m s3prl_dphubert.hubert_mini.probe SPEECH_DIR PHONES.tsv.gz WEIGHTS --out probe.json``.
``PHONES`` is a forced alignment with the columns path, speaker and phones (``PHONE:start:duration`` in units
of 10 ms, separated by spaces); the clip of a row is the FLAC with the file name of the path.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..checkpoints.load import load_model
from ..free_superb.sources.recordings import QUEEN
from ..model import SpeechModel
from .speech import HELD_OUT
from .targets import STRIDE, WINDOW, mfcc


def read_alignment(path: Path, speech: Path) -> list[tuple[Path, str]]:
    """Return the clips of the game that exist below ``speech``, each with its phones."""
    with gzip.open(path, "rt", encoding="utf8") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    clips = ((speech / QUEEN / Path(row[0]).name, row[2]) for row in rows if row[0].startswith("fotaq/"))
    return [(clip, phones) for clip, phones in clips if clip.is_file()]


def frame_labels(phones: str, frames: int, ids: dict[str, int]) -> Tensor:
    """Return the id of the phone in the middle of each 20 ms frame (F,), or -1 outside the alignment.

    Args:
        phones: alignment of the clip.
        frames: number of frames F.
        ids: phone -> id, extended by new phones.
    """
    labels = torch.full((frames,), -1)
    for part in phones.split():
        phone, start, duration = part.split(":")
        centre = (WINDOW / 2 + STRIDE * np.arange(frames)) / 160
        inside = (centre >= int(start)) & (centre < int(start) + int(duration))
        labels[torch.from_numpy(inside)] = ids.setdefault(phone, len(ids))
    return labels


@torch.no_grad()
def collect(
    model: SpeechModel, clips: list[tuple[Path, str]], ids: dict[str, int]
) -> tuple[list[Tensor], Tensor]:
    """Return the features (N, D) from MFCC+deltas and from every hidden state, and the labels (N,)."""
    rows: list[list[Tensor]] = []
    labels = []
    for path, phones in tqdm(clips, mininterval=5):
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        if waveform.shape[1] < 1600:
            continue
        hidden, _ = model.extract_features(waveform)
        frame_ids = frame_labels(phones, hidden[0].shape[1], ids)
        aligned = frame_ids >= 0
        rows.append([state[0][aligned] for state in [mfcc(waveform), *hidden]])
        labels.append(frame_ids[aligned])
    return [torch.cat(column) for column in zip(*rows, strict=True)], torch.cat(labels)


def linear_probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> float:
    """Train a linear map on ``train``; returns its frame accuracy on ``test`` in percent."""
    mean, std = train[0].mean(0), train[0].std(0) + 1e-5
    x, y = (train[0] - mean) / std, train[1]
    torch.manual_seed(0)
    layer = torch.nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(layer.parameters(), 3e-3, weight_decay=1e-3)
    steps = 1500
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        indices = torch.randint(len(y), (2048,))
        optimizer.zero_grad()
        F.cross_entropy(layer(x[indices]), y[indices]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        correct = layer((test[0] - mean) / std).argmax(-1) == test[1]
    return round(100 * correct.double().mean().item(), 2)


def main(argv: list[str] | None = None) -> int:
    """Probe a trained and a random model; returns the exit code."""
    parser = argparse.ArgumentParser(description="Probe a checkpoint for phones.")
    parser.add_argument("speech_dir", type=Path)
    parser.add_argument("phones", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1500, help="training clips")
    a = parser.parse_args(argv)
    trained = load_model(a.checkpoint)
    torch.manual_seed(0)
    clips = read_alignment(a.phones, a.speech_dir)
    held_out = [c for c in clips if HELD_OUT.match(c[0].relative_to(a.speech_dir).as_posix())]
    others = [c for c in clips if c not in held_out]
    training = [others[i] for i in np.random.default_rng(0).permutation(len(others))[: a.clips]]
    result: dict[str, object] = {"train_clips": len(training), "held_out_clips": len(held_out)}
    for name, model in (("trained", trained), ("random", SpeechModel(trained.config).eval())):
        ids: dict[str, int] = {}
        train, test = collect(model, training, ids), collect(model, held_out, ids)
        names = ["mfcc+deltas", *(f"layer {i}" for i in range(len(train[0]) - 1))]
        result[name] = {
            key: linear_probe((train[0][i], train[1]), (test[0][i], test[1]), len(ids))
            for i, key in enumerate(names)
        }
        result |= {"train_frames": len(train[1]), "held_out_frames": len(test[1])}
    a.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
