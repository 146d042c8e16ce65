"""A frozen upstream that computes the hidden states of an utterance once, and reads them afterwards.

It is used with ``features: {cache: DIR, limit: 100GB}`` beside ``padding: exact`` in the options. The key
of an utterance is a digest of its samples, that of a model a digest of its weights and way of computing.
Utterances are computed one at a time, whatever their batch, and hidden states are rounded to fp16 whether
they are stored, read or neither, so a downstream's input does not depend on the content of the cache.
Hidden states beyond fp16's range are neither rounded nor stored.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..data.feature_store import Block, FeatureStore
from ..errors import ConfigError, shown
from ..model import SpeechModel
from ..model.inference.precision_choice import AUTO
from ..model.speech_model import AUTOCAST, PRECISIONS
from ..utils.config_io import type_faults
from ..utils.device_copies import start_copy
from ..utils.environment import is_first_process
from ..utils.files import write_text
from .downstream_sampling import RANDOM_CROPS, cropping_downstream, sightings
from .expert import UpstreamExpert
from .options import Options

PRECISION_VARIABLE = "S3PRL_DPHUBERT_PRECISION"
FORMAT = "hidden states 1"  # to be raised whenever the same model and audio would give other blocks
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)B?", re.IGNORECASE)
PERIOD = 250_000  # utterances; no epoch of a SUPERB task has more
MISSES = 0.25  # share of a period that is new, above which waveforms are taken for random ones


@dataclass(frozen=True)
class FeatureOptions:
    """Options of the cache of hidden states.

    Args:
        cache: folder, which any number of models, tasks and processes may share.
        limit: size of the folder beyond which nothing is stored, in bytes or with a unit (``100GB``).
        evaluation: assert that only whole utterances come, as in the evaluation of a task that crops
            its training waveforms.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    cache: str
    limit: int | str = "100GB"
    evaluation: bool = False

    def __post_init__(self) -> None:
        faults = type_faults(self)
        if not faults and not self.cache:
            faults.append("cache is empty, allowed: a folder")
        if not faults and self.bytes < 1:
            faults.append(f"limit is {self.limit!r}, allowed: bytes, or a size such as 500MB, 100GB or 1.5TB")
        ConfigError.raise_for("features", faults)

    @property
    def bytes(self) -> int:
        """The limit in bytes; 0 if it is not a size."""
        match = SIZE.fullmatch(str(self.limit).strip())
        return int(float(match[1]) * UNITS[match[2].upper()]) if match else 0


@dataclass(frozen=True)
class CachedOptions(Options):
    """Options of an upstream that may have a cache.

    Where nothing names a ``precision``, that of the environment variable ``S3PRL_DPHUBERT_PRECISION`` holds.

    Args:
        features: the cache of hidden states; none by default.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    precision: str = AUTO
    features: FeatureOptions | None = None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the precision that the environment asks for, if it does.

        Raises:
            ConfigError: it is none.
        """
        precision = os.environ.get(PRECISION_VARIABLE)
        if not precision:
            return {}
        if precision not in (*PRECISIONS, AUTO):
            allowed = ", ".join((*PRECISIONS, AUTO))
            raise ConfigError(f"{PRECISION_VARIABLE} is {shown(precision)}, allowed: {allowed}")
        return {"precision": precision}

    def faults(self) -> Iterator[str]:
        """Yield the faults, field by field."""
        yield from super().faults()
        if self.features is not None and self.padding != "exact":
            yield f"padding is {self.padding!r}, allowed with features: exact"


def say(text: str) -> None:
    """Print a line to stderr, as all of this package does inside s3prl; under torchrun rank 0 alone does."""
    if is_first_process():
        print(f"s3prl-dphubert: {text}", file=sys.stderr, flush=True)


@dataclass
class CacheStatistics:
    """Hits and times of the cache in this process, reported at its exit.

    Attributes:
        read: utterances that were read from the cache.
        computed: utterances that were computed.
        stored: computed utterances that were stored.
        spent: seconds for hashing, reading, computing and storing.
        computing: seconds for computing alone.
        saved: seconds that computing the utterances read had taken.
    """

    read: int = 0
    computed: int = 0
    stored: int = 0
    spent: float = 0.0
    computing: float = 0.0
    saved: float = 0.0
    _period: int = 0
    _missed: int = 0
    _has_said_closed: bool = False

    def watch(self, store: FeatureStore) -> None:
        """Close the store if waveforms are still new after an epoch's worth; say so once."""
        seen = self.read + self.computed
        if seen // PERIOD > self._period:
            if self._period and not store.closed and self.computed - self._missed > MISSES * PERIOD:
                share = 100 * (self.computed - self._missed) / PERIOD
                store.closed = (
                    f"{share:.0f} % of the last {PERIOD:,} waveforms were new, as if cropped at random"
                )
            self._period, self._missed = seen // PERIOD, self.computed
        if store.closed and not self._has_said_closed:
            self._has_said_closed = True
            say(f"no more hidden states are stored: {store.closed}; new ones are computed each time")

    @property
    def speedup(self) -> float:
        """Time of the upstream without a cache, relative to that with it."""
        return (self.saved + self.computing) / self.spent if self.spent else 1.0

    def report(self) -> None:
        """Print the statistics, unless s3prl has only looked at the upstream."""
        if self.read + self.computed > 1:
            uncached = self.saved + self.computing
            say(
                f"hidden states of {self.read:,} utterances were read and of {self.computed:,} computed "
                f"({self.stored:,} stored): {self.spent:.1f} s instead of {uncached:.1f} s, "
                f"speed-up of the upstream {self.speedup:.1f}"
            )


class CachedExpert(UpstreamExpert):
    """A frozen upstream with a cache of hidden states.

    Args:
        model: speech model.
        options: precision, padding and the cache.

    Raises:
        ConfigError: the options have no cache.
    """

    def __init__(self, model: SpeechModel, options: CachedOptions) -> None:
        super().__init__(model, options)
        if options.features is None:
            raise ConfigError("features is missing, allowed: {cache: FOLDER, limit: 100GB}")
        self.features = options.features
        self.statistics = CacheStatistics()
        self._stores: dict[str, FeatureStore] = {}
        self._weights: tuple[Any, ...] = ()
        self._seen: dict[bytes, int] = {}
        atexit.register(self.statistics.report)

    def compute(self, waveforms: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return L + 1 hidden states (B, F, D), float32, of waveforms (B, T) and the samples of each.

        Raises:
            ConfigError: the upstream is being fine-tuned, or the task crops its training waveforms.
            RunError: the folder of the cache cannot be written.
        """
        self._refuse_training()
        store = self._open(waveforms.device)
        if waveforms.is_cuda:
            torch.cuda.synchronize(waveforms.device)  # earlier kernels are not this cache's time
        start = time.perf_counter()
        keys = digests(waveforms, lengths)
        rows: dict[bytes, Tensor] = {}
        computed = []
        for index, (key, place) in enumerate(zip(keys, store.find(keys), strict=True)):
            if key in rows:
                continue
            row = None if place is None else store.read(key, place)
            if row is None or place is None:
                block = self._compute_one(key, waveforms[index : index + 1, : lengths[index]])
                row = block.states
                computed.append(block)
            else:
                self.statistics.saved += place.seconds
            rows[key] = row
        if computed:
            self.statistics.stored += store.append([b for b in computed if self._is_worth_storing(b)])
        frames = self.model.config.frames(max(lengths))
        hidden = _batch([rows[key] for key in keys], frames, waveforms.device)
        self.statistics.read += len(keys) - len(computed)
        self.statistics.computed += len(computed)
        self.statistics.computing += sum(block.seconds for block in computed)
        self.statistics.spent += time.perf_counter() - start
        self.statistics.watch(store)
        return hidden

    def _refuse_training(self) -> None:
        if self.training or torch.is_grad_enabled():
            raise ConfigError(
                "features: hidden states are kept for frozen upstreams only, and this one is "
                f"{'in training mode' if self.training else 'called with gradients'}; leave features out to "
                "fine-tune (-f), or call it in eval mode under torch.no_grad()"
            )
        if not self.features.evaluation and (name := cropping_downstream()):
            raise ConfigError(
                f"features: {name} {RANDOM_CROPS[name]}, so that its training waveforms never come again; "
                "leave features out, or set features.evaluation: true to evaluate"
            )

    def _open(self, device: torch.device) -> FeatureStore:
        """Return the store for the present weights and precision."""
        parameters = self.model.parameters()
        weights = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)
        if weights != self._weights:
            self._weights = weights
            self._stores.clear()
        precision = self._precision(device)
        if precision not in self._stores:
            config = self.model.config
            name = fingerprint(self.model, precision, device)
            root = Path(self.features.cache).expanduser().absolute()
            store = FeatureStore(root, name, config.num_layers + 1, config.embed_dim, self.features.bytes)
            _describe(store, self.model, precision, device)
            self._stores[precision] = store
        return self._stores[precision]

    def _precision(self, device: torch.device) -> str:
        """Return the precision of this call; s3prl's runner has an autocast of its own (``fp16: true``)."""
        precision = self.chosen_precision(device)
        if precision not in AUTOCAST and torch.is_autocast_enabled(device.type):
            return str(torch.get_autocast_dtype(device.type))
        return precision

    def _compute_one(self, key: bytes, waveform: Tensor) -> Block:
        """Compute the hidden states of (1, T), rounded to fp16 unless they are beyond its range."""
        start = time.perf_counter()
        exact = torch.cat(super().compute(waveform, [waveform.shape[1]]))
        states = exact.half()
        states = states if bool(states.isfinite().all()) else exact
        return Block(key, states.cpu(), time.perf_counter() - start)

    def _is_worth_storing(self, block: Block) -> bool:
        """Return whether to store a block: it is in fp16, and seen often enough to come again."""
        if block.states.dtype != torch.float16:
            return False
        least = sightings()
        if least > 1:
            self._seen[block.key] = self._seen.get(block.key, 0) + 1
        return least == 1 or self._seen[block.key] >= least


def digests(waveforms: Tensor, lengths: list[int]) -> list[bytes]:
    """Return a digest of 16 bytes for each utterance of (B, T), given the samples of each."""
    pairs = zip(waveforms.detach().float().cpu().numpy(), lengths, strict=True)
    return [hashlib.sha256(memoryview(row[:length])).digest()[:16] for row, length in pairs]


def fingerprint(model: SpeechModel, precision: str, device: torch.device) -> str:
    """Return 32 hexadecimal digits for all that hidden states depend on besides the audio.

    These are the model's configuration and weights, the precision and the kind of device.
    """
    settings = [FORMAT, model.config.identity(), precision, device.type]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()[:32]


def _batch(rows: list[Tensor], frames: int, device: torch.device) -> list[Tensor]:
    """Stack rows (L + 1, F, D) into L + 1 tensors (B, frames, D), float32, repeating their last frames."""
    rows = [start_copy(row, device) for row in rows]
    layers, _, width = rows[0].shape
    batch = torch.empty(layers, len(rows), frames, width, device=device)
    for index, row in enumerate(rows):
        own = row.shape[1]
        batch[:, index, :own] = row
        batch[:, index, own:] = batch[:, index, own - 1 : own]
    return list(batch.unbind(0))


def _describe(store: FeatureStore, model: SpeechModel, precision: str, device: torch.device) -> None:
    """Say what the store holds, on stderr and in a file for people who find the folder."""
    count = sum(parameter.numel() for parameter in model.parameters())
    about = {"parameters": count, "layers": store.layers, "width": store.width, "precision": precision}
    if not (store.folder / "about.json").exists():
        write_text(store.folder / "about.json", json.dumps(about | {"device": device.type}, indent=1) + "\n")
    rate = store.size(1) * SAMPLE_RATE / model.config.stride
    room = max(0, store.limit - store.used)
    say(
        f"hidden states are kept in {store.folder}: {rate / 1e6:.2f} MB a second of audio, {len(store):,} "
        f"utterances there, {store.used / 1e9:.2f} of {store.limit / 1e9:g} GB used, room for "
        f"{room / rate / 3600:.3g} h"
    )
