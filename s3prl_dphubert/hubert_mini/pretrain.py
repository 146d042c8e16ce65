"""Pre-training of ``hubert_nano`` by masked prediction of clusters (Hsu et al. 2021, section II).

``python -m s3prl_dphubert.hubert_mini.pretrain SPEECH_DIR OUT_DIR`` reads every FLAC below ``SPEECH_DIR``, clusters
features with k-means and trains the prediction of the clusters. The features are MFCCs in the first
iteration; in the next, ``--features CHECKPOINT:LAYER --init CHECKPOINT`` takes hidden states of the previous
model. An interrupted run continues from its last saved update; batches and masks depend only on (seed,
update). Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints.load import load_model
from ..constants import SAMPLE_RATE
from ..model.state_dict import load_weights_only
from ..utils.files import replacing
from .speech import HELD_OUT
from .targets import STRIDE, cluster, features_named, label, read_samples

FINAL_DIM, TEMPERATURE = 64, 0.1

ARCHITECTURE: dict[str, Any] = dict(
    extractor_mode="group_norm",
    extractor_conv_layer_config=[(128, 10, 5)] + [(128, 3, 2)] * 4 + [(128, 2, 2)] * 2,
    extractor_conv_bias=False,
    encoder_embed_dim=192,
    encoder_projection_dropout=0.0,
    encoder_pos_conv_kernel=128,
    encoder_pos_conv_groups=16,
    encoder_num_layers=6,
    encoder_num_heads=6,
    encoder_attention_dropout=0.0,
    encoder_ff_interm_features=768,
    encoder_ff_interm_dropout=0.0,
    encoder_dropout=0.0,
    encoder_layer_norm_first=False,
    encoder_layer_drop=0.0,
)


class CosineLogits(nn.Module):
    """Logits of the masked frames: cosine to each class embedding, divided by a temperature (eq. 3)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.label_embeddings = nn.Parameter(torch.randn(classes, FINAL_DIM))
        self.final_proj = nn.Linear(ARCHITECTURE["encoder_embed_dim"], FINAL_DIM)

    def forward(self, x: Tensor, labels: Tensor, masked: Tensor, unmasked: Tensor) -> tuple[Tensor, Tensor]:
        """Select masked frames, x (B, F, D), labels and masks (B, F) -> logits (N, classes), targets (N,)."""
        projected = F.normalize(self.final_proj(x[masked]).float(), dim=-1)
        return projected @ F.normalize(self.label_embeddings, dim=-1).T / TEMPERATURE, labels[masked]


def build_model(classes: int = 100) -> nn.Module:
    """Return torchaudio's HuBERT pre-training model in the shape of ``hubert_nano``."""
    model = torchaudio.models.hubert_pretrain_model(
        **ARCHITECTURE,
        mask_prob=0.8,
        mask_selection="static",
        mask_other=0.0,
        mask_length=10,
        no_mask_overlap=False,
        mask_min_space=1,
        mask_channel_prob=0.0,
        mask_channel_selection="static",
        mask_channel_other=0.0,
        mask_channel_length=10,
        no_mask_channel_overlap=False,
        mask_channel_min_space=1,
        skip_masked=False,
        skip_nomask=True,
        num_classes=classes,
        final_dim=FINAL_DIM,
        feature_grad_mult=None,
    )
    model.logit_generator = CosineLogits(classes)
    return model


def start_from(model: nn.Module, checkpoint: Path) -> None:
    """Copy the encoder from a checkpoint of the same shape; the prediction head keeps its initial values."""
    state = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in load_model(checkpoint).state_dict().items()
        if name != "feature_extractor.dummy_weight"
    }
    model.get_submodule("wav2vec2").load_state_dict(state)


def read_stream(speech: Path, cache: Path, held_out: bool) -> np.ndarray:
    """Concatenate the clips in the order of their paths into one int16 array (T,), cached as ``.npy``.

    Args:
        speech: folder of the clips.
        cache: the ``.npy`` file.
        held_out: read the held-out voices instead of the others.
    """
    if not cache.exists():
        paths = sorted(speech.rglob("*.flac"))
        paths = [p for p in paths if bool(HELD_OUT.match(p.relative_to(speech).as_posix())) == held_out]
        samples = [soundfile.read(p, dtype="int16")[0] for p in tqdm(paths, desc=cache.stem)]
        with replacing(cache) as partial, open(partial, "wb") as file:
            np.save(file, np.concatenate(samples))
    return np.load(cache)


class Windows:
    """Random windows of a stream with the clusters of their frames.

    Args:
        stream: int16 samples (T,).
        labels: cluster of each frame (F,).
        batch: windows per batch.
        frames: frames per window.
        seed: seed of the draws.
    """

    def __init__(self, stream: np.ndarray, labels: np.ndarray, batch: int, frames: int, seed: int) -> None:
        self.stream, self.labels, self.batch, self.frames, self.seed = stream, labels, batch, frames, seed

    def draw(self, *key: int) -> tuple[Tensor, Tensor]:
        """Return waveforms (B, T) and labels (B, F), a function of the seed and the key only."""
        generator = np.random.default_rng((self.seed, *key))
        starts = generator.integers(0, len(self.labels) - self.frames, self.batch)
        waveforms = torch.stack([read_samples(self.stream, s, self.frames) for s in starts])
        rows = np.stack([self.labels[s : s + self.frames] for s in starts])
        return waveforms, torch.from_numpy(rows).long()


def learning_rate(update: int, peak: float, updates: int, warmup: int = 300, decay: float = 0.3) -> float:
    """Return the learning rate: linear warm-up, constant, and linear to zero over the last share of updates.

    Until the decay begins the rate does not depend on ``updates``, so a run can be extended or shortened
    while it is under way.
    """
    return peak * min(1.0, (update + 1) / warmup, (updates - update) / (decay * updates))


@torch.no_grad()
def validate(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the accuracy in percent on the masked frames of held-out voices, with fixed masks."""
    model.eval()
    torch.manual_seed(0)
    correct = total = 0
    for waveforms, labels in batches:
        logits, targets, _ = masked_logits(model, waveforms, labels)
        correct, total = correct + int((logits.argmax(-1) == targets).sum()), total + len(targets)
    model.train()
    return 100 * correct / total


def masked_logits(model: nn.Module, waveforms: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the model in bfloat16; returns logits (N, classes), targets (N,) and the feature penalty."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(waveforms, labels)


def read_windows(a: argparse.Namespace, held_out: bool) -> Windows:
    """Return windows of the training or the held-out speech, clustered on first use."""
    name = "held_out" if held_out else "train"
    stream = read_stream(a.speech_dir, a.out_dir / f"{name}.npy", held_out)
    features, means = features_named(a.features), a.out_dir / "kmeans.safetensors"
    if not means.exists():
        cluster(stream, features, a.classes, means, a.seed)
    labels = label(stream, features, means, a.out_dir / f"{name}_labels.npy")
    return Windows(stream, labels, a.batch, round(a.seconds * SAMPLE_RATE / STRIDE) - 1, a.seed)


def train(a: argparse.Namespace) -> None:
    """Train, saving ``state.pt`` every 100 updates and ``model.safetensors`` at the end."""
    a.out_dir.mkdir(parents=True, exist_ok=True)
    windows, held_out = read_windows(a, held_out=False), read_windows(a, held_out=True)
    validation = [held_out.draw(2, i) for i in range(16)]
    torch.manual_seed(a.seed)
    model = build_model(a.classes)
    if a.init is not None:
        start_from(model, a.init)
    optimizer = torch.optim.AdamW(model.parameters(), a.lr, (0.9, 0.98), 1e-6, 0.01)
    state, start = a.out_dir / "state.pt", 0
    if state.exists():
        saved = load_weights_only(state)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["update"]
    bar = tqdm(range(start, a.updates), initial=start, total=a.updates, mininterval=30)
    began = time.time()
    for update in bar:
        waveforms, labels = windows.draw(1, update)
        torch.manual_seed(a.seed * 1_000_003 + update)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update, a.lr, a.updates)
        logits, targets, penalty = masked_logits(model, waveforms, labels)
        loss = F.cross_entropy(logits, targets)
        (loss + 10 * penalty / a.batch).backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 5.0))
        if np.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (update + 1) % 100 == 0 or update + 1 == a.updates:
            content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "update": update + 1}
            with replacing(state) as partial:
                torch.save(content, partial)
            accuracy = validate(model, validation)
            row = {"update": update + 1, "loss": loss.item(), "norm": norm, "held_out_accuracy": accuracy}
            with open(a.out_dir / "log.jsonl", "a", encoding="utf8") as log:
                log.write(json.dumps(row | {"seconds": round(time.time() - began, 1)}) + "\n")
    weights = {k: v.contiguous() for k, v in model.get_submodule("wav2vec2").state_dict().items()}
    with replacing(a.out_dir / "model.safetensors") as partial:
        save_file(weights, partial)


def main(argv: list[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(description="Pre-train hubert_nano.")
    parser.add_argument("speech_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--features", default="mfcc", help="mfcc, or CHECKPOINT:LAYER of an earlier model")
    parser.add_argument("--classes", type=int, default=100, help="clusters")
    parser.add_argument("--init", type=Path, help="checkpoint to initialise the encoder from")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16, help="windows per update")
    parser.add_argument("--seconds", type=float, default=3.5, help="length of a window")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
