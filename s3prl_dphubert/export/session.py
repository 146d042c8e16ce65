"""The two runtimes behind one interface: a model in, arrays by name out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError
from .errors import ExportError

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
"""Format and the suffix of its files."""

WAVEFORMS, LENGTHS, FRAMES, HIDDEN = "waveforms", "lengths", "frames", "hidden_state_{}"
"""Inputs and outputs of a graph."""

STREAMS, ROWS = 2, 2  # of OpenVINO: requests at a time, and rows of each at most

KEY = "s3prl_dphubert"
"""Under which a file keeps what it says of itself."""


class Session(Protocol):
    """A model that is ready to run."""

    names: tuple[str, ...]
    about: str | None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        ...


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


def open_session(source: Path | bytes, form: str, threads: int, *, by_row: bool = False) -> Session:
    """Make a model ready.

    Args:
        source: a file of that format, or an ONNX model in memory.
        form: ``onnx`` or ``openvino``, the runtime.
        threads: how many it uses.
        by_row: whether a row of each output comes from the same row of the inputs alone, so that a batch
            may be computed in parts.

    Raises:
        ExportError: the runtime is not installed.
        CheckpointError: the file cannot be read.
    """
    return OnnxSession(source, threads) if form == "onnx" else OpenVinoSession(source, threads, by_row)


class OnnxSession:
    """ONNX Runtime on the CPU."""

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
        self.names = tuple(output.name for output in self._session.get_outputs())
        self.about = self._session.get_modelmeta().custom_metadata_map.get(KEY)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        return dict(zip(self.names, self._session.run(None, dict(feeds)), strict=True))


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

    Where rows are independent, a batch runs as requests of few rows on two streams, each with half of the
    threads, which wait for each other less and need less memory. They are made by the first batch.
    """

    def __init__(self, source: Path | bytes, threads: int, by_row: bool = False) -> None:
        self._openvino = needed("openvino", "openvino")
        self._threads, self._by_row = threads, by_row
        try:
            self._model = _core(self._openvino).read_model(
                source if isinstance(source, bytes) else str(source)
            )
            self._request = self._compile(1).create_infer_request()
        except Exception as error:  # whatever a damaged file provokes
            raise _unreadable(source, error) from error
        self._queue: Any = None
        self._turn = Lock()  # one batch at a time: all share the queue
        self.names = tuple(output.get_any_name() for output in self._model.outputs)
        known = self._model.has_rt_info([KEY])
        self.about = self._model.get_rt_info([KEY]).astype(str) if known else None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        rows = len(next(iter(feeds.values())))
        if self._by_row and self._threads >= STREAMS and rows >= STREAMS:
            with self._turn:
                return self._in_parts(feeds, rows)
        # Outputs are copies: what the runtime itself keeps is overwritten by the next run.
        found = self._request.infer(dict(feeds), share_inputs=True, share_outputs=False)
        return {name: found[index] for index, name in enumerate(self.names)}

    def _in_parts(self, feeds: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        if self._queue is None:
            self._queue = self._openvino.AsyncInferQueue(self._compile(STREAMS), STREAMS)
        step = min(ROWS, math.ceil(rows / STREAMS))
        found: dict[str, np.ndarray] = {}
        lock = Lock()

        def keep(request: Any, start: int) -> None:
            for name, tensor in zip(self.names, request.output_tensors, strict=True):
                part = tensor.data
                with lock:
                    if name not in found:
                        found[name] = np.empty((rows, *part.shape[1:]), part.dtype)
                found[name][start : start + len(part)] = part

        self._queue.set_callback(keep)
        for start in range(0, rows, step):
            self._queue.start_async({n: value[start : start + step] for n, value in feeds.items()}, start)
        self._queue.wait_all()
        return found

    def _compile(self, streams: int) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
        }
        return _core(self._openvino).compile_model(self._model, "CPU", options)


def _unreadable(source: Path | bytes, error: Exception) -> CheckpointError:
    reason = str(error).strip().split("\n")[-1] or type(error).__name__
    return CheckpointError(f"{'model' if isinstance(source, bytes) else source}: cannot be read ({reason})")
