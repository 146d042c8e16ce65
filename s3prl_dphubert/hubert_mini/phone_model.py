"""Phone recognition of frames, learnt with labels on the training voices, as a guide for pre-training.

``python -m s3prl_dphubert.hubert_mini.phone_model BUILD OUT_DIR`` trains on the aligned speech of the
training voices of a FreeSUPERB build (``free-superb --unlabelled``), never on a validation or test voice,
and writes ``phone_model.pt`` and ``phone_model.jsonl``. The hidden states of this model give the targets of
masked prediction, as in PBERT (Wang et al. 2022, "Supervision-Guided Codebooks for Masked Prediction in
Speech Pre-training"). An interrupted training continues from its last epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..free_superb.build import TABLES
from ..free_superb.clips import read_clips
from ..free_superb.utterance import Utterance, load
from ..free_superb.voices import DEV, TRAIN
from ..model.state_dict import load_weights_only
from ..probe.aligned_corpus import segments_at
from ..utils.files import replacing

PHONES = (
    *("SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH"),
    *("IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW"),
    *("V", "W", "Y", "Z", "ZH"),
)
"""The phones of the CMU dictionary and silence, by class."""

MELS, WIDTH, SCALE = 64, 192, 4.0
SHORTEST = 0.2  # seconds of a clip
DOMINANT, REPEATS = "joe", 2
"""One voice has two thirds of the speech; the clips of all others are repeated in each epoch."""


class PhoneModel(nn.Module):
    """Two convolutions, two bidirectional GRUs and a linear map: log-mel frames to phones every 20 ms."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Conv1d(MELS, WIDTH, 5, padding=2)
        self.second = nn.Conv1d(WIDTH, WIDTH, 5, stride=2, padding=2)
        self.norm = nn.LayerNorm(WIDTH)
        self.lower = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.upper = nn.GRU(2 * WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * WIDTH, len(PHONES))

    def hidden(self, x: Tensor) -> Tensor:
        """Compute the output of the upper GRU, x (B, 2F, mels) -> (B, F, 2 × width)."""
        x = F.relu(self.second(F.relu(self.first(x.transpose(1, 2)))))
        x, _ = self.lower(self.dropout(self.norm(x.transpose(1, 2))))
        x, _ = self.upper(self.dropout(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits, x (B, 2F, mels) -> (B, F, phones)."""
        return self.output(self.dropout(self.hidden(x)))


def log_mel(waveform: Tensor) -> Tensor:
    """Return log-mel energies with zero mean over the clip, (T,) -> (frames of 10 ms, mels)."""
    bands = energies(waveform)
    return bands - bands.mean(0)


def energies(waveform: Tensor) -> Tensor:
    """Return log-mel energies, (T,) -> (frames of 10 ms, mels)."""
    bands = torchaudio.compliance.kaldi.fbank(
        waveform[None] * 32768,
        num_mel_bins=MELS,
        sample_frequency=SAMPLE_RATE,
        dither=0.0,
        low_freq=60.0,
        high_freq=7600.0,
    )
    return bands / SCALE


@dataclass(frozen=True)
class Example:
    """Log-mel frames (2F, mels) and phone classes (F,) of a clip, -1 outside the alignment."""

    bands: Tensor
    phones: Tensor
    voice: str


def example(utterance: Utterance) -> Example:
    """Read an aligned clip; the frames are those of HuBERT, every 20 ms, with centres from 12.5 ms on."""
    bands = log_mel(torch.from_numpy(read(utterance.path)))
    centres = 0.0125 + 0.02 * np.arange((len(bands) + 1) // 2)
    classes = [PHONES.index(phone.text) if phone.text in PHONES else 0 for phone in utterance.phones]
    phones = torch.tensor([*classes, -1])[torch.from_numpy(segments_at(utterance.phones, centres))]
    return Example(bands, phones, utterance.clip.voice)


def augmented(bands: Tensor, random: np.random.Generator) -> Tensor:
    """Change speaker and channel: warp the frequencies, tilt the spectrum, mask two bands and two spans."""
    position = torch.arange(MELS) * float(np.exp(random.uniform(-0.18, 0.18)))
    low = position.floor().clamp(0, MELS - 1).long()
    share = (position - low).clamp(0, 1)
    bands = bands[:, low] * (1 - share) + bands[:, (low + 1).clamp(max=MELS - 1)] * share
    tilt = np.interp(np.arange(MELS), np.linspace(0, MELS - 1, 5), random.normal(0, 0.25, 5))
    bands = bands * random.uniform(0.8, 1.2) + torch.from_numpy(tilt).float()
    for _ in range(2):
        width, span = int(random.integers(1, 12)), int(random.integers(1, 16))
        start = random.integers(0, MELS - width)
        bands[:, start : start + width] = 0
        start = random.integers(0, max(1, len(bands) - span))
        bands[start : start + span] = 0
    return bands


def collate(examples: list[Example], random: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Pad to (B, 2F, mels) and (B, F); augments if there is a random generator."""
    frames = max(len(each.phones) for each in examples)
    bands, phones = torch.zeros(len(examples), 2 * frames, MELS), torch.full((len(examples), frames), -1)
    for row, each in enumerate(examples):
        values = each.bands if random is None else augmented(each.bands, random)
        bands[row, : len(values)] = values
        phones[row, : len(each.phones)] = each.phones
    return bands, phones


def epoch(examples: list[Example], batch: int, random: np.random.Generator) -> Iterator[list[Example]]:
    """Yield batches of clips of similar length in random order; rare voices come :data:`REPEATS` times."""
    pool = [each for each in examples for _ in range(1 if each.voice == DOMINANT else REPEATS)]
    pool = [pool[i] for i in random.permutation(len(pool))]
    batches = []
    for start in range(0, len(pool), 20 * batch):
        chunk = sorted(pool[start : start + 20 * batch], key=lambda each: len(each.phones))
        batches += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    for i in random.permutation(len(batches)):
        yield batches[i]


@torch.no_grad()
def accuracy(model: PhoneModel, examples: list[Example]) -> float:
    """Return the frame accuracy in percent."""
    model.eval()
    correct = total = 0
    ordered = sorted(examples, key=lambda each: len(each.phones))
    for start in range(0, len(ordered), 32):
        bands, phones = collate(ordered[start : start + 32])
        aligned = phones >= 0
        correct += int((model(bands).argmax(-1) == phones)[aligned].sum())
        total += int(aligned.sum())
    model.train()
    return 100 * correct / total


def train(arguments: argparse.Namespace) -> None:
    """Train with one cycle of the learning rate, saving after each epoch."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    corpus: Path = arguments.build / "corpus"
    utterances = load(read_clips(corpus / "clips.tsv"), corpus, arguments.tables).utterances
    aligned = [each for each in utterances if each.phones and each.clip.seconds >= SHORTEST]
    examples = {
        split: [example(each) for each in tqdm(aligned, split) if each.split == split]
        for split in (TRAIN, DEV)
    }
    torch.manual_seed(arguments.seed)
    model = PhoneModel()
    steps = sum(1 for _ in epoch(examples[TRAIN], arguments.batch, np.random.default_rng(0)))
    optimizer = torch.optim.AdamW(model.parameters(), arguments.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.lr, arguments.epochs * steps, pct_start=0.2
    )
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    state, first = out / "phone_model.pt", 0
    if state.exists():
        saved = load_weights_only(state)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first = saved["epoch"]
    for number in range(first, arguments.epochs):
        random = np.random.default_rng((arguments.seed, number))
        torch.manual_seed(arguments.seed * 1009 + number)
        losses = []
        for clips in tqdm(epoch(examples[TRAIN], arguments.batch, random), f"epoch {number + 1}", steps):
            bands, phones = collate(clips, random)
            loss = F.cross_entropy(
                model(bands).flatten(0, 1), phones.flatten(), ignore_index=-1, label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        row = {
            "epoch": number + 1,
            "minutes": sum(len(each.phones) for each in examples[TRAIN]) / 3000,
            "loss": float(np.mean(losses)),
            "dev_accuracy": accuracy(model, examples[DEV]),
        }
        with replacing(state) as partial:
            torch.save(
                {name: part.state_dict() for name, part in parts.items()} | {"epoch": number + 1}, partial
            )
        with (out / "phone_model.jsonl").open("a", encoding="utf8") as log:
            log.write(json.dumps(row) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train the phone model that guides pre-training.")
    parser.add_argument("build", type=Path, help="folder of a FreeSUPERB build")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the alignments")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=24, help="clips per update")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
