"""Cache of a teacher's hidden states of fixed crops, on disk, for all epochs and both stages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.feature_store import Block, FeatureStore
from ..utils.device_copies import start_copy, start_copy_back

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


class TargetCache:
    """Targets by utterance, in float16, mapped into memory.

    Computed targets are rounded like cached ones, so that a run does not depend on what the cache holds.

    Args:
        folder: directory of the cache, within that of the run, which has one teacher and fixed crops.
        layers: matched layers.
        width: width D of the teacher.
        gigabytes: disk space that the cache may take; targets that do not fit are computed each time.
        device: device of the targets.
    """

    def __init__(
        self,
        folder: Path,
        layers: Sequence[int],
        width: int,
        gigabytes: float,
        device: torch.device = CPU,
    ) -> None:
        self.device = device
        self.folder, self.layers, self.width = folder, list(layers), width
        self.limit = round(gigabytes * 1e9)
        self.stores: dict[str, FeatureStore] = {}
        self.hits = self.misses = 0  # utterances
        self._warned = False
        self._copied: Callable[[], None] | None = None  # stores what a GPU has computed for the last batch

    def get(
        self, keys: Sequence[bytes], precision: str, compute: Callable[[], Sequence[Tensor]]
    ) -> Mapping[int, Tensor]:
        """Return the targets of a batch.

        A GPU is not waited for: targets go there from pinned memory in float16, and those that it computes
        are stored while it works on the next batch.

        Args:
            keys: keys of its utterances, 16 bytes each.
            precision: precision of the teacher.
            compute: returns all hidden states of the teacher, each (B, F, D).

        Returns:
            Matched layer -> (B, F, D) float32.
        """
        self.flush()
        store = self._store(precision)
        places = store.find(keys)
        pairs = zip(keys, places, strict=True)
        blocks = [None if place is None else store.read(key, place) for key, place in pairs]
        if all(block is not None for block in blocks):
            self.hits += len(keys)
            layers = [
                _stack([block[place] for block in blocks if block is not None], 0)
                for place in range(len(self.layers))
            ]
            return {
                layer: start_copy(states, self.device).float()
                for layer, states in zip(self.layers, layers, strict=True)
            }
        began = time.monotonic()
        states = compute()
        rounded = [states[layer].half() for layer in self.layers]
        seconds = (time.monotonic() - began) / len(keys)
        self.misses += len(keys)
        by_utterance, copied = start_copy_back(_stack(rounded, 1))  # (B, layers, F, D)
        missing = [i for i, block in enumerate(blocks) if block is None]

        def append() -> None:
            copied()
            store.append(
                Block(keys[i], by_utterance[i], seconds)
                for i in missing
                if bool(by_utterance[i].isfinite().all())
            )

        self._copied = append
        if self.device.type == "cpu":
            self.flush()
        return {layer: values.float() for layer, values in zip(self.layers, rounded, strict=True)}

    def flush(self) -> None:
        """Store what was computed for the last batch."""
        append, self._copied = self._copied, None
        if append is not None:
            append()
        closed = [store.closed for store in self.stores.values() if store.closed]
        if closed and not self._warned:
            self._warned = True
            log.warning("cache_teacher: %s; further targets are computed each time", closed[0])

    def _store(self, precision: str) -> FeatureStore:
        if precision not in self.stores:
            self.stores[precision] = FeatureStore(
                self.folder, precision, len(self.layers), self.width, self.limit
            )
        return self.stores[precision]


def _stack(tensors: list[Tensor], dim: int) -> Tensor:
    with torch.autocast(tensors[0].device.type, enabled=False):  # autocast cannot stack float16
        return torch.stack(tensors, dim)
