"""Use a model as a frozen upstream of s3prl, and train a linear layer that tells two voices apart."""

from __future__ import annotations

import argparse
from pathlib import Path

import soundfile
import torch
from s3prl.nn import Featurizer, S3PRLUpstream

import s3prl_dphubert

SPEECH = Path(s3prl_dphubert.__file__).parent / "assets" / "speech" / "asterisk"
VOICES = ("asterisk_fr_june", "asterisk_it_carlo")
SECOND = 16_000


def read(voice: str, clips: int) -> torch.Tensor:
    """Return the first second of a voice's first long clips, (B, T)."""
    waveforms = (soundfile.read(path, dtype="float32")[0] for path in sorted((SPEECH / voice).glob("*.ogg")))
    long = [torch.from_numpy(waveform[:SECOND]) for waveform in waveforms if len(waveform) >= SECOND]
    return torch.stack(long[:clips])


def main() -> None:
    """Train on half of the clips and test on the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", default="dphubert_local", help="dphubert, dphubert_local …")
    parser.add_argument("--ckpt", default="hubert_mini", help="what s3prl's -k takes")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()

    s3prl_dphubert.register()  # happens by itself where .pth files of site-packages are read
    upstream = S3PRLUpstream(arguments.upstream, path_or_url=arguments.ckpt).eval()
    featurizer = Featurizer(upstream)  # learns a weighted sum of the layers
    head = torch.nn.Linear(featurizer.output_size, len(VOICES))
    optimizer = torch.optim.Adam([*featurizer.parameters(), *head.parameters()], lr=1e-2)

    waveforms = torch.cat([read(voice, 16) for voice in VOICES])
    labels = torch.arange(len(VOICES)).repeat_interleave(len(waveforms) // len(VOICES))
    with torch.no_grad():
        states, lengths = upstream(waveforms, torch.full((len(waveforms),), SECOND))
    for _ in range(arguments.steps):
        features, _ = featurizer(states, lengths)  # (B, F, D)
        logits = head(features.mean(dim=1))
        loss = torch.nn.functional.cross_entropy(logits[::2], labels[::2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy = (logits[1::2].argmax(dim=1) == labels[1::2]).float().mean()
    print(f"loss {loss.item():.3f}, accuracy on {len(labels) // 2} other clips {accuracy:.0%}")


if __name__ == "__main__":
    main()
