"""ONNX Runtime and OpenVINO behind one interface: arrays by name in, arrays by name out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError, ExportError
from ..model import ModelConfig
from .window_statistics import statistics_shape

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
"""Format -> suffix of its files."""

RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime"}
"""Format -> module that runs its files."""

WAVEFORMS, LENGTHS = "waveforms", "lengths"
"""Inputs of every graph."""

EARLIER, STATISTICS, LEVEL = "earlier", "statistics", "level"
"""Inputs for pieces of audio: of every graph, of those with GroupNorm, of those that normalise waveforms."""

FRAMES, FEATURES, HIDDEN = "frames", "features", "hidden_state_{}"
"""Outputs of a graph; features are what ``earlier`` takes, the first hidden state."""

STREAMS = 2  # requests that OpenVINO runs at the same time

KEY = "s3prl_dphubert"
"""Key of the metadata in a file."""

Feeds = Mapping[str, np.ndarray]
"""Inputs by name; those that a graph does not have are ignored."""

OnOutputs = Callable[[int, Mapping[str, np.ndarray]], None]
"""Called with the index of a part and its outputs by name, which are only valid during the call."""


class Session(Protocol):
    """A model that is ready to run.

    Attributes:
        inputs: names of the inputs.
        outputs: names of the outputs.
        metadata: JSON text of the file's metadata; ``None`` if it has none.
        streams: number of parts that run at the same time.
        part_frames: frames of a part up to which larger parts are faster; beyond, they only take memory.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: str | None
    streams: int
    part_frames: int

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the model and return its outputs by name."""
        ...

    def features(self, feeds: Feeds) -> np.ndarray:
        """Run the convolutions alone and return the features (B, F, D)."""
        ...

    def run_parts(self, parts: Sequence[Feeds], on_outputs: OnOutputs) -> None:
        """Run all parts, in any order, and pass the outputs of each to ``on_outputs``."""
        ...


def feeds_of(
    config: ModelConfig,
    waveforms: np.ndarray,
    lengths: np.ndarray | None = None,
    statistics: np.ndarray | None = None,
    level: np.ndarray | None = None,
    earlier: np.ndarray | None = None,
) -> Feeds:
    """Return all inputs that a graph may have.

    Args:
        config: shape of the encoder.
        waveforms: (B, T) at 16 kHz.
        lengths: (B,) valid samples; T by default.
        statistics: (B, K + 1, K) of whole utterances, of which the waveforms are parts; 0 by default.
        level: (B, 2) mean and variance of whole utterances; 0 by default.
        earlier: (B, E, D) features of the frames before; none by default.
    """
    batch, samples = waveforms.shape
    if earlier is None:
        earlier = np.zeros((batch, 0, config.embed_dim), np.float32)
    if statistics is None:
        statistics = np.zeros(statistics_shape(config, batch), np.float32)
    return {
        WAVEFORMS: waveforms,
        LENGTHS: np.full(batch, samples) if lengths is None else lengths,
        EARLIER: earlier,
        STATISTICS: statistics,
        LEVEL: np.zeros((batch, 2), np.float32) if level is None else level,
    }


def needed(module: str, extra: str) -> ModuleType:
    """Import an optional package, with its telemetry off unless the process has turned it on already.

    ONNX Runtime and OpenVINO would write identifiers into the home folder and connect to their makers.
    ``ORT_DISABLE_TELEMETRY=0`` leaves that of ONNX Runtime on.

    Raises:
        ExportError: it cannot be imported; the message says how to install it.
    """
    try:
        if module == "onnxruntime":
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        if module == "openvino":
            with _without("openvino_telemetry"):
                return import_module(module)
        imported = import_module(module)
        if module == "onnxruntime" and os.environ["ORT_DISABLE_TELEMETRY"] == "1":
            imported.disable_telemetry_events()  # versions before the variable
        return imported
    except ImportError as error:
        command = f"pip install 's3prl-dphubert[{extra}]'"
        raise ExportError(f"{module} cannot be imported ({error}), needed for {extra}: {command}") from error


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports of a module fail, which OpenVINO takes as its telemetry not being installed."""
    absent = module not in sys.modules
    if absent:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[module]


def open_session(source: Path | bytes, form: str, threads: int) -> Session:
    """Load a model into its runtime.

    Args:
        source: a file of that format, or an ONNX model in memory.
        form: ``onnx`` or ``openvino``.
        threads: number of threads of the runtime.

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
        model = source if isinstance(source, bytes) else str(source)
        try:
            self._run_options = runtime.RunOptions
            self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self.inputs = tuple(value.name for value in self._session.get_inputs())
            self.outputs = tuple(value.name for value in self._session.get_outputs())
            self.metadata = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        except Exception as error:  # its errors have no common base class
            raise _unreadable(source, error) from error

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the model and return its outputs by name."""
        outputs = self._session.run(None, {name: feeds[name] for name in self.inputs})
        return dict(zip(self.outputs, outputs, strict=True))

    def features(self, feeds: Feeds) -> np.ndarray:
        """Run the convolutions alone and return the features (B, F, D)."""
        options = self._run_options()
        options.only_execute_path_to_fetches = True
        return self._session.run([FEATURES], {name: feeds[name] for name in self.inputs}, options)[0]

    def run_parts(self, parts: Sequence[Feeds], on_outputs: OnOutputs) -> None:
        """Run the parts one after another, each with all threads."""
        for index, feeds in enumerate(parts):
            on_outputs(index, self.run(feeds))


@cache
def _core(openvino: ModuleType) -> Any:
    """Return the one ``Core`` of this process, which is never freed.

    OpenVINO's CPU plugin gives the process another signal stack, and frees it with the ``Core`` that loaded
    the plugin. If several are freed in the order of their creation, the process is left with a freed stack,
    and the next signal with a handler, such as the end of a child, ends it.
    """
    return openvino.Core()


class OpenVinoSession:
    """OpenVINO on the CPU, in the number types of the graph; its own choice would be less precise.

    Several parts run on :data:`STREAMS`, each with half of the threads: threads of one stream wait for each
    other, so fewer of them waste less time. The streams are made when they are first needed.
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
            self._request = self._compile(self._model, 1).create_infer_request()
            self.inputs = tuple(value.get_any_name() for value in self._model.inputs)
            self.outputs = tuple(value.get_any_name() for value in self._model.outputs)
            has_metadata = self._model.has_rt_info([KEY])
            self.metadata = self._model.get_rt_info([KEY]).astype(str) if has_metadata else None
        except Exception as error:  # a damaged file provokes errors of any class
            raise _unreadable(source, error) from error
        self._queue: Any = None
        self._front_end: Any = None
        self._lock = Lock()  # one batch at a time, since all share the requests

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the model and return its outputs by name."""
        inputs = {name: feeds[name] for name in self.inputs}
        # Outputs are copied, since the next run overwrites those of the runtime.
        outputs = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        return {name: outputs[index] for index, name in enumerate(self.outputs)}

    def features(self, feeds: Feeds) -> np.ndarray:
        """Run the convolutions alone and return the features (B, F, D)."""
        with self._lock:
            if self._front_end is None:
                output = self._model.output(FEATURES)
                parameters = [value.get_node() for value in self._model.inputs]
                front_end = self._openvino.Model([output], parameters, FEATURES)
                self._front_end = self._compile(front_end, 1).create_infer_request()
            inputs = {name: feeds[name] for name in self.inputs}
            return self._front_end.infer(inputs, share_inputs=True, share_outputs=False)[0]

    def run_parts(self, parts: Sequence[Feeds], on_outputs: OnOutputs) -> None:
        """Run as many parts at the same time as there are streams."""

        def on_done(request: Any, index: int) -> None:
            tensors = zip(self.outputs, request.output_tensors, strict=True)
            on_outputs(index, {name: tensor.data for name, tensor in tensors})

        with self._lock:
            if len(parts) == 1 or self.streams == 1:
                for index, feeds in enumerate(parts):
                    on_outputs(index, self.run(feeds))
                return
            if self._queue is None:
                self._queue = self._openvino.AsyncInferQueue(
                    self._compile(self._model, self.streams), self.streams
                )
            self._queue.set_callback(on_done)
            for index, feeds in enumerate(parts):
                self._queue.start_async({name: feeds[name] for name in self.inputs}, index)
            self._queue.wait_all()

    def _compile(self, model: Any, streams: int) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
        }
        return _core(self._openvino).compile_model(model, "CPU", options)


def _unreadable(source: Path | bytes, error: Exception) -> CheckpointError:
    reason = str(error).strip().split("\n")[-1] or type(error).__name__
    return CheckpointError(f"{'model' if isinstance(source, bytes) else source}: cannot be read ({reason})")
