"""LSTM of s3prl's recogniser on the CPU, computed for padded rather than packed sequences."""

from __future__ import annotations

from typing import Any

from .patch import Patch, wrap


def _is_slow(model: Any) -> bool:
    import torch

    return hasattr(model, "RNNLayer") and torch.backends.mkldnn.is_available()


def _pad_on_the_cpu(model: Any) -> None:
    """Let every LSTM of an ``RNNLayer``, which packs sequences and drops the last state, pad them on the CPU.

    Padding is behind an utterance, where it changes nothing before; for the other direction utterances are
    turned around within their lengths. So outputs and gradients are those of packed sequences but for
    rounding, and oneDNN computes whole sequences at once.
    """
    import torch
    from torch import Tensor, nn
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

    class PaddedLSTM(nn.LSTM):
        """Single-layer LSTM whose last state is ``None`` for packed sequences on the CPU."""

        def forward(self, input: Any, hx: Any = None) -> Any:
            packed = isinstance(input, PackedSequence) and input.data.device.type == "cpu"
            if not packed or hx is not None or self.num_layers > 1 or self.proj_size or not self.bias:
                return super().forward(input, hx)
            padded, lengths = pad_packed_sequence(PackedSequence(input.data, input.batch_sizes))  # (T, B, D)
            frame = torch.arange(len(padded))[:, None]
            source = torch.where(frame < lengths, lengths - 1 - frame, frame)[..., None]  # (T, B, 1)
            zero = padded.new_zeros(1, padded.shape[1], self.hidden_size)

            def turn(states: Tensor) -> Tensor:
                return states.gather(0, source.expand_as(states))

            def run(states: Tensor, weights: list[nn.Parameter]) -> Tensor:
                options = True, 1, 0.0, self.training, False, False
                return torch.lstm(states, (zero, zero), tuple(weights), *options)[0]

            ahead, *back = self.all_weights
            outputs = [run(padded, ahead), *(turn(run(turn(padded), weights)) for weights in back)]
            packed_output = pack_padded_sequence(torch.cat(outputs, -1), lengths)
            order = input.sorted_indices, input.unsorted_indices
            return PackedSequence(packed_output.data, packed_output.batch_sizes, *order), None

    def init(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self.layer) is nn.LSTM:
            self.layer.__class__ = PaddedLSTM

    wrap(model.RNNLayer, "__init__", init)


PATCHES = (
    Patch(
        name="packed LSTM",
        module="s3prl.downstream.asr.model",
        reason="on the CPU torch computes packed sequences frame by frame, and most of a training of ASR or "
        "SF goes into the backward pass of that",
        versions="torch 2.8 to 2.14; until torch gives packed sequences to oneDNN",
        needed=_is_slow,
        apply=_pad_on_the_cpu,
    ),
)
