"""Load a model and compute the hidden states of audio files."""

from __future__ import annotations

import argparse
from pathlib import Path

import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

import s3prl_dphubert
from s3prl_dphubert import fold, load_model

SPEECH = Path(s3prl_dphubert.__file__).parent / "assets" / "speech" / "asterisk" / "asterisk_en_allison"


def main() -> None:
    """Print the shape and size of each layer's output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", nargs="*", type=Path, help="16 kHz mono files (default: speech that ships)")
    parser.add_argument("--model", default="hubert_mini", help="name, directory, file or Hub id")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    arguments = parser.parse_args()

    waveforms = []
    for path in arguments.audio or sorted(SPEECH.glob("*.ogg"))[:3]:
        samples, rate = soundfile.read(path, dtype="float32")
        if rate != 16_000 or samples.ndim != 1:
            parser.error(f"{path}: {rate} Hz, {samples.ndim} dimensions; expected 16 kHz mono")
        waveforms.append(torch.from_numpy(samples))
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    batch = pad_sequence(waveforms, batch_first=True)  # (B, T)

    model = fold(load_model(arguments.model), arguments.precision)
    hidden, frames = model.extract_features(batch, lengths)
    print(f"frames of each utterance: {frames.tolist()}")
    for layer, state in enumerate(hidden):
        print(f"layer {layer}: {tuple(state.shape)}, mean absolute value {state.abs().mean():.3f}")


if __name__ == "__main__":
    main()
