"""Policy of caching a task's hidden states: whether it helps, its size on disk, and the options for it.

What ``superb run --cache-features DIR --cache-limit GB`` goes through, task by task::

    refusal(task, training=True)             # "" or why not, for the table
    estimate(task, config, model.config)     # hours of audio and bytes, once the data is prepared
    options(DIR, "100GB")                    # what goes into the YAML after s3prl's -g

ASV's evaluation may be cached where its training may not: ``refusal(asv, training=False)`` is empty,
and ``options(…, evaluation=True)`` lets it through. The upstream itself refuses what it can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...constants import SAMPLE_RATE
from ...model import ModelConfig
from ..tasks.spec import SuperbTask
from .corpus import Config, seconds


def refusal(task: SuperbTask, training: bool) -> str:
    """Return why hidden states of a task are not kept; empty if they are.

    Args:
        task: the task.
        training: whether it is trained; otherwise evaluated only.
    """
    if task.reuse.training if training else task.reuse.evaluation:
        return ""
    return f"{task.name}: hidden states are not kept, since {task.reuse.reason}"


def options(cache: str | Path, limit: str | int, evaluation: bool = False) -> dict[str, Any]:
    """Return the options of an upstream that caches hidden states.

    Args:
        cache: folder, shared by tasks, models and processes.
        limit: of that folder: bytes, or such as ``100GB``.
        evaluation: no training waveforms come, though the task may be one that crops them.
    """
    features = {"cache": str(Path(cache).expanduser().absolute()), "limit": limit}
    return {"padding": "exact", "features": features | ({"evaluation": True} if evaluation else {})}


def needed(seconds: float, layers: int, width: int, stride: int) -> int:
    """Return the bytes of hidden states in fp16: 13 of 768 at 50 a second take 1 MB a second of audio.

    Args:
        seconds: of audio.
        layers: hidden states, one more than the model has layers.
        width: of each.
        stride: samples at 16 kHz from one frame to the next.
    """
    return round(2 * layers * width * seconds * SAMPLE_RATE / stride)


@dataclass(frozen=True)
class CacheEstimate:
    """Duration of a task's audio in seconds, and size of its hidden states in bytes.

    What tasks share is stored once, so that PR and ASR together take little more than either.
    """

    seconds: float
    bytes: int

    def text(self) -> str:
        """Format the estimate for a table."""
        return f"{self.seconds / 3600:.2f} h of audio, {self.bytes / 1e9:.2f} GB"


def estimate(task: SuperbTask, config: Config, model: ModelConfig) -> CacheEstimate:
    """Estimate the size of a task's hidden states.

    Args:
        task: the task.
        config: its configuration for s3prl with all places filled in; what has to be prepared, is.
        model: whose hidden states.

    Raises:
        DataError: the lists of files cannot be read, or a file has no header of audio.
    """
    length = seconds(task, config)
    return CacheEstimate(length, needed(length, model.num_layers + 1, model.embed_dim, model.stride))
