"""An upstream that computes the hidden states of an utterance once and reads them ever after.

With ``features: {cache: DIR, limit: 100GB}`` beside ``padding: exact`` in the options. An utterance is
known by its samples, a model by its weights and how it computes. Utterances are computed one at a time,
in whatever batch they come, and hidden states are rounded to fp16 whether they are stored, read or
neither: what a downstream gets does not depend on what the cache holds. Those beyond fp16's
range stay as they are and are not stored.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..data.feature_store import Block, FeatureStore
from ..errors import ConfigError
from ..model import SpeechModel
from ..model.speech_model import AUTOCAST
from ..utils.config_io import type_faults
from ..utils.files import write_text
from .cache_stats import Tally, say
from .downstream_sampling import RANDOM_CROPS, cropping_downstream, sightings
from .expert import UpstreamExpert
from .options import Options

FORMAT = "hidden states 1"  # another one whenever the same model and audio would give other blocks
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class FeatureOptions:
    """Where hidden states are kept.

    Args:
        cache: folder, which any number of models, tasks and processes may share.
        limit: what it may take, in bytes or such as ``100GB``; beyond it nothing is stored.
        evaluation: the caller vouches that only whole utterances come, as in the evaluation of a task
            that crops in training.
    """

    cache: str
    limit: int | str = "100GB"
    evaluation: bool = False

    def __post_init__(self) -> None:
        faults = type_faults(self)
        if not faults and not self.cache:
            faults.append("cache is empty, allowed: a folder")
        if not faults and self.bytes < 1:
            faults.append(f"limit is {self.limit!r}, allowed: bytes, or such as 500MB, 100GB or 1.5TB")
        ConfigError.raise_for("features", faults)

    @property
    def bytes(self) -> int:
        """The limit in bytes; 0 if it is no size."""
        found = SIZE.fullmatch(str(self.limit).strip())
        if found is None:
            return 0
        return int(float(found[1]) * UNITS[found[2].upper()])


@dataclass(frozen=True)
class CachedOptions(Options):
    """How an upstream computes, and where it keeps what it computed.

    Args:
        features: where hidden states are kept; nothing is kept by default.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    features: FeatureOptions | None = None

    def faults(self) -> Iterator[str]:
        """What is wrong, field by field."""
        yield from super().faults()
        if self.features is not None and self.padding != "exact":
            yield f"padding is {self.padding!r}, allowed with features: exact"


class CachedExpert(UpstreamExpert):
    """A frozen upstream that computes what it has not stored yet.

    Args:
        model: the encoder.
        options: how it computes, and where it keeps hidden states.

    Raises:
        ConfigError: the options do not ask for a cache.
    """

    def __init__(self, model: SpeechModel, options: CachedOptions) -> None:
        super().__init__(model, options)
        if options.features is None:
            raise ConfigError("features is missing, allowed: {cache: FOLDER, limit: 100GB}")
        self.kept = options.features
        self.tally = Tally()
        self._stores: dict[str, FeatureStore] = {}
        self._weights: tuple[Any, ...] = ()
        self._seen: dict[bytes, int] = {}
        atexit.register(self.tally.report)

    def compute(self, waveforms: Tensor, lengths: list[int]) -> list[Tensor]:
        """Waveforms (B, T) and the samples of each -> L + 1 hidden states (B, F, D), float32.

        Raises:
            ConfigError: the upstream is being fine-tuned, or the task crops its training waveforms.
            RunError: the cache's folder cannot be written.
        """
        self._refuse()
        store = self._open(waveforms.device)
        if waveforms.is_cuda:
            torch.cuda.synchronize(waveforms.device)  # what ran before is not this cache's time
        start = time.perf_counter()
        keys = digests(waveforms, lengths)
        rows, computed, spent = {}, [], 0.0
        for index, (key, place) in enumerate(zip(keys, store.find(keys), strict=True)):
            if key in rows:
                continue
            row = None if place is None else store.read(key, place)
            if row is None or place is None:
                block = self._alone(key, waveforms[index : index + 1, : lengths[index]])
                row, spent = block.states, spent + block.seconds
                computed.append(block)
            else:
                self.tally.found(place.seconds)
            rows[key] = row
        stored = store.append([block for block in computed if self._wanted(block)]) if computed else 0
        frames = self.model.config.frames(max(lengths))
        hidden = _batch([rows[key] for key in keys], frames, waveforms.device)
        self.tally.batch(len(keys), len(computed), stored, spent, time.perf_counter() - start)
        self.tally.watch(store)
        return hidden

    def _refuse(self) -> None:
        if self.training or torch.is_grad_enabled():
            raise ConfigError(
                "features: hidden states are kept for frozen upstreams only, and this one is "
                f"{'in training mode' if self.training else 'called with gradients'}; leave features out to "
                "fine-tune (-f), or call it in eval mode under torch.no_grad()"
            )
        if not self.kept.evaluation and (name := cropping_downstream()):
            raise ConfigError(
                f"features: {name} {RANDOM_CROPS[name]}, so that its training waveforms never come again; "
                "leave features out, or set features.evaluation: true to evaluate"
            )

    def _open(self, device: torch.device) -> FeatureStore:
        """The store of the weights and the precision as they are now."""
        parameters = self.model.parameters()
        weights = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)
        if weights != self._weights:
            self._weights = weights
            self._stores.clear()
        precision = self._precision(device)
        if precision not in self._stores:
            config = self.model.config
            name = fingerprint(self.model, precision, device)
            root = Path(self.kept.cache).expanduser().absolute()
            store = FeatureStore(root, name, config.num_layers + 1, config.embed_dim, self.kept.bytes)
            _describe(store, self.model, precision, device)
            self._stores[precision] = store
        return self._stores[precision]

    def _precision(self, device: torch.device) -> str:
        """Of this call: s3prl trains under an autocast of its own where its runner has ``fp16: true``."""
        if self.options.precision not in AUTOCAST and torch.is_autocast_enabled(device.type):
            return str(torch.get_autocast_dtype(device.type))
        return self.options.precision

    def _alone(self, key: bytes, waveform: Tensor) -> Block:
        """Hidden states of (1, T), rounded to fp16 unless that cannot hold them."""
        start = time.perf_counter()
        exact = torch.cat(super().compute(waveform, [waveform.shape[1]]))
        states = exact.half()
        states = states if bool(states.isfinite().all()) else exact
        return Block(key, states.cpu(), time.perf_counter() - start)

    def _wanted(self, block: Block) -> bool:
        """Whether to store a block now: all of it in fp16, and seen often enough to come again."""
        if block.states.dtype != torch.float16:
            return False
        least = sightings()
        if least > 1:
            self._seen[block.key] = self._seen.get(block.key, 0) + 1
        return least == 1 or self._seen[block.key] >= least


def digests(waveforms: Tensor, lengths: list[int]) -> list[bytes]:
    """(B, T) and the samples of each -> 16 bytes each that tell utterances apart."""
    audio = waveforms.detach().float().cpu().numpy()
    pairs = zip(audio, lengths, strict=True)
    return [hashlib.sha256(memoryview(row[:length])).digest()[:16] for row, length in pairs]


def fingerprint(model: SpeechModel, precision: str, device: torch.device) -> str:
    """32 hexadecimal digits that tell apart what computes other hidden states.

    They depend on the model's configuration and weights, the precision and the kind of device.
    """
    told = [FORMAT, model.config.to_dict(), precision, device.type]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()[:32]


def _batch(rows: list[Tensor], frames: int, device: torch.device) -> list[Tensor]:
    """Rows (L + 1, F, D) -> L + 1 tensors (B, frames, D), float32; last frames are repeated."""
    if device.type == "cuda":
        rows = [row.pin_memory().to(device, non_blocking=True) for row in rows]
    layers, _, width = rows[0].shape
    batch = torch.empty(layers, len(rows), frames, width, device=device)
    for index, row in enumerate(rows):
        own = row.shape[1]
        batch[:, index, :own] = row
        batch[:, index, own:] = batch[:, index, own - 1 : own]
    return list(batch.unbind(0))


def _describe(store: FeatureStore, model: SpeechModel, precision: str, device: torch.device) -> None:
    """Tell what is kept, here and in a file for people who find the folder."""
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
