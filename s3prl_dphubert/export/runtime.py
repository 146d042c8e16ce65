"""Exported files with the interface of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..model.speech_model import check_inputs, frame_lengths
from .backends import FORMATS, HIDDEN, LENGTHS, PADDED_LENGTHS, WAVEFORMS, Session, feeds_of, open_session
from .batching import divide
from .metadata import ExportMetadata


class Runtime(nn.Module):
    """An exported file with the interface of :class:`~s3prl_dphubert.model.SpeechModel`.

    It runs on the CPU, wherever the waveforms are, and gives no gradients.

    Args:
        session: the file, loaded into its runtime.
        info: metadata of the file.
    """

    def __init__(self, session: Session, info: ExportMetadata) -> None:
        super().__init__()
        self.session, self.info, self.config = session, info, info.config
        # Callers find the device and the type of a model by its first parameter.
        self.anchor = nn.Parameter(torch.zeros(0), requires_grad=False)

    @torch.no_grad()
    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the hidden states that the file computes.

        Args:
            waveforms: (B, T) at 16 kHz, zero after each utterance's end.
            lengths: (B,) valid samples, integers from 1 to T, or ``None`` if nothing is padded. Padding has
                the effect that it has in the model: attention masks it, GroupNorm's statistics include it.
                Most of its frames are not computed but 0, as in a folded model.

        Returns:
            A tensor (B, F, D) for each of ``info.layers``, and the valid frames (B,) or ``None``.

        Raises:
            ValueError: ``waveforms`` is not (B, T) or shorter than one frame, or ``lengths`` does not fit.
        """
        check_inputs(waveforms, lengths, self.config)
        batch, samples = waveforms.shape
        ends = torch.full((batch,), samples) if lengths is None else lengths.long().cpu()
        frames = frame_lengths(self.config, ends)
        states = self._run(np.ascontiguousarray(waveforms.detach().float().cpu().numpy()), ends, frames)
        hidden = [torch.from_numpy(state).to(waveforms.device) for state in states]
        return hidden, None if lengths is None else frames.to(lengths.device)

    def _run(self, waveforms: np.ndarray, ends: Tensor, frames: Tensor) -> list[np.ndarray]:
        """Compute hidden states (B, F, D) of waveforms (B, T) with their valid samples and frames (B,)."""
        batch, samples = waveforms.shape
        session = self.session
        parts = divide(self.config, samples, frames.tolist(), session.streams, session.part_frames)
        shape = (batch, self.config.frames(samples), self.config.embed_dim)
        states = [np.zeros(shape, np.float32) for _ in self.info.layers]

        def collect(index: int, outputs: Mapping[str, np.ndarray]) -> None:
            for state, layer in zip(states, self.info.layers, strict=True):
                part = outputs[HIDDEN.format(layer)]
                for computed, row, kept in zip(part, parts[index].rows, parts[index].kept, strict=True):
                    state[row, :kept] = computed[:kept]

        feeds = [
            feeds_of(waveforms[rows := list(part.rows), : part.samples], ends[rows].numpy(), samples)
            for part in parts
        ]
        session.run_parts(feeds, collect)
        return states

    forward = extract_features


def load_exported(path: str | Path, threads: int | None = None) -> Runtime:
    """Load a file that ``s3prl-dphubert export`` wrote.

    Args:
        path: ``.onnx``, run by ONNX Runtime, or ``.xml`` with its ``.bin`` beside it, run by OpenVINO.
        threads: number of threads; as many as torch uses by default.

    Raises:
        ConfigError: ``threads`` is below 1.
        ExportError: the runtime is not installed.
        CheckpointError: the file is missing, damaged, of a newer version, or not an exported model.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, allowed: 1 or more")
    form = next((name for name, suffix in FORMATS.items() if path.suffix == suffix), None)
    if form is None:
        raise CheckpointError(f"{path}: suffix is {path.suffix!r}, allowed: {', '.join(FORMATS.values())}")
    for file in (path, path.with_suffix(".bin")) if form == "openvino" else (path,):
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file")
    session = open_session(path, form, threads or torch.get_num_threads())
    info = ExportMetadata.from_json(session.metadata, path)
    inputs = {WAVEFORMS, LENGTHS}
    if info.config.extractor_mode == "group_norm":
        inputs.add(PADDED_LENGTHS)
    missing = [name for name in map(HIDDEN.format, info.layers) if name not in session.outputs]
    missing += sorted(inputs - set(session.inputs))
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} is missing")
    return Runtime(session, info)
