"""Pre-training of ``hubert_mini`` by masked prediction of targets that a phone model guides.

``python -m s3prl_dphubert.hubert_mini.pretrain BUILD OUT_DIR`` trains on the targets in ``OUT_DIR`` (see
:mod:`.phone_model` and :mod:`.targets`) and writes ``state.pt``, ``log.jsonl`` and ``model.safetensors``. The
loss is the cross entropy of masked frames, the same of the others (Hsu et al. 2021, eq. 2, with their weights
equal), the cross entropy between the phone model's phones and those of the encoder's last layer, and the
squared error of log-mel energies that a lower layer predicts; the last two count on frames that are heard. An
interrupted run continues from its last saved update; batches and masks depend only on (seed, update). The
learning rate is constant after its warm-up until ``--decay-from``, so a run can be extended while it is under
way: its state before the decay is kept in ``constant.pt``. ``--init`` starts from another run's weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..model.state_dict import load_weights_only
from ..utils.files import replacing
from .masked_prediction import CONFIG, MaskedPrediction, draw_masks
from .phone_model import MELS, energies
from .stream import STRIDE, Stream
from .targets import open_stream

WARMUP, CLIP = 400, 5.0
ACOUSTIC = 2.0
"""Weight of the error of log-mel energies."""
MEAN, SPREAD = 3.7, 1.4
"""Mean and standard deviation of :func:`.phone_model.energies` over all speech."""


def learning_rate(update: int, a: argparse.Namespace) -> float:
    """Return the learning rate: linear warm-up, constant, and linear to zero from ``decay_from`` on."""
    left = (a.updates - update) / max(1, a.updates - a.decay_from)
    return a.lr * min(1.0, (update + 1) / WARMUP, left)


def standard_energies(waveform: Tensor) -> Tensor:
    """Return log-mel energies of about zero mean and unit variance, (T,) -> (frames of 20 ms, mels).

    Digital silence counts as noise in the last of 16 bits.
    """
    return (energies(waveform)[::2].clamp(min=0) - MEAN) / SPREAD


@dataclass(frozen=True)
class Windows:
    """Windows and what is to be predicted.

    Attributes:
        waveforms: (B, T).
        targets: clusters (B, F), int64.
        phones: probabilities (B, F, phones).
        bands: log-mel energies (B, F, mels).
        masked: (B, F), bool.
    """

    waveforms: Tensor
    targets: Tensor
    phones: Tensor
    bands: Tensor
    masked: Tensor

    @classmethod
    def draw(
        cls, stream: Stream, targets: np.ndarray, phones: np.ndarray, rows: int, random: np.random.Generator,
        frames: int,
    ) -> Windows:  # fmt: skip
        """Draw windows of so many frames from a stream with targets (N,) and phones (N, phones)."""
        starts = stream.draw(rows, frames, random)
        waveforms = torch.stack([stream.window(start, frames) for start in starts])
        return cls(
            waveforms,
            torch.from_numpy(np.stack([targets[s : s + frames] for s in starts])).long(),
            torch.from_numpy(np.stack([phones[s : s + frames] for s in starts])).float(),
            torch.stack([standard_energies(each)[:frames] for each in waveforms]),
            draw_masks(rows, frames, random),
        )


def loss_of(logits: Tensor, phones: Tensor, bands: Tensor, batch: Windows) -> tuple[Tensor, dict[str, float]]:
    """Compute the loss, the accuracies of targets and phones in percent, and the error of bands.

    Args:
        logits: of the targets (B, F, classes).
        phones: logits of the phones (B, F, phones).
        bands: log-mel energies (B, F, mels).
        batch: what they should be.
    """
    masked, heard = batch.masked, ~batch.masked
    each = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view_as(masked)
    guided = F.cross_entropy(phones[heard], batch.phones[heard])
    error = F.mse_loss(bands[heard], batch.bands[heard])
    loss = each[masked].mean() + each[heard].mean() + guided + ACOUSTIC * error
    correct = logits.detach().argmax(-1) == batch.targets
    agree = phones.detach().argmax(-1) == batch.phones.argmax(-1)
    rates = {"masked": correct[masked], "unmasked": correct[heard], "phones": agree[heard]}
    percent = {name: 100 * value.double().mean().item() for name, value in rates.items()}
    return loss, percent | {"bands": error.item()}


def train(a: argparse.Namespace) -> None:
    """Train, saving the state every ``save_every`` updates and the encoder's weights at the end."""
    stream = open_stream(a.build, a.out)
    targets, guide = np.load(a.out / "targets.npy"), np.load(a.out / "phones.npy")
    frames = round(a.seconds * SAMPLE_RATE / STRIDE) - 1
    torch.manual_seed(a.seed)
    classes = int(targets.max()) + 1
    model = MaskedPrediction(CONFIG, classes, guide.shape[1], MELS)
    optimizer = torch.optim.AdamW(model.parameters(), a.lr, (0.9, 0.98), 1e-6, 0.01, fused=True)
    state, first = a.out / "state.pt", 0
    if state.exists():
        saved = load_weights_only(state)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["update"]
    elif a.init is not None:
        # a head that the other run did not have begins anew
        model.load_state_dict(load_weights_only(a.init)["model"], strict=False)
    began, sums = time.time(), dict.fromkeys(("loss", "norm", "masked", "unmasked", "phones", "bands"), 0.0)
    bar = tqdm(range(first, a.updates), initial=first, total=a.updates, mininterval=30)
    for update in bar:
        random = np.random.default_rng((a.seed, update))
        batch = Windows.draw(stream, targets, guide, a.batch, random, frames)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update, a)
        with torch.autocast("cpu", torch.bfloat16):
            logits, phones, bands = model(batch.waveforms, batch.masked)
        loss, rates = loss_of(logits, phones, bands, batch)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        if np.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        for name, value in {"loss": loss.item(), "norm": norm, **rates}.items():
            sums[name] += value / a.save_every
        bar.set_postfix(loss=f"{loss.item():.3f}", masked=f"{rates['masked']:.1f}", refresh=False)
        if (update + 1) % a.save_every == 0 or update + 1 in (a.decay_from, a.updates):
            _save(state, model, optimizer, update + 1)
            row = {"update": update + 1, "targets": classes, **sums, "seconds": time.time() - began}
            sums = dict.fromkeys(sums, 0.0)
            with (a.out / "log.jsonl").open("a", encoding="utf8") as log:
                log.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
            if update + 1 == a.decay_from:
                shutil.copyfile(state, a.out / "constant.pt")
    with replacing(a.out / "model.safetensors") as partial:
        save_file({k: v.contiguous() for k, v in model.encoder.state_dict().items()}, partial)


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, update: int) -> None:
    with replacing(path) as partial:
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "update": update}, partial
        )


def main(argv: list[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(description="Pre-train hubert_mini.")
    parser.add_argument("build", type=Path, help="folder of a FreeSUPERB build")
    parser.add_argument("out", type=Path, help="folder with the targets")
    parser.add_argument("--updates", type=int, default=12_000)
    parser.add_argument(
        "--decay-from", type=int, default=9_000, help="update at which the rate begins to fall"
    )
    parser.add_argument("--batch", type=int, default=16, help="windows per update")
    parser.add_argument("--seconds", type=float, default=3.5, help="length of a window")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--init", type=Path, help="state.pt of another run to start from")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
