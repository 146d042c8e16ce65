"""Keeping a task's hidden states: whether it helps, how much it takes, and the options for it.

What ``superb run --cache-features DIR --cache-limit GB`` goes through, task by task::

    refusal(task.name, training=True)        # "" or why not, for the table
    estimate(task, config, model.config)     # Estimate: hours of audio and bytes, once the data is prepared
    options(DIR, "100GB")                    # what goes into the YAML after s3prl's -g

ASV's evaluation may be cached where its training may not: ``refusal("ASV", training=False)`` is empty,
and ``options(…, evaluation=True)`` lets it through. The upstream itself refuses what it can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.audio import SAMPLE_RATE
from ..model import ModelConfig
from ..upstream.cached import CROPPED
from .hours import Config, seconds
from .task import Task


@dataclass(frozen=True)
class Reuse:
    """Whether a task's waveforms come again.

    Args:
        training: in training, epoch after epoch.
        evaluation: from one evaluation to the next.
        why: what s3prl's data set does to them.
    """

    training: bool
    evaluation: bool
    why: str


_WHOLE = "whole files"
REUSE: dict[str, Reuse] = {
    "PR": Reuse(True, True, _WHOLE),
    "ASR": Reuse(True, True, f"{_WHOLE}; SpecAugment masks hidden states, not waveforms"),
    "KS": Reuse(
        True,
        True,
        "whole files but for silence, one in twelve in training, which is cut out of recordings of a minute "
        "at random; so an utterance is stored when it is met for the second time",
    ),
    "QbE": Reuse(True, True, f"{_WHOLE}; every layer that is tried evaluates the same"),
    "SID": Reuse(
        False, False, f"in training s3prl {CROPPED['voxceleb1']}; the test set is evaluated once only"
    ),
    "ASV": Reuse(
        False,
        True,
        f"in training s3prl {CROPPED['sv_voxceleb1']}; in evaluation, once for each checkpoint, come whole "
        "files with their silence cut out, always alike",
    ),
    "SD": Reuse(
        True, True, "chunks with fixed borders, other ones in the test set than in the development set"
    ),
    "ER": Reuse(True, True, f"{_WHOLE}; all folds share them"),
    "IC": Reuse(True, True, _WHOLE),
    "SF": Reuse(True, True, f"{_WHOLE}; SpecAugment masks hidden states, not waveforms"),
    "SE": Reuse(True, True, _WHOLE),
    "SS": Reuse(True, True, _WHOLE),
    "ST": Reuse(True, True, _WHOLE),
    "VC": Reuse(True, True, f"{_WHOLE}; the sources are shared by all target speakers"),
    "OOD-ASR": Reuse(True, True, _WHOLE),
}
"""What s3prl 0.4.18 does to the waveforms of each task, read in its data sets."""


def refusal(task: str, training: bool) -> str:
    """Why hidden states of a task are not kept, or nothing.

    Args:
        task: its name.
        training: whether it is trained; otherwise evaluated only.
    """
    reuse = REUSE[task]
    if reuse.training if training else reuse.evaluation:
        return ""
    return f"{task}: hidden states are not kept, since {reuse.why}"


def options(cache: str | Path, limit: str | int, evaluation: bool = False) -> dict[str, Any]:
    """Options of the upstream that keep hidden states.

    Args:
        cache: folder, shared by tasks, models and processes.
        limit: of that folder: bytes, or such as ``100GB``.
        evaluation: no training waveforms come, though the task may be one that crops them.
    """
    features = {"cache": str(Path(cache).expanduser().absolute()), "limit": limit}
    return {"padding": "exact", "features": features | ({"evaluation": True} if evaluation else {})}


def needed(seconds: float, layers: int, width: int, stride: int) -> int:
    """Bytes of hidden states in fp16: 13 of 768 at 50 a second take 1 MB a second of audio.

    Args:
        seconds: of audio.
        layers: hidden states, one more than the model has layers.
        width: of each.
        stride: samples at 16 kHz from one frame to the next.
    """
    return round(2 * layers * width * seconds * SAMPLE_RATE / stride)


@dataclass(frozen=True)
class Estimate:
    """How much audio a task has, and what its hidden states take: seconds, bytes.

    What tasks share is stored once, so that PR and ASR together take little more than either.
    """

    seconds: float
    bytes: int

    def text(self) -> str:
        """As for a table."""
        return f"{self.seconds / 3600:.2f} h of audio, {self.bytes / 1e9:.2f} GB"


def estimate(task: Task, config: Config, model: ModelConfig) -> Estimate:
    """What a task's hidden states would take.

    Args:
        task: the task.
        config: its configuration for s3prl with all places filled in; what has to be prepared, is.
        model: whose hidden states.

    Raises:
        DataError: the lists of files cannot be read, or a file has no header of audio.
    """
    length = seconds(task, config)
    return Estimate(length, needed(length, model.num_layers + 1, model.embed_dim, model.stride))
