"""The checkpoint that ships, with its card, made from a pre-training run.

``python -m s3prl_dphubert.hubert_mini.ship SPEECH_DIR RUN_DIR TARGET [--probe probe.json]``
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..checkpoints.directory import save_model
from ..checkpoints.dphubert_pth import split_state
from ..model import ModelConfig, SpeechModel
from ..model.cost import macs, parameters
from ..model.model_config import dense_heads
from ..utils import markdown
from .pretrain import ARCHITECTURE
from .speech import HELD_OUT

LICENCE = """The weights of hubert_nano are offered under CC BY-SA 4.0
(https://creativecommons.org/licenses/by-sa/4.0/legalcode), as far as their authors hold rights
in them. They were trained on recordings of others; README.md lists every package with its
licence. No recording is part of the weights, and none of that speech but the demo clips is
redistributed with this package.
"""


def nano_config() -> ModelConfig:
    """Return the configuration of ``hubert_nano``, without dropout, as a student needs it."""
    channels, kernels, strides = zip(*ARCHITECTURE["extractor_conv_layer_config"], strict=True)
    layers, heads = ARCHITECTURE["encoder_num_layers"], ARCHITECTURE["encoder_num_heads"]
    return ModelConfig(
        conv_channels=channels,
        conv_kernels=kernels,
        conv_strides=strides,
        embed_dim=ARCHITECTURE["encoder_embed_dim"],
        total_heads=heads,
        head_dim=ARCHITECTURE["encoder_embed_dim"] // heads,
        heads=dense_heads(layers, heads),
        ffn=(ARCHITECTURE["encoder_ff_interm_features"],) * layers,
        projection_dropout=0.0,
        attention_dropout=0.0,
        dropout=0.0,
    )


def nano_model(weights: Path) -> SpeechModel:
    """Load weights that :mod:`.pretrain` wrote, under torchaudio's names."""
    config = nano_config()
    state, _ = split_state(load_file(weights))
    state["feature_extractor.dummy_weight"] = torch.ones(config.conv_channels[-1])
    model = SpeechModel(config)
    model.load_state_dict(state)
    return model.eval()


def packages_table(speech: Path) -> str:
    """Return a Markdown table of the hours trained on and held out, by package and licence."""
    hours: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    with (speech / "speech.tsv").open(encoding="utf8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            held_out = bool(HELD_OUT.match(row["path"]))
            hours[row["package"], row["licence"]][held_out] += float(row["seconds"]) / 3600
    rows = [
        [package, licence, f"{trained:.3f}", f"{unseen:.3f}"]
        for (package, licence), (trained, unseen) in sorted(hours.items())
    ]
    trained, unseen = (sum(column) for column in zip(*hours.values(), strict=True))
    rows.append(["all", "", f"{trained:.2f}", f"{unseen:.2f}"])
    return markdown.table(["Debian package", "licence", "hours trained on", "hours held out"], rows)


def probe_table(probe: dict[str, Any]) -> str:
    """Return a Markdown table of the accuracies of the probe."""
    rows = ([name, f"{value} %", f"{probe['random'][name]} %"] for name, value in probe["trained"].items())
    return markdown.table(["features", "trained", "random weights"], rows)


def card(speech: Path, run: Path, probe: dict[str, Any] | None) -> str:
    """Return the model card.

    Args:
        speech: folder of the speech.
        run: folder of the pre-training run.
        probe: result of :mod:`.probe`, if there is one.
    """
    config = nano_config()
    last = json.loads((run / "log.jsonl").read_text(encoding="utf8").splitlines()[-1])
    probed = ""
    if probe is not None:
        probed = f"""
## What it knows

Frame accuracy of a linear phone probe (39 phones and silence), trained on {probe["train_clips"]} clips and
tested on {probe["held_out_clips"]} clips of four voices that neither the probe nor the pre-training heard
(the same actors may be heard in other roles or in cut-scenes):

{probe_table(probe)}

Both columns' first row is the same MFCC+deltas baseline. The phones come from forced alignment.

The aim was 5 points above MFCC+deltas; the best layer reaches 3.46. A third iteration was made and is not
shipped: from these weights, 500 clusters of their layer 1, 6,000 updates of 8 windows of 3.5 s (47 hours),
masked accuracy 26.4 % (chance: 0.2 %). It brought nothing: layers 0 to 6 reach 30.30, 35.68, 34.64, 34.57,
34.18, 33.40 and 33.13 %. More updates of this kind do not help; the model's size and its 17 hours of speech
are the likely limit.
"""
    return f"""---
license: cc-by-sa-4.0
tags: [speech, self-supervised, hubert]
---

# hubert_nano

A HuBERT small enough to ship: {parameters(config):,} parameters, {macs(config, 160_000):,} MACs for 10 s.
7 conv layers of 128 channels, 6 layers of width 192, 6 heads of 32, feed-forward 768, no dropout.
It is a real self-supervised teacher to try compression with, not a strong encoder: in its second
iteration it heard {last["update"] * 28 / 3600:.0f} hours of windows from 17 hours of speech.

Made by `python -m s3prl_dphubert.hubert_mini.speech`, `.pretrain`, `.probe` and `.ship`, in bfloat16 on two
CPU cores. First iteration: masked prediction of 100 k-means clusters of MFCC+deltas, 1,800 updates of
16 windows of 3.5 s (its learning rate was planned for 2,200 updates and replanned for 1,800 at update
1,200). Second iteration, from those weights: 200 clusters of that model's own layer 1,
{last["update"]:,} updates of 8 windows of 3.5 s, learning rate 7e-4, constant and then linear to 0 over
the last 30 %. Masked frames of the held-out voices were predicted with
{last["held_out_accuracy"]:.1f} % accuracy (chance: 0.5 %).
{probed}
## What it heard

{packages_table(speech)}

None of this speech is redistributed beyond the demo clips in `assets/speech`.
"""


def main(argv: list[str] | None = None) -> int:
    """Write the checkpoint; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the hubert_nano checkpoint.")
    parser.add_argument("speech_dir", type=Path)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--probe", type=Path)
    a = parser.parse_args(argv)
    probe = None if a.probe is None else json.loads(a.probe.read_text(encoding="utf8"))
    model = nano_model(a.run_dir / "model.safetensors")
    save_model(model, a.target, card(a.speech_dir, a.run_dir, probe), torch.float16)
    (a.target / "LICENSE").write_text(LICENCE, encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
