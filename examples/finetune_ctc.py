"""Fine-tune a model with CTC, in plain torch or with transformers' Trainer.

The default is 58 recordings that ship: digits, days and months in Italian by two speakers, spelt in letters.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import tempfile
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import s3prl_dphubert
from s3prl_dphubert import load_model, save_model

SPEECH = Path(s3prl_dphubert.__file__).parent / "assets" / "speech" / "manifest.tsv"
LAYER = re.compile(r"transformer\.layers\.(\d+)\.")  # in the names of parameters
SYMBOLS = "-abcdefghijklmnopqrstuvwxyz '"  # the first is CTC's blank
Utterance = tuple[Tensor, Tensor]  # waveform (T,) at 16 kHz, ids of its symbols (N,)
Batch = dict[str, Tensor]
Collate = Callable[[list[Utterance]], Batch]


def read(manifest: Path, language: str, seconds: float) -> tuple[list[Utterance], list[Utterance]]:
    """Read a table with the columns path, lang and transcript; every sixth utterance is kept for the test."""
    with manifest.open(encoding="utf8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["lang"].startswith(language)]
    utterances = []
    for row in rows:
        samples, _ = soundfile.read(manifest.parent / row["path"], dtype="float32")
        letters = unicodedata.normalize("NFD", row["transcript"].lower())  # without their accents
        text = re.sub("[^a-z ']", "", letters)
        if text and len(samples) < seconds * 16_000:
            ids = torch.tensor([SYMBOLS.index(symbol) for symbol in text])
            utterances.append((torch.from_numpy(samples), ids))
    train = [utterance for index, utterance in enumerate(utterances) if index % 6]
    return sorted(train, key=lambda utterance: len(utterance[0])), utterances[::6]


def batch(utterances: list[Utterance], extractor: Callable[..., dict[str, Tensor]] | None = None) -> Batch:
    """Pad waveforms with 0, and labels with -100; the mask tells samples from padding.

    An extractor of transformers also normalises waveforms, for models that do not do so themselves.
    """
    waves, labels = zip(*utterances, strict=True)
    targets = pad_sequence(labels, batch_first=True, padding_value=-100)
    if extractor is not None:
        arrays = [wave.numpy() for wave in waves]
        inputs = extractor(arrays, sampling_rate=16_000, padding=True, return_tensors="pt")
        return {**inputs, "labels": targets}
    mask = pad_sequence([torch.ones(len(wave), dtype=torch.long) for wave in waves], batch_first=True)
    return {"input_values": pad_sequence(waves, batch_first=True), "attention_mask": mask, "labels": targets}


def spec_augment(projection: nn.Module, inputs: object, x: Tensor) -> Tensor:
    """Set a span of frames and one of dimensions of x (B, F, D) to 0 (SpecAugment, Park et al. 2019)."""
    if not projection.training:
        return x
    mask = torch.ones_like(x)
    for utterance in mask:
        for dimension, longest in ((0, 5), (1, 20)):  # for recordings of half a second
            length = random.randint(0, min(longest, utterance.shape[dimension]))
            start = random.randint(0, utterance.shape[dimension] - length)
            utterance.narrow(dimension, start, length).zero_()
    return x * mask


class Recognizer(nn.Module):
    """The encoder and a linear map to the symbols; inputs and outputs as of transformers' CTC models."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.encoder = load_model(source)
        self.encoder.encoder.feature_projection.register_forward_hook(spec_augment)
        self.head = nn.Linear(self.encoder.config.embed_dim, len(SYMBOLS))

    def forward(self, input_values: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the logits (B, F, symbols)."""
        hidden, frames = self.encoder(input_values, attention_mask.sum(-1))
        logits = self.head(hidden[-1])
        scores = logits.log_softmax(-1).transpose(0, 1)
        is_label = labels >= 0
        loss = F.ctc_loss(scores, labels[is_label], frames, is_label.sum(-1), zero_infinity=True)
        return {"loss": loss, "logits": logits}


def parameter_groups(model: nn.Module, rate: float, decay: float = 0.9) -> list[dict[str, object]]:
    """Freeze the conv layers, and give each layer ``decay`` times the learning rate of what is above it."""
    layers = 1 + max(int(match[1]) for name, _ in model.named_parameters() if (match := LAYER.search(name)))
    groups = []
    for name, parameter in model.named_parameters():
        if "feature_extractor." in name:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            match = LAYER.search(name)
            depth = layers + 1 if "head" in name else int(match[1]) + 1 if match else 0
            groups.append({"params": [parameter], "lr": rate * decay ** (layers + 1 - depth)})
    return groups


@torch.no_grad()
def error_rate(model: nn.Module, utterances: list[Utterance], collate: Collate) -> float:
    """Return the characters that are wrong, missing or too many, as a share of those that were said."""
    model.eval()
    errors = total = 0
    for wave, labels in utterances:
        best = model(**collate([(wave, labels)]))["logits"][0].argmax(-1)
        spelt = [symbol for symbol in best.unique_consecutive().tolist() if symbol]
        errors, total = errors + distance(spelt, labels.tolist()), total + len(labels)
    return errors / total


def distance(a: list[int], b: list[int]) -> int:
    """Return the edit distance of two sequences (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def schedule(optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Raise the rates for a tenth of the updates, then lower them to 0."""
    warmup = max(1, updates // 10)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (updates - step) / max(1, updates - warmup))
    )


def train_in_torch(model: nn.Module, groups: list[list[Utterance]], arguments: argparse.Namespace) -> None:
    """Train with a loop of our own."""
    optimizer = torch.optim.AdamW(parameter_groups(model, arguments.rate))
    rates = schedule(optimizer, arguments.updates)
    for update in range(arguments.updates):
        loss = model.train()(**batch(random.choice(groups)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        if update % 20 == 0:
            print(f"update {update}: loss {loss:.3f}")


def from_transformers(source: str, folder: Path) -> tuple[nn.Module, Collate]:
    """Return AutoModelForCTC and its collate function; the code is what save_model writes."""
    from transformers import AutoFeatureExtractor, AutoModelForCTC

    save_model(load_model(source), folder / "model")
    extractor = AutoFeatureExtractor.from_pretrained(folder / "model", trust_remote_code=True)
    model = AutoModelForCTC.from_pretrained(
        folder / "model",
        trust_remote_code=True,
        vocab_size=len(SYMBOLS),
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        mask_time_prob=0.05,
        mask_time_length=5,
        mask_feature_prob=0.05,
    )
    model.lm_head.reset_parameters()  # as torch's layers begin; smaller weights stay longer at blanks alone
    return model, partial(batch, extractor=extractor)


def train_with_trainer(
    model: nn.Module,
    collate: Collate,
    groups: list[list[Utterance]],
    arguments: argparse.Namespace,
    folder: Path,
) -> None:
    """Train with transformers' Trainer."""
    from transformers import Trainer, TrainingArguments

    options = TrainingArguments(
        str(folder / "trainer"),
        max_steps=arguments.updates,
        per_device_train_batch_size=1,  # of the groups
        remove_unused_columns=False,
        logging_steps=20,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, arguments.rate))
    optimizers = optimizer, schedule(optimizer, arguments.updates)
    Trainer(
        model,
        options,
        data_collator=lambda rows: collate(rows[0]),
        train_dataset=groups,
        optimizers=optimizers,
    ).train()


def main() -> None:
    """Train, and print the character error rate of speech that was kept apart, before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hubert_mini", help="name, directory, file or Hub id")
    parser.add_argument("--manifest", type=Path, default=SPEECH, help="table with path, lang and transcript")
    parser.add_argument("--language", default="it", help="beginning of lang (default it)")
    parser.add_argument("--seconds", type=float, default=2.0, help="leave out what is longer (default 2)")
    parser.add_argument("--updates", type=int, default=120)
    parser.add_argument("--batch", type=int, default=8, help="utterances of an update (default 8)")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the head (default 1e-3)")
    parser.add_argument("--transformers", action="store_true", help="train with transformers' Trainer")
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    train, test = read(arguments.manifest, arguments.language, arguments.seconds)
    # Utterances of about the same length: GroupNorm's statistics depend on the padding.
    groups = [train[first : first + arguments.batch] for first in range(len(train) - arguments.batch + 1)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.transformers:
            model, collate = from_transformers(arguments.model, folder)
        else:
            model, collate = Recognizer(arguments.model), batch
        before = error_rate(model, test, collate)
        if arguments.transformers:
            train_with_trainer(model, collate, groups, arguments, folder)
        else:
            train_in_torch(model, groups, arguments)
    after = error_rate(model, test, collate)
    print(f"character error rate: {before:.1%} before, {after:.1%} after")


if __name__ == "__main__":
    main()
