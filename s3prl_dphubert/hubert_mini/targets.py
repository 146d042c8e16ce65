"""Targets of masked prediction every 20 ms: clusters of the phone model's hidden states, and its phones.

``python -m s3prl_dphubert.hubert_mini.targets BUILD OUT_DIR`` reads ``OUT_DIR/phone_model.pt`` and writes
``stream.npz`` (all speech of ``unlabelled/train.tsv``), ``kmeans.safetensors``, ``targets.npy`` (F,) and
``phones.npy`` (F, phones), the phones' probabilities. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..free_superb.sources.recordings import QUEEN
from ..model.state_dict import load_weights_only
from ..utils.files import replacing
from .phone_model import PhoneModel, log_mel
from .stream import Stream

CLASSES, SAMPLED, BATCH = 250, 200_000, 32
ENGLISH, ENGLISH_WEIGHT = (QUEEN, "asterisk-core-sounds-en-g722", "pocketsphinx-testdata"), 3.0
"""A fifth of the speech is English, the language of the tasks; it is drawn three times as often."""


def weight(path: str) -> float:
    """Return how often a clip is drawn, relative to others of the same length."""
    return ENGLISH_WEIGHT if Path(path).parent.name in ENGLISH else 1.0


def open_stream(build: Path, out: Path) -> Stream:
    """Return the speech of a build that is heard without labels, read once."""
    return Stream.read(build / "unlabelled" / "train.tsv", out / "stream.npz", weight)


@torch.no_grad()
def hidden_states(model: PhoneModel, stream: Stream) -> Tensor:
    """Return the hidden states of every frame of a stream (F, width) in float16, clip by clip."""
    model.eval()
    lengths = np.diff(stream.starts)
    states = torch.zeros(stream.starts[-1], model.output.in_features, dtype=torch.float16)
    order = np.argsort(lengths)
    for clips in tqdm(np.array_split(order, len(order) // BATCH), "hidden states", mininterval=5):
        bands = [log_mel(stream.window(stream.starts[i], max(lengths[i], 2))) for i in clips]
        padded = nn.utils.rnn.pad_sequence(bands, batch_first=True)
        for i, clip, row in zip(clips, bands, model.hidden(padded), strict=True):
            frames = torch.arange(lengths[i]).clamp(max=(len(clip) + 1) // 2 - 1)  # the end may be cut short
            states[stream.starts[i] : stream.starts[i + 1]] = row[frames].half()
    return states


@torch.no_grad()
def label(stream: Stream, out: Path, classes: int, seed: int) -> np.ndarray:
    """Return the cluster of every frame (F,), computed once; the phones are written beside them."""
    from sklearn.cluster import MiniBatchKMeans

    targets, phones, means = out / "targets.npy", out / "phones.npy", out / "kmeans.safetensors"
    if not (targets.exists() and phones.exists()):
        model = PhoneModel()
        model.load_state_dict(load_weights_only(out / "phone_model.pt")["model"])
        states = hidden_states(model, stream)
        if not means.exists():
            english = np.repeat(stream.weights, np.diff(stream.starts))
            share = english / english.sum()
            sampled = np.random.default_rng(seed).choice(len(states), SAMPLED, replace=False, p=share)
            clusters = MiniBatchKMeans(classes, n_init=3, batch_size=10_000, max_iter=200, random_state=seed)
            clusters.fit(states[np.sort(sampled)].float().numpy())
            with replacing(means) as partial:
                save_file({"centres": torch.from_numpy(clusters.cluster_centers_).float()}, partial)
        centres = load_file(means)["centres"]
        parts = [part.float() for part in states.split(20_000)]
        _save(targets, torch.cat([torch.cdist(part, centres).argmin(-1) for part in parts]).short())
        _save(phones, torch.cat([model.output(part).softmax(-1).half() for part in parts]))
    return np.load(targets)


def _save(path: Path, values: Tensor) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, values.numpy())


def main(argv: list[str] | None = None) -> int:
    """Make the targets; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the targets of hubert_mini's pre-training.")
    parser.add_argument("build", type=Path, help="folder of a FreeSUPERB build")
    parser.add_argument("out", type=Path, help="folder with phone_model.pt")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args(argv)
    targets = label(open_stream(a.build, a.out), a.out, a.classes, a.seed)
    counts = np.bincount(targets, minlength=a.classes) / len(targets)
    perplexity = float(np.exp(-(counts * np.log(counts.clip(1e-12))).sum()))
    print(f"{len(targets) / 50 / 3600:.2f} hours, {a.classes} targets, perplexity {perplexity:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
