"""Calls that the benchmark of a device times: inference and updates of this package and of others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import ModelConfig, SpeechModel
from ..model.speech_model import autocast
from ..utils.stopwatch import Stopwatch
from .own_update import OwnUpdate
from .reference_update import PublishedUpdate, matched, published_model
from .workload import Workload

Call = Callable[[], Any]


def _model(config: ModelConfig) -> SpeechModel:
    torch.manual_seed(0)
    return SpeechModel(config).eval()


def _without_gradients(
    extract: Callable[[Tensor, Tensor | None], Any], workload: Workload, precision: str, device: torch.device
) -> Call:
    waveforms, lengths = workload.batch()
    waveforms = waveforms.to(device)

    def call() -> None:
        with torch.no_grad(), autocast(device, precision):
            extract(waveforms, lengths)

    return call


def own_inference(config: ModelConfig, workload: Workload, precision: str, device: torch.device) -> Call:
    """Return the hidden states of this package's model."""
    return _without_gradients(_model(config).to(device).extract_features, workload, precision, device)


def published_inference(
    clone: Path, config: ModelConfig, workload: Workload, precision: str, device: torch.device
) -> Call:
    """Return the hidden states of the published implementation, under autocast as in its training."""
    model: Any = published_model(clone, _model(config)).to(device)

    def extract(waveforms: Tensor, lengths: Tensor | None) -> Any:
        return model.extract_features(waveforms, None if lengths is None else lengths.to(device))

    return _without_gradients(extract, workload, precision, device)


def transformers_inference(
    config: ModelConfig, workload: Workload, precision: str, device: torch.device
) -> Call:
    """Return the hidden states of transformers' HuBERT of a dense shape."""
    model = _transformers_model(config).to(device)

    def extract(waveforms: Tensor, lengths: Tensor | None) -> Any:
        mask = None
        if lengths is not None:
            mask = torch.arange(waveforms.shape[1], device=device) < lengths.to(device)[:, None]
        return model(waveforms, attention_mask=mask, output_hidden_states=True)

    return _without_gradients(extract, workload, precision, device)


def own_update(
    config: ModelConfig, workload: Workload, precision: str, device: torch.device, compiled: bool = False
) -> Call:
    """Return an update of stage 1, with one micro-batch."""
    update = OwnUpdate(_model(config).to(device), precision, compiled=compiled)
    waveforms = workload.batch()[0].to(device)
    return lambda: update.update(waveforms, Stopwatch())


def published_update(
    clone: Path, config: ModelConfig, workload: Workload, precision: str, device: torch.device
) -> Call:
    """Return the published update of stage 1, under autocast as in its training."""
    update = PublishedUpdate(clone, _model(config), device=device)
    waveforms = workload.batch()[0].to(device)

    def call() -> None:
        with autocast(device, precision):
            update.update(waveforms, Stopwatch())

    return call


def transformers_update(
    config: ModelConfig, workload: Workload, precision: str, device: torch.device
) -> Call:
    """Return an update of plain distillation, without gates, between two HuBERTs of transformers."""
    teacher = _transformers_model(config).to(device).requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    student.config.apply_spec_augment, student.config.layerdrop = False, 0.0
    layers = matched(config.num_layers)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-4, weight_decay=0.0, fused=True)
    waveforms = workload.batch()[0].to(device)

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            with torch.no_grad():
                targets = teacher(waveforms, output_hidden_states=True).hidden_states
            states = student(waveforms, output_hidden_states=True).hidden_states
            losses = []
            for layer in layers:
                predicted, target = states[layer].float(), targets[layer].float()
                losses.append(
                    F.l1_loss(predicted, target) - F.cosine_similarity(predicted, target, -1).mean()
                )
            loss = torch.stack(losses).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 10.0)
        optimizer.step()

    return call


def _transformers_model(config: ModelConfig) -> Any:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    shape = HubertConfig(
        hidden_size=config.embed_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.total_heads,
        intermediate_size=config.ffn[0] or 0,
        conv_dim=list(config.conv_channels),
        num_conv_pos_embeddings=config.pos_conv_kernel,
        num_conv_pos_embedding_groups=config.pos_conv_groups,
    )
    return HubertModel(shape).eval()
