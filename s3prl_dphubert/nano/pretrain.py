"""Pre-train ``hubert_nano`` as HuBERT's first iteration (Hsu et al. 2021, section II).

``python -m s3prl_dphubert.nano.pretrain SPEECH_DIR OUT_DIR --updates 4000`` reads every
FLAC below ``SPEECH_DIR``, clusters MFCCs with k-means and trains the masked prediction of
the clusters. A run that was interrupted goes on with its last saved update; batches and
masks depend on (seed, update) alone. Needs torchaudio and scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from .speech import HELD_OUT, SAMPLE_RATE

WINDOW, STRIDE = 400, 320  # samples that one frame sees first, and between frames
CLASSES, FINAL_DIM, TEMPERATURE = 100, 64, 0.1

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
    """Logits of the masked frames: cosine to each class embedding over a temperature (eq. 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.label_embeddings = nn.Parameter(torch.rand(CLASSES, FINAL_DIM))
        self.final_proj = nn.Linear(ARCHITECTURE["encoder_embed_dim"], FINAL_DIM)

    def forward(self, x: Tensor, labels: Tensor, masked: Tensor, unmasked: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, F, D), labels (B, F), masks (B, F) -> logits (N, classes), targets (N,)."""
        projected = F.normalize(self.final_proj(x[masked]).float(), dim=-1)
        return projected @ F.normalize(self.label_embeddings, dim=-1).T / TEMPERATURE, labels[masked]


def build_model() -> nn.Module:
    """Return torchaudio's HuBERT pre-training model in the nano shape."""
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
        num_classes=CLASSES,
        final_dim=FINAL_DIM,
        feature_grad_mult=None,
    )
    model.logit_generator = CosineLogits()
    return model


def read_stream(speech: Path, cache: Path, held_out: bool) -> np.ndarray:
    """Concatenate the clips in path order into one int16 array (T,), cached as ``.npy``."""
    if not cache.exists():
        paths = sorted(p for p in speech.rglob("*.flac"))
        chosen = [p for p in paths if bool(HELD_OUT.match(p.relative_to(speech).as_posix())) == held_out]
        samples = [soundfile.read(p, dtype="int16")[0] for p in tqdm(chosen, desc=cache.stem)]
        with open(f"{cache}.part", "wb") as file:
            np.save(file, np.concatenate(samples))
        os.replace(f"{cache}.part", cache)
    return np.load(cache)


def windows(stream: np.ndarray, batch: int, seconds: float, seed: tuple[int, ...]) -> Tensor:
    """Draw (B, T) random windows of the stream, a function of the seed alone."""
    length = int(seconds * SAMPLE_RATE)
    starts = np.random.default_rng(seed).integers(0, len(stream) - length, batch)
    return torch.stack([torch.from_numpy(stream[s : s + length].astype(np.float32) / 32768) for s in starts])


def mfcc(waveforms: Tensor) -> Tensor:
    """(B, T) -> (B, F, 39): MFCCs with deltas, mean-free per window, one row per model frame."""
    rows = []
    for waveform in waveforms:
        static = torchaudio.compliance.kaldi.mfcc(
            waveform[None] * 32768, use_energy=False, sample_frequency=SAMPLE_RATE, dither=0.0
        ).T
        delta = torchaudio.functional.compute_deltas(static)
        both = torch.cat([static, delta, torchaudio.functional.compute_deltas(delta)]).T
        rows.append((both - both.mean(0))[::2])
    frames = (waveforms.shape[1] - WINDOW) // STRIDE + 1
    return torch.stack(rows)[:, :frames]


class Targets(nn.Module):
    """Cluster ids of frames: k-means over MFCCs scaled to unit variance."""

    def __init__(self, stream: np.ndarray, cache: Path, seed: int) -> None:
        super().__init__()
        if not cache.exists():
            from sklearn.cluster import MiniBatchKMeans

            features = mfcc(windows(stream, 1200, 3.5, (seed, 0))).flatten(0, 1)
            scale = features.std(0)
            means = MiniBatchKMeans(CLASSES, n_init=5, batch_size=10_000, max_iter=200, random_state=seed)
            means.fit((features / scale).numpy())
            centres = torch.from_numpy(means.cluster_centers_).float()
            save_file({"centres": centres, "scale": scale}, cache)
        saved = load_file(cache)
        self.centres, self.scale = saved["centres"], saved["scale"]

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, T) -> (B, F) cluster ids."""
        return torch.cdist(mfcc(waveforms) / self.scale, self.centres).argmin(-1)


def learning_rate(update: int, peak: float, updates: int, warmup: float = 0.08) -> float:
    """Linear warm-up over the first 8 % of the updates, then linear to zero."""
    rising = warmup * updates
    return peak * min((update + 1) / rising, (updates - update) / (updates - rising))


@torch.no_grad()
def validate(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Accuracy in percent of the masked frames of held-out voices, masks fixed."""
    model.eval()
    torch.manual_seed(0)
    right = total = 0
    for waveforms, labels in batches:
        logits, targets, _ = masked_logits(model, waveforms, labels)
        right, total = right + int((logits.argmax(-1) == targets).sum()), total + len(targets)
    model.train()
    return 100 * right / total


def masked_logits(model: nn.Module, waveforms: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the model in bfloat16; returns logits (N, classes), targets (N,), feature penalty."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(waveforms, labels)


def train(speech: Path, out: Path, updates: int, batch: int, seconds: float, peak: float, seed: int) -> None:
    """Train, saving ``state.pt`` every 100 updates and ``model.safetensors`` at the end."""
    out.mkdir(parents=True, exist_ok=True)
    stream = read_stream(speech, out / "train.npy", held_out=False)
    unseen = read_stream(speech, out / "held_out.npy", held_out=True)
    targets = Targets(stream, out / "kmeans.safetensors", seed)
    torch.manual_seed(seed)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), peak, (0.9, 0.98), 1e-6, 0.01)
    state, start = out / "state.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["update"]
    validation = [(w, targets(w)) for w in (windows(unseen, batch, seconds, (seed, 2, i)) for i in range(8))]
    bar = tqdm(range(start, updates), initial=start, total=updates, mininterval=30)
    began = time.time()
    for update in bar:
        waveforms = windows(stream, batch, seconds, (seed, 1, update))
        torch.manual_seed(seed * 1_000_003 + update)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update, peak, updates)
        logits, labels, penalty = masked_logits(model, waveforms, targets(waveforms))
        loss = F.cross_entropy(logits, labels)
        (loss + 10 * penalty / batch).backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 5.0))
        if np.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (update + 1) % 100 == 0 or update + 1 == updates:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "update": update + 1}
            torch.save(saved, f"{state}.part")
            os.replace(f"{state}.part", state)
            accuracy = validate(model, validation)
            row = {"update": update + 1, "loss": loss.item(), "norm": norm, "held_out_accuracy": accuracy}
            with open(out / "log.jsonl", "a", encoding="utf8") as log:
                log.write(json.dumps(row | {"seconds": round(time.time() - began, 1)}) + "\n")
    weights = {k: v.contiguous() for k, v in model.get_submodule("wav2vec2").state_dict().items()}
    save_file(weights, out / "model.safetensors")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Pre-train hubert_nano.")
    parser.add_argument("speech_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16, help="windows an update")
    parser.add_argument("--seconds", type=float, default=3.5, help="length of a window")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args(argv)
    train(a.speech_dir, a.out_dir, a.updates, a.batch, a.seconds, a.lr, a.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
