"""A batch in parts of like utterances, each without the padding that it can do without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..model import ModelConfig
from ..model.inference.folded import SPILL

STEP = 16  # frames that a part has a multiple of: runtimes prepare themselves for each new shape
FEW = 256  # frames of a part that are too few to keep a processor busy
ALIKE = 0.9  # frames of a part's shortest utterance over those of its longest, above that


@dataclass(frozen=True)
class Part:
    """Some utterances of a batch.

    Args:
        rows: their places in the batch.
        kept: frames of each that are wanted.
        samples: how far their waveforms are computed.
    """

    rows: tuple[int, ...]
    kept: tuple[int, ...]
    samples: int


def divide(config: ModelConfig, samples: int, valid: Sequence[int], streams: int, most: int) -> list[Part]:
    """The parts of a batch, the longest first.

    Args:
        config: the encoder's shape.
        samples: T, of the padded batch.
        valid: frames of each utterance that are no padding.
        streams: parts that are computed at a time.
        most: frames of a part, unless one utterance has more.
    """
    frames = config.frames(samples)
    more = SPILL + config.pos_conv_reach
    needed = [min(frames, math.ceil((count + more) / STEP) * STEP) for count in valid]
    rows_at_most = math.ceil(len(valid) / streams)
    groups: list[list[int]] = []
    for row in sorted(range(len(valid)), key=lambda row: -valid[row]):
        if groups and len(groups[-1]) < rows_at_most and _fits(groups[-1], row, needed, most):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [
        Part(
            tuple(rows),
            tuple(valid[row] and min(valid[row] + SPILL, frames) for row in rows),
            _samples(config, needed[rows[0]], samples),
        )
        for rows in groups
    ]


def _fits(rows: list[int], row: int, needed: list[int], most: int) -> bool:
    longest = needed[rows[0]]
    total = (len(rows) + 1) * longest
    return total <= FEW or (total <= most and needed[row] >= ALIKE * longest)


def _samples(config: ModelConfig, frames: int, samples: int) -> int:
    if frames == config.frames(samples):
        return samples
    return config.min_samples + (frames - 1) * config.stride
