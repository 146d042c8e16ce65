"""Batches of speech as users feed them: alone and beside longer utterances, long and short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..constants import SAMPLE_RATE
from ..model import ModelConfig
from .backends import Feeds, feeds_of
from .window_statistics import window_statistics

PIECES, SECONDS = 4, 5  # speech to try places on: of one length, since runtimes compile for each shape
PADDED = ((2.0, 10.0), (0.7, 10.0), (0.2, 15.0))
"""Seconds of short utterances, and of the batches whose padding they are tried with."""

LENGTHS = (10.0, 6.0, 2.5, 1.0, 0.4, 0.1)
"""Seconds of the utterances of a mixed batch that the finished file is checked with."""


@dataclass(frozen=True)
class SpeechBatch:
    """Utterances that a model gets together.

    Args:
        waveforms: (B, T) at 16 kHz, zero after each utterance's end.
        lengths: (B,) valid samples, or ``None`` if nothing is padded.
    """

    waveforms: Tensor
    lengths: Tensor | None = None

    @property
    def seconds(self) -> float:
        """Seconds of audio, without padding."""
        samples = self.waveforms.numel() if self.lengths is None else int(self.lengths.sum())
        return samples / SAMPLE_RATE


def calibration_feeds(config: ModelConfig, speech: Sequence[Tensor]) -> list[Feeds]:
    """Return utterances (1, T) alone, and every fourth with padding of thrice its length."""
    feeds = [feeds_of(config, waveform.numpy()) for waveform in speech]
    return feeds + [_as_if_padded(config, x, 4 * x.shape[1]) for x in speech[::4]]


def trial_feeds(config: ModelConfig, speech: Sequence[Tensor]) -> list[Feeds]:
    """Return pieces of speech of one length, and short ones alone and as if they were padded."""
    joined = torch.cat(list(speech[:: max(1, len(speech) // (2 * PIECES))]), 1)
    samples = min(SECONDS * SAMPLE_RATE, joined.shape[1])
    count = min(PIECES, joined.shape[1] // samples)
    feeds = [feeds_of(config, joined[0, : count * samples].reshape(count, samples).numpy())]
    for index, (seconds, total) in enumerate(PADDED):
        samples = max(config.min_samples, min(int(seconds * SAMPLE_RATE), joined.shape[1]))
        start = (joined.shape[1] - samples) * index // len(PADDED)
        feeds.append(_as_if_padded(config, joined[:, start : start + samples], int(total * SAMPLE_RATE)))
    return feeds


def _as_if_padded(config: ModelConfig, waveform: Tensor, samples: int) -> Feeds:
    """Feed an utterance (1, T) with the statistics that it has in a batch of so many samples.

    Padding has no other effect on valid frames, and is not computed.
    """
    x = waveform.numpy()
    if config.extractor_mode != "group_norm":
        return feeds_of(config, x)
    return feeds_of(config, x, statistics=window_statistics(config, x[0], samples)[None])


def check_batches(config: ModelConfig, speech: Sequence[Tensor]) -> dict[str, list[SpeechBatch]]:
    """Return the batches that a finished file is checked with.

    Args:
        config: shape of the encoder.
        speech: utterances (1, T).

    Returns:
        ``alone``: the utterances; ``short``: their first 0.1 to 1 s; ``mixed``: padded batches of
        :data:`LENGTHS`, beginning at different utterances.
    """

    def cut(waveform: Tensor, seconds: float) -> Tensor:
        return waveform[:, : max(config.min_samples, int(seconds * SAMPLE_RATE))]

    short = [LENGTHS[-1 - index % 3] for index in range(len(speech))]
    joined = torch.cat([*speech, *speech], 1)
    starts = [joined.shape[1] // 2 * index // 3 for index in range(3)]
    mixed = [[cut(joined[:, start:], seconds) for seconds in LENGTHS] for start in starts]
    return {
        "alone": [SpeechBatch(waveform) for waveform in speech],
        "short": [SpeechBatch(cut(x, seconds)) for x, seconds in zip(speech, short, strict=True)],
        "mixed": [_padded(rows) for rows in mixed],
    }


def _padded(rows: Sequence[Tensor]) -> SpeechBatch:
    """Pad utterances (1, T) to the longest."""
    lengths = torch.tensor([row.shape[1] for row in rows])
    return SpeechBatch(pad_sequence([row[0] for row in rows], batch_first=True), lengths)
