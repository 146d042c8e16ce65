"""Division of a padded batch into parts of similar utterances, each with as little padding as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..model import ModelConfig
from ..model.inference.folded import SPILL

STEP = 16  # frames are rounded up to multiples of it: runtimes prepare themselves for each new shape
FEW = 256  # frames of a part up to which any utterances go together, to keep the processor busy
ALIKE = 0.9  # least ratio of the shortest to the longest utterance of a larger part


@dataclass(frozen=True)
class BatchPart:
    """Utterances of a batch that are computed together.

    Args:
        rows: indices of the utterances in the batch.
        kept: number of frames of each that go to the result.
        samples: number of samples of each waveform that are computed.
    """

    rows: tuple[int, ...]
    kept: tuple[int, ...]
    samples: int


def divide(
    config: ModelConfig, samples: int, valid: Sequence[int], streams: int, most: int
) -> list[BatchPart]:
    """Divide a batch into parts, the longest first.

    Args:
        config: shape of the encoder.
        samples: length T of the padded batch at 16 kHz.
        valid: frames of each utterance that are no padding.
        streams: number of parts that run at the same time.
        most: maximum number of frames of a part, unless one utterance alone has more.
    """
    frames = config.frames(samples)
    needed = [needed_frames(config, frames, count) for count in valid]
    max_rows = math.ceil(len(valid) / streams)
    groups: list[list[int]] = []
    for row in sorted(range(len(valid)), key=lambda row: -valid[row]):
        if groups and len(groups[-1]) < max_rows and _fits(groups[-1], row, needed, most):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [
        BatchPart(
            tuple(rows),
            tuple(valid[row] and min(valid[row] + SPILL, frames) for row in rows),
            _samples(config, needed[rows[0]], samples),
        )
        for rows in groups
    ]


def needed_frames(config: ModelConfig, frames: int, valid: int) -> int:
    """Return the frames to compute of an utterance with its padding (``frames``) and without (``valid``)."""
    return min(frames, math.ceil((valid + SPILL + config.pos_conv_reach) / STEP) * STEP)


def _fits(rows: list[int], row: int, needed: list[int], most: int) -> bool:
    """Return whether an utterance may join the part that begins with longer ones."""
    longest = needed[rows[0]]
    total = (len(rows) + 1) * longest
    return total <= FEW or (total <= most and needed[row] >= ALIKE * longest)


def _samples(config: ModelConfig, frames: int, samples: int) -> int:
    """Return the samples that so many frames need, all ``samples`` of the batch for all of its frames."""
    if frames == config.frames(samples):
        return samples
    return config.min_samples + (frames - 1) * config.stride
