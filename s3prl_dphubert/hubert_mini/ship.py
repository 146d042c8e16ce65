"""The checkpoint that ships, with its card, made from a pre-training run.

``python -m s3prl_dphubert.hubert_mini.ship BUILD RUN_DIR TARGET --probes PROBE.json …`` takes the records of
``s3prl-dphubert probe``.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..checkpoints.directory import save_model
from ..constants import SAMPLE_RATE
from ..data.manifest import Manifest
from ..free_superb.sources.recordings import SOURCES
from ..free_superb.voices import DEV, ROLES, TEST, TRAIN
from ..model import SpeechModel
from ..model.cost import macs, parameters
from ..probe.probe_record import ProbeRecord
from ..probe.probe_samples import PHONES
from ..utils import markdown
from ..utils.files import write_text
from .masked_prediction import CONFIG

LICENCE = """The weights of hubert_mini are offered under CC BY-SA 4.0
(https://creativecommons.org/licenses/by-sa/4.0/legalcode), as far as their authors hold rights
in them. They were trained on recordings of others; README.md lists every package with its
licence. No recording is part of the weights, and none of that speech but the demo clips is
redistributed with this package.
"""


def packages_table(manifest: Path) -> str:
    """Return a Markdown table of the hours heard, by package and licence."""
    seconds: dict[str, float] = defaultdict(float)
    for entry in Manifest.load(manifest).entries:
        seconds[Path(entry.path).parent.name] += entry.samples / SAMPLE_RATE
    rows = [
        [source.package, source.licence, f"{seconds[source.package] / 3600:.3f}"]
        for source in sorted(SOURCES, key=lambda source: source.package)
    ]
    rows.append(["all", "", f"{sum(seconds.values()) / 3600:.2f}"])
    return markdown.table(["Debian package", "licence", "hours"], rows)


def probe_table(records: Sequence[ProbeRecord]) -> str:
    """Return a Markdown table of the phone probe, by layer (0 for plain features) and model."""
    curves = [[layer[0] for layer in record.curves[PHONES]] for record in records]
    depth = max(map(len, curves))
    rows = [
        [str(layer), *(f"{curve[layer]:.2f} %" if layer < len(curve) else "" for curve in curves)]
        for layer in range(depth)
    ]
    return markdown.table(["layer", *(record.model for record in records)], rows)


def card(build: Path, run: Path, history: str, records: Sequence[ProbeRecord]) -> str:
    """Return the model card.

    Args:
        build: the FreeSUPERB build that was trained on.
        run: folder of the pre-training run.
        history: sentences on how the run was made, in Markdown.
        records: of the phone probe, of this model and of others beside it.
    """
    last = json.loads((run / "log.jsonl").read_text(encoding="utf8").splitlines()[-1])
    guide = json.loads((run / "phone_model.jsonl").read_text(encoding="utf8").splitlines()[-1])
    unheard = len(ROLES[DEV]) + len(ROLES[TEST])
    return f"""---
license: cc-by-sa-4.0
library_name: s3prl-dphubert
pipeline_tag: feature-extraction
tags: [speech, self-supervised, hubert]
---

# hubert_mini

HuBERT Base at a quarter of its width: 12 layers of width 192, 12 heads of 16, feed-forward 768, 7 conv
layers of 128 channels, a positional convolution over 128 frames in 16 groups; {parameters(CONFIG):,}
parameters, {macs(CONFIG, 160_000):,} MACs for 10 s, no dropout. Each part has the share of the parameters
that it has in HuBERT Base. It is a real teacher to try compression with, not a strong encoder.

Made by `python -m s3prl_dphubert.hubert_mini.phone_model`, `.targets`, `.pretrain` and `.ship`, on two CPU
cores:

1. **With labels.** A small recurrent model learnt the phones of the {len(ROLES[TRAIN])} training voices of
   FreeSUPERB from forced alignments ({guide["minutes"]:.0f} minutes of English). It recognises
   {guide["dev_accuracy"]:.1f} % of the frames of the validation voices. No validation or test voice of any
   task is among its labels.
2. **Targets.** Its hidden states on all speech below, in all languages, were clustered into
   {last["targets"]} targets (as in PBERT, Wang et al. 2022).
3. **Masked prediction** of these targets from the waveforms of the table below, as HuBERT does it, in
   bfloat16.
{textwrap.fill(history, 100, initial_indent="   ", subsequent_indent="   ")}
   At the end {last["masked"]:.1f} % of the targets of masked frames are predicted,
   {last["unmasked"]:.1f} % of those of other frames, and {last["phones"]:.1f} % of the latter's phones
   agree with the small model's.

## What it knows

Frame accuracy of a linear phone probe (39 phones and silence) on the {unheard} voices that neither the phone
model nor the pre-training heard (`s3prl-dphubert probe`). One actor may speak several voices.

{probe_table(records)}

## What it heard

The lines of the game's {unheard} validation and test voices and its cut scenes, whose speakers are not
named, were left out.

{packages_table(build / "unlabelled" / "train.tsv")}

None of this speech is redistributed beyond the demo clips in `assets/speech`.
"""


def main(argv: list[str] | None = None) -> int:
    """Write the checkpoint; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the hubert_mini checkpoint.")
    parser.add_argument("build", type=Path, help="folder of the FreeSUPERB build")
    parser.add_argument("run_dir", type=Path, help="folder of the pre-training run")
    parser.add_argument("target", type=Path, help="folder of the checkpoint")
    parser.add_argument(
        "--history", type=Path, help="file with sentences for the card on how the run was made"
    )
    parser.add_argument("--probes", type=Path, nargs="+", required=True, help="records of the phone probe")
    a = parser.parse_args(argv)
    model = SpeechModel(CONFIG)
    model.load_state_dict(load_file(a.run_dir / "model.safetensors"))
    history = "" if a.history is None else " ".join(a.history.read_text(encoding="utf8").split())
    records = [ProbeRecord.read(path) for path in a.probes]
    save_model(model.eval(), a.target, card(a.build, a.run_dir, history, records), torch.float16)
    write_text(a.target / "LICENSE", LICENCE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
