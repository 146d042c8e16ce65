"""Sources of hidden states: checkpoints, random weights, s3prl's upstreams, and spectra as floors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import compat
from ..checkpoints.load import EXPORTED, load_model
from ..constants import SAMPLE_RATE
from ..errors import ConfigError
from ..model import SpeechModel
from ..upstream.entries import dphubert_local
from ..upstream.expert import UpstreamExpert
from ..upstream.options import Options
from ..utils.hashing import sha256_file, sha256_model, sha256_tensors

LOG_MEL, MFCC = "log-mel", "mfcc"
FLOORS = (LOG_MEL, MFCC)
RANDOM, S3PRL = "random:", "s3prl:"
SOURCES = (
    f"a checkpoint as for load_model, {RANDOM}CHECKPOINT for random weights of its architecture, "
    f"{S3PRL}UPSTREAM, {LOG_MEL} or {MFCC}"
)
LEAST_SAMPLES = 400
_WINDOW, _HOP = 25.0, 20.0  # ms
_BINS = 80


@dataclass(frozen=True)
class LayerSource:
    """A frozen model, as the probes see it.

    Attributes:
        name: shown in reports.
        states: waveform (T,) at 16 kHz -> L + 1 hidden states (F, D), float32, on the CPU.
        stride: samples from one frame to the next.
        centre: sample in the middle of the first frame's window.
        facts: digest, number of parameters and what else identifies the model.
    """

    name: str
    states: Callable[[Tensor], list[Tensor]] = field(repr=False)
    stride: int
    centre: float
    facts: dict[str, Any]


def open_source(text: str, device: str = "cpu", name: str = "") -> LayerSource:
    """Load a source.

    Args:
        text: one of :data:`SOURCES`.
        device: torch's name of the device that runs it.
        name: shown in reports; by default the last part of ``text`` that is not ``model``.

    Raises:
        CheckpointError: a checkpoint cannot be loaded.
        ConfigError: s3prl has no such upstream, or torchaudio is missing for a floor.
        RunError: s3prl is not installed.
    """
    name = name or default_name(text)
    if text in FLOORS:
        return _floor(text, name)
    if text.startswith(S3PRL):
        return _s3prl(text.removeprefix(S3PRL), name, device)
    if text.startswith(RANDOM):
        config = load_model(text.removeprefix(RANDOM)).config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _own(UpstreamExpert(SpeechModel(config), Options(padding="exact")), name, device)
    expert = dphubert_local(text, padding="exact", precision="fp32")
    if Path(text).suffix in EXPORTED:
        files = [path for path in (Path(text), Path(text).with_suffix(".bin")) if path.is_file()]
        return _own(expert, name, "cpu", sha256_file(*files))
    return _own(expert, name, device)


def default_name(text: str) -> str:
    """Return a short name of a source: the model's folder rather than ``model`` within it."""
    prefix = next((each for each in (RANDOM, S3PRL) if text.startswith(each)), "")
    parts = [part for part in Path(text.removeprefix(prefix)).parts if part not in ("model", "/", ".", "..")]
    last = parts[-1] if parts else text.removeprefix(prefix)
    return f"random {last}" if prefix == RANDOM else last


def _own(expert: UpstreamExpert, name: str, device: str, digest: str = "") -> LayerSource:
    expert = expert.to(device).eval()
    config = expert.model.config

    def states(waveform: Tensor) -> list[Tensor]:
        return [state[0].cpu() for state in expert([waveform.to(device)])["hidden_states"]]

    facts = {
        "parameters": sum(parameter.numel() for parameter in expert.model.parameters()),
        "sha256": digest or sha256_model(config.to_dict(), expert.model.state_dict()),
    }
    return LayerSource(name, states, config.stride, config.min_samples / 2, facts)


def _s3prl(upstream: str, name: str, device: str) -> LayerSource:
    """Load an upstream of s3prl; where its frames lie it does not say, so they count as evenly spread."""
    compat.s3prl_home()
    from s3prl import hub

    entry = getattr(hub, upstream, None)
    if not callable(entry):
        raise ConfigError(f"{S3PRL}{upstream}: s3prl.hub has no upstream {upstream!r}")
    expert = entry().to(device).eval()

    def states(waveform: Tensor) -> list[Tensor]:
        hidden = [state[0].float().cpu() for state in expert([waveform.to(device)])["hidden_states"]]
        if len({state.shape[1] for state in hidden}) > 1:
            raise ConfigError(f"{S3PRL}{upstream}: its layers have different widths, allowed: one width")
        frames = min(len(state) for state in hidden)
        return [state[:frames] for state in hidden]

    stride = int(expert.get_downsample_rates("hidden_states"))
    tensors = expert.state_dict()
    facts = {"parameters": sum(p.numel() for p in expert.parameters()), "sha256": sha256_tensors(tensors)}
    return LayerSource(name, states, stride, stride / 2, facts)


def _floor(kind: str, name: str) -> LayerSource:
    """Return log-mel or MFCC features as Kaldi's but with a hop of 20 ms, without mean normalisation."""
    try:
        from torchaudio.compliance import kaldi
    except ImportError as error:
        remedy = "pip install 's3prl-dphubert[torchaudio]', or leave the floors out (--no-floors)"
        raise ConfigError(f"{kind}: needs torchaudio: {remedy}") from error

    def states(waveform: Tensor) -> list[Tensor]:
        options = {
            "frame_length": _WINDOW,
            "frame_shift": _HOP,
            "dither": 0.0,
            "sample_frequency": SAMPLE_RATE,
        }
        scaled = waveform[None] * 2**15
        if kind == LOG_MEL:
            return [kaldi.fbank(scaled, num_mel_bins=_BINS, **options)]
        features = kaldi.mfcc(scaled, num_mel_bins=_BINS, num_ceps=13, **options)
        return [torch.cat([features, (first := _deltas(features)), _deltas(first)], dim=1)]

    window = SAMPLE_RATE * _WINDOW / 1000
    return LayerSource(
        name, states, round(SAMPLE_RATE * _HOP / 1000), window / 2, {"parameters": 0, "sha256": kind}
    )


def _deltas(features: Tensor) -> Tensor:
    """Return the slopes over five frames of (F, D), the ends repeated."""
    from torchaudio.functional import compute_deltas

    return compute_deltas(features.T[None])[0].T
