"""Exported files with the interface of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..constants import SAMPLE_RATE
from ..errors import CheckpointError, ConfigError
from ..model.inference.folded import SPILL
from ..model.speech_model import check_inputs, frame_lengths
from .backends import (
    EARLIER,
    FEATURES,
    FORMATS,
    HIDDEN,
    LENGTHS,
    LEVEL,
    STATISTICS,
    WAVEFORMS,
    Feeds,
    Session,
    feeds_of,
    open_session,
)
from .batching import BatchPart, divide, needed_frames
from .metadata import ExportMetadata
from .window_statistics import statistics_shape, waveform_level, window_statistics

WINDOW = 40.0  # seconds; longer than the utterances of LibriSpeech


class Runtime(nn.Module):
    """An exported file with the interface of :class:`~s3prl_dphubert.model.SpeechModel`.

    It runs on the CPU, wherever the waveforms are, and gives no gradients.

    Args:
        session: the file, loaded into its runtime.
        info: metadata of the file.
        window: seconds of an utterance whose convolutions are computed at a time; all if ``None``.
    """

    def __init__(self, session: Session, info: ExportMetadata, window: float | None = WINDOW) -> None:
        super().__init__()
        self.session, self.info, self.config = session, info, info.config
        self.window = None if window is None else max(1, info.config.frames(int(window * SAMPLE_RATE)))
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
                Most of its frames are not computed but 0, as in a folded model. The convolutions of long
                utterances are computed in windows, which bounds memory and changes nothing but rounding.

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
        config, session, samples = self.config, self.session, waveforms.shape[1]
        shape = (len(waveforms), config.frames(samples), config.embed_dim)
        states = [np.zeros(shape, np.float32) for _ in self.info.layers]
        counts, rows = frames.tolist(), list(range(len(waveforms)))
        long = [row for row in rows if self.window is not None and counts[row] > self.window]
        short = [row for row in rows if row not in long]
        parts = divide(config, samples, [counts[row] for row in short], session.streams, session.part_frames)

        def collect(index: int, outputs: Mapping[str, np.ndarray]) -> None:
            for state, layer in zip(states, self.info.layers, strict=True):
                part = outputs[HIDDEN.format(layer)]
                for computed, row, kept in zip(part, parts[index].rows, parts[index].kept, strict=True):
                    state[short[row], :kept] = computed[:kept]

        session.run_parts([self._part(part, short, waveforms, ends.numpy()) for part in parts], collect)
        for row in long:
            outputs = self._long(waveforms[row], int(ends[row]), counts[row])
            stop = min(counts[row] + SPILL, shape[1])
            for state, layer in zip(states, self.info.layers, strict=True):
                state[row, :stop] = outputs[HIDDEN.format(layer)][0, :stop]
        return states

    def _part(self, part: BatchPart, rows: list[int], waveforms: np.ndarray, ends: np.ndarray) -> Feeds:
        """Return the inputs for a part of the rows of waveforms (B, T) with their valid samples (B,)."""
        chosen = [rows[row] for row in part.rows]
        cut, lengths = waveforms[chosen, : part.samples], ends[chosen]
        if part.samples == waveforms.shape[1]:
            return feeds_of(self.config, cut, lengths)
        whole = [self._whole(waveforms[row], int(ends[row])) for row in chosen]
        return feeds_of(self.config, cut, lengths, *(np.stack(values) for values in zip(*whole, strict=True)))

    def _long(self, waveform: np.ndarray, end: int, frames: int) -> dict[str, np.ndarray]:
        """Run an utterance (T,) whose convolutions are computed in windows, which bounds memory.

        Each frame depends on its own samples and on the statistics of the whole utterance, so windows need no
        overlap, and the result is that of the whole up to rounding.
        """
        config, window = self.config, self.window or frames
        whole = [values[None] for values in self._whole(waveform, end)]
        total = needed_frames(config, config.frames(len(waveform)), frames)
        begins = list(range(0, frames, window))
        features: list[np.ndarray] = []
        for begin, stop in zip(begins, [*begins[1:], total], strict=True):
            start, samples = begin * config.stride, (stop - begin - 1) * config.stride + config.min_samples
            lengths = np.array([min(end - start, samples)])
            feeds = feeds_of(config, waveform[None, start : start + samples], lengths, *whole)
            if begin != begins[-1]:
                features.append(self.session.features(feeds))
        earlier = np.concatenate(features, 1) if features else None
        return self.session.run({**feeds, **({} if earlier is None else {EARLIER: earlier})})

    def _whole(self, waveform: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return statistics (K + 1, K) and level (2,) of an utterance (T,) with its padding."""
        level = waveform_level(waveform[:end])
        statistics = np.zeros(statistics_shape(self.config, 1)[1:], np.float32)
        if self.config.extractor_mode == "group_norm":
            heard = waveform[:end]
            if self.config.normalize_waveform:
                heard = (heard - level[0]) / np.sqrt(level[1] + self.config.normalize_eps)
            statistics = window_statistics(self.config, heard, len(waveform))
        return statistics, level

    forward = extract_features


def load_exported(path: str | Path, threads: int | None = None, window: float | None = WINDOW) -> Runtime:
    """Load a file that ``s3prl-dphubert export`` wrote.

    Args:
        path: ``.onnx``, run by ONNX Runtime, or ``.xml`` with its ``.bin`` beside it, run by OpenVINO.
        threads: number of threads; as many as torch uses by default.
        window: seconds of an utterance whose convolutions are computed at a time, which bounds memory; all of
            them with ``None``.

    Raises:
        ConfigError: ``threads`` is below 1, or ``window`` below 1 second.
        ExportError: the runtime is not installed.
        CheckpointError: the file is missing, damaged, of a newer version, or not an exported model.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, allowed: 1 or more")
    if window is not None and not window >= 1:
        raise ConfigError(f"window is {window}, allowed: 1 or more seconds, or none")
    form = next((name for name, suffix in FORMATS.items() if path.suffix == suffix), None)
    if form is None:
        raise CheckpointError(f"{path}: suffix is {path.suffix!r}, allowed: {', '.join(FORMATS.values())}")
    for file in (path, path.with_suffix(".bin")) if form == "openvino" else (path,):
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file")
    session = open_session(path, form, threads or torch.get_num_threads())
    info = ExportMetadata.from_json(session.metadata, path)
    inputs = {WAVEFORMS, LENGTHS, EARLIER}
    if info.config.extractor_mode == "group_norm":
        inputs.add(STATISTICS)
    if info.config.normalize_waveform:
        inputs.add(LEVEL)
    outputs = [*map(HIDDEN.format, info.layers), FEATURES]
    missing = [name for name in outputs if name not in session.outputs]
    missing += sorted(inputs - set(session.inputs))
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} is missing")
    return Runtime(session, info, window)
