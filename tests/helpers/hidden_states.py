"""Shared by the tests of the converters: inputs, and hidden states taken from a foreign model by hooks."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from s3prl_dphubert.model.cost import parameters

SAMPLES = (3200, 2500, 1900)
TOLERANCE = 1e-4


def waveforms():
    """(3, 3200) noise of different loudness, zero after each utterance's end, and lengths (3,)."""
    generator = torch.Generator().manual_seed(11)
    loudness = torch.tensor([[0.5], [0.1], [0.9]])
    waves = torch.randn(3, SAMPLES[0], generator=generator) * loudness + 0.05
    for wave, length in zip(waves, SAMPLES, strict=True):
        wave[length:] = 0.0
    return waves, torch.tensor(SAMPLES)


def normalised(waves, lengths=None, eps=1e-5):
    """As the models' authors do it: each utterance by its own statistics, ``eps`` beside the variance."""
    lengths = [waves.shape[1]] * len(waves) if lengths is None else lengths.tolist()
    rows = [F.layer_norm(wave[:n], (n,), eps=eps) for wave, n in zip(waves, lengths, strict=True)]
    return torch.stack([F.pad(row, (0, waves.shape[1] - len(row))) for row in rows])


@contextmanager
def recorded(modules, pick=lambda output: output[0] if isinstance(output, tuple) else output):
    """Outputs of modules, in their order, as they were when each returned."""
    outputs = {}

    def hook(index):
        return lambda module, inputs, output: outputs.update({index: pick(output).detach().clone()})

    hooks = [module.register_forward_hook(hook(index)) for index, module in enumerate(modules)]
    yield outputs
    for each in hooks:
        each.remove()


def scramble(module, scale=0.3, seed=5):
    """Random weights everywhere, norms and biases included, so that no tensor may be mistaken for another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator) * scale
            tensor.copy_(tensor + noise if "norm" in name or tensor.ndim < 2 else tensor + noise * 0.3)
    return module.eval()


def assert_hidden(ours, theirs, frames=None):
    """Hidden states agree, each with as many frames as are valid."""
    assert len(ours) == len(theirs) > 1
    for a, b in zip(ours, theirs, strict=True):
        frames_of = [a.shape[1]] * len(a) if frames is None else frames.tolist()
        for row, other, valid in zip(a, b, frames_of, strict=True):
            assert valid > 1
            torch.testing.assert_close(row[:valid], other[:valid], atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def assert_parity(model, run, eps=1e-5):
    """A loaded teacher computes what the original does, whose hidden states ``run(waves, lengths)`` gives."""
    waves, lengths = waveforms()

    def normalise(waves, lengths=None):
        return normalised(waves, lengths, eps) if model.config.normalize_waveform else waves

    assert_hidden(model.extract_features(waves)[0], run(normalise(waves), None))
    hidden, frames = model.extract_features(waves, lengths)
    assert_hidden(hidden, run(normalise(waves, lengths), lengths), frames)
    assert not model.training
    assert sum(tensor.numel() for tensor in model.parameters()) == parameters(model.config)
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values())
    assert set(storages.values()) == {1}
