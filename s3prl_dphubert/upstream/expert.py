"""A speech model with the interface of an s3prl upstream."""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..errors import ConfigError
from ..model import SpeechModel
from ..model.inference.folded import FoldedModel, fold
from ..model.inference.precision_choice import AUTO, resolve
from ..model.speech_model import AUTOCAST
from .options import Options


class UpstreamExpert(nn.Module):
    """An s3prl upstream: a list of waveforms in, hidden states of every layer out.

    Gradients flow unless the caller turns them off, ``train()`` switches the model's dropout on, and
    no layer is ever dropped, so the number of hidden states is constant.

    Args:
        model: speech model, or an exported file with the same interface, which runs on the CPU and
            without gradients and may give only some of the hidden states.
        options: precision and padding.
    """

    def __init__(self, model: SpeechModel, options: Options | None = None) -> None:
        super().__init__()
        self.model = model
        self.options = options or Options()
        self._fold: tuple[list[Any], FoldedModel] | None = None
        self._was_trained = False

    def get_downsample_rates(self, key: str) -> int:
        """Return the samples from one frame to the next, the same for every hidden state."""
        return self.model.config.stride

    def forward(self, wavs: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Compute the hidden states of a batch of utterances.

        Args:
            wavs: waveforms (T,) at 16 kHz, of any lengths, on any device. A waveform that is shorter
                than the receptive field of a frame is padded to it with zeros.

        Returns:
            ``hidden_states``: a list of L + 1 tensors (B, F, D), float32, on the model's device;
            ``last_hidden_state``: the last of them; ``hidden_state_0`` … ``hidden_state_L``: each.

        Raises:
            ValueError: the list is empty, or a waveform is not one-dimensional.
        """
        hidden = self.compute(*self._batch(wavs))
        named = {f"hidden_state_{index}": state for index, state in enumerate(hidden)}
        return {"hidden_states": hidden, "last_hidden_state": hidden[-1], **named}

    def compute(self, waveforms: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return L + 1 hidden states (B, F, D), float32, of waveforms (B, T) and the samples of each."""
        run = self._each_alone if self.options.padding == "exact" else self._together
        return [state.float() for state in run(waveforms, lengths)]

    def _batch(self, wavs: list[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the waveforms (B, T), padded with zeros, and the samples of each."""
        shapes = [tuple(wav.shape) for wav in wavs]
        if not shapes or any(len(shape) != 1 for shape in shapes):
            raise ValueError(f"wavs has shapes {shapes}, allowed: one waveform (T,) or more")
        parameter = next(self.model.parameters())
        least = self.model.config.min_samples
        padded = pad_sequence([wav.to(parameter.device, parameter.dtype) for wav in wavs], batch_first=True)
        if padded.shape[1] < least:
            padded = nn.functional.pad(padded, (0, least - padded.shape[1]))
        finite = padded.isfinite().all(1)
        if not finite.all():
            index = int(finite.long().argmin())
            text = f"wavs[{index}] has NaN or infinite samples, and so have its hidden states"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        return padded, [max(least, samples) for (samples,) in shapes]

    def _together(self, waveforms: Tensor, lengths: list[int]) -> list[Tensor]:
        if min(lengths) == waveforms.shape[1]:
            return self._extract(waveforms)
        return self._extract(waveforms, torch.tensor(lengths))

    def _each_alone(self, waveforms: Tensor, lengths: list[int]) -> list[Tensor]:
        """Run the utterances of one length at a time, and repeat their last frames up to the longest's end.

        s3prl itself extends hidden states that are shorter than it expects in this way.
        """
        frames = self.model.config.frames(max(lengths))
        rows: dict[int, list[Tensor]] = {}
        for length in sorted(set(lengths)):
            indices = [index for index, other in enumerate(lengths) if other == length]
            rows_of_length = torch.stack([waveforms[index, :length] for index in indices])
            hidden = self._extract(rows_of_length)
            filled = [_repeat_last(state, frames) for state in hidden]
            rows.update({index: [state[i] for state in filled] for i, index in enumerate(indices)})
        ordered = (rows[index] for index in range(len(lengths)))
        return [torch.stack(states) for states in zip(*ordered, strict=True)]

    def _extract(self, waveforms: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Return hidden states (B, F, D) in float32."""
        if not isinstance(self.model, SpeechModel):  # an exported file
            return self.model.extract_features(waveforms, lengths)[0]
        precision = self.chosen_precision(waveforms.device)
        hidden = self._run(waveforms, lengths, precision)
        if precision == "fp16" and self.options.precision == AUTO and _overflows(hidden, waveforms):
            text = "values beyond float16, which precision: auto chose; the batch is computed in float32"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            hidden = self._run(waveforms, lengths, "fp32")
        return hidden

    def _run(self, waveforms: Tensor, lengths: Tensor | None, precision: str) -> list[Tensor]:
        """Return hidden states (B, F, D) in float32, from the folded model if nothing is trained."""
        parameters = list(self.model.parameters())
        plain = {(p.device.type, p.dtype) for p in parameters} == {("cpu", torch.float32)}
        if plain and not self._is_trained() and not torch.is_autocast_enabled("cpu"):
            return self._folded(parameters, precision).extract_features(waveforms, lengths)[0]
        self._fold = None  # fused optimizers change weights without counting it as a new version
        dtype = AUTOCAST.get(precision)
        with nullcontext() if dtype is None else torch.autocast(waveforms.device.type, dtype):
            hidden, _ = self.model.extract_features(waveforms, lengths)
        return [state.float() for state in hidden]

    def _folded(self, parameters: list[nn.Parameter], precision: str) -> FoldedModel:
        """Return the model for inference, folded again after other weights were loaded."""
        key = [precision, *((p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)]
        if self._fold is None or self._fold[0] != key:
            self._fold = key, fold(self.model, precision)
        return self._fold[1]

    def _is_trained(self) -> bool:
        """Return whether the model may be trained by this call."""
        return (
            torch.is_grad_enabled()
            or self.training
            or any(parameter.grad is not None for parameter in self.model.parameters())
        )

    def chosen_precision(self, device: torch.device) -> str:
        """Return the precision of this call: that of the options, or what ``auto`` stands for.

        What was trained in float32 is also validated in it.
        """
        self._was_trained |= self.training and torch.is_grad_enabled()
        if self.options.precision == AUTO and (self._was_trained or self._is_trained()):
            return "fp32"
        return resolve(self.options.precision, self.model.config, device)


class ExportedExpert(UpstreamExpert):
    """The upstream of an exported file, which has no gradients: s3prl's ``-f`` is refused."""

    _trains = False

    def train(self, mode: bool = True) -> ExportedExpert:
        """Note that s3prl's runner wants to train it."""
        self._trains = mode
        return super().train(mode)

    def compute(self, waveforms: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return the hidden states as :meth:`UpstreamExpert.compute` does.

        Raises:
            ConfigError: s3prl's runner fine-tunes it.
        """
        if self._trains and torch.is_grad_enabled() and "s3prl.downstream.runner" in sys.modules:
            raise ConfigError(
                "an exported file cannot be fine-tuned (-f); fine-tune the checkpoint that it was made from"
            )
        return super().compute(waveforms, lengths)


def _overflows(hidden: list[Tensor], waveforms: Tensor) -> bool:
    """Return whether hidden states of finite waveforms are not finite; the last is what all come to."""
    return not bool(hidden[-1].isfinite().all()) and bool(waveforms.isfinite().all())


def _repeat_last(state: Tensor, frames: int) -> Tensor:
    """Extend (B, F, D) to (B, frames, D)."""
    return torch.cat([state, state[:, -1:].expand(-1, frames - state.shape[1], -1)], 1)
