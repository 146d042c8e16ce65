"""The two runtimes behind one interface: a model in, arrays by name out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError, ExportError

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
"""Format and the suffix of its files."""

WAVEFORMS, LENGTHS, PADDED_LENGTHS = "waveforms", "lengths", "padded_lengths"
"""Inputs of a graph, the last of those with GroupNorm alone."""

FRAMES, HIDDEN = "frames", "hidden_state_{}"
"""Outputs of a graph."""

STREAMS = 2  # requests that OpenVINO computes at a time

KEY = "s3prl_dphubert"
"""Under which a file keeps what it says of itself."""

Feeds = Mapping[str, np.ndarray]
"""Inputs by name; what the graph does not ask for is left out."""

Take = Callable[[int, Mapping[str, np.ndarray]], None]
"""Gets the number of a part and its outputs by name, which are gone when it returns."""


class Session(Protocol):
    """A model that is ready to run.

    Attributes:
        inputs: their names.
        outputs: their names.
        about: what the file says of itself.
        streams: how many parts are computed at a time.
        part_frames: frames of a part that it is fast with; more take memory.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    about: str | None
    streams: int
    part_frames: int

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name."""
        ...

    def run_parts(self, parts: Sequence[Feeds], take: Take) -> None:
        """Run all parts, in any order, and hand the outputs of each over."""
        ...


def feeds_of(waveforms: np.ndarray, lengths: np.ndarray | None = None, padded: int | None = None) -> Feeds:
    """All inputs that a graph may ask for.

    Args:
        waveforms: (B, T).
        lengths: (B,) valid samples; all by default.
        padded: samples before padding was cut; T by default.
    """
    batch, samples = waveforms.shape
    ends = np.full(batch, samples) if lengths is None else lengths
    whole = np.full(batch, samples if padded is None else padded)
    return {WAVEFORMS: waveforms, LENGTHS: ends, PADDED_LENGTHS: whole}


def needed(module: str, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ExportError: it is not installed; the message says how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        command = f"pip install 's3prl-dphubert[{extra}]'"
        raise ExportError(f"{module} cannot be imported ({error}), needed for {extra}: {command}") from error


def open_session(source: Path | bytes, form: str, threads: int) -> Session:
    """Make a model ready.

    Args:
        source: a file of that format, or an ONNX model in memory.
        form: ``onnx`` or ``openvino``, the runtime.
        threads: how many it uses.

    Raises:
        ExportError: the runtime is not installed.
        CheckpointError: the file cannot be read.
    """
    return OnnxSession(source, threads) if form == "onnx" else OpenVinoSession(source, threads)


class OnnxSession:
    """ONNX Runtime on the CPU."""

    streams, part_frames = 1, 2048

    def __init__(self, source: Path | bytes, threads: int) -> None:
        runtime = needed("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        given = source if isinstance(source, bytes) else str(source)
        try:
            self._session = runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each of its faults has a class of its own
            raise _unreadable(source, error) from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        self.about = self._session.get_modelmeta().custom_metadata_map.get(KEY)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name."""
        return dict(zip(self.outputs, self._session.run(None, _asked(self.inputs, feeds)), strict=True))

    def run_parts(self, parts: Sequence[Feeds], take: Take) -> None:
        """One after another, each with all threads."""
        for index, feeds in enumerate(parts):
            take(index, self.run(feeds))


@cache
def _core(openvino: ModuleType) -> Any:
    """The one ``Core`` of this process, which is never given up.

    OpenVINO's CPU plugin gives the process another stack for signals, and takes it away with the ``Core``
    that loaded it. Where several go in the order in which they came, the stack of one that is gone stays
    in use: the next signal with a handler, such as the end of a child, ends the process.
    """
    return openvino.Core()


class OpenVinoSession:
    """OpenVINO on the CPU, with the numbers that the graph names: its own choice would be coarser.

    Several parts run on :data:`STREAMS`, each with half of the threads, which wait for each other less than
    all of them in one. The streams are made when they are first needed.
    """

    part_frames = 256

    def __init__(self, source: Path | bytes, threads: int) -> None:
        self._openvino = needed("openvino", "openvino")
        self._threads = threads
        self.streams = min(STREAMS, threads)
        try:
            self._model = _core(self._openvino).read_model(
                source if isinstance(source, bytes) else str(source)
            )
            self._request = self._compile(1).create_infer_request()
        except Exception as error:  # whatever a damaged file provokes
            raise _unreadable(source, error) from error
        self._queue: Any = None
        self._turn = Lock()  # one batch at a time: all share the requests
        self.inputs = tuple(value.get_any_name() for value in self._model.inputs)
        self.outputs = tuple(value.get_any_name() for value in self._model.outputs)
        known = self._model.has_rt_info([KEY])
        self.about = self._model.get_rt_info([KEY]).astype(str) if known else None

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name."""
        # Outputs are copies: what the runtime itself keeps is overwritten by the next run.
        given = _asked(self.inputs, feeds)
        found = self._request.infer(given, share_inputs=True, share_outputs=False)
        return {name: found[index] for index, name in enumerate(self.outputs)}

    def run_parts(self, parts: Sequence[Feeds], take: Take) -> None:
        """As many at a time as there are streams."""
        with self._turn:
            if len(parts) == 1 or self.streams == 1:
                for index, feeds in enumerate(parts):
                    take(index, self.run(feeds))
                return
            if self._queue is None:
                self._queue = self._openvino.AsyncInferQueue(self._compile(self.streams), self.streams)
            self._queue.set_callback(lambda request, index: take(index, self._found(request)))
            for index, feeds in enumerate(parts):
                self._queue.start_async(_asked(self.inputs, feeds), index)
            self._queue.wait_all()

    def _found(self, request: Any) -> dict[str, np.ndarray]:
        tensors = zip(self.outputs, request.output_tensors, strict=True)
        return {name: tensor.data for name, tensor in tensors}

    def _compile(self, streams: int) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
        }
        return _core(self._openvino).compile_model(self._model, "CPU", options)


def _asked(inputs: tuple[str, ...], feeds: Feeds) -> dict[str, np.ndarray]:
    return {name: feeds[name] for name in inputs}


def _unreadable(source: Path | bytes, error: Exception) -> CheckpointError:
    reason = str(error).strip().split("\n")[-1] or type(error).__name__
    return CheckpointError(f"{'model' if isinstance(source, bytes) else source}: cannot be read ({reason})")
