"""A model in one format and precision, written to a file that may still change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..model import SpeechModel
from ..model.inference.precision_choice import resolve
from ..utils import environment
from ..utils.hashing import sha256_tensors
from . import calibration, calibration_data, sensitivity
from .backends import KEY, RUNTIMES, needed
from .export_config import ExportConfig
from .extractor_graph import build
from .graph import Graph
from .metadata import PACKAGES, ExportMetadata
from .quantization import QuantizationPlan, lower, products, with_half_weights
from .runtime import Runtime, load_exported
from .speech_batches import calibration_feeds, trial_feeds

MARGIN = 0.9  # share of the limit that products in 8 bits may take on the speech that chooses them


@dataclass(frozen=True)
class ExportSource:
    """A model to export.

    Args:
        name: where it is from.
        model: the encoder.
        layers: rising indices of the hidden states to return.
        threads: number of threads of the runtimes.
    """

    name: str
    model: SpeechModel
    layers: tuple[int, ...]
    threads: int

    def graph(self, form: str) -> Graph:
        """Return the model as a graph in float32, for ``onnx`` or ``openvino``.

        OpenVINO computes attention in blocks by itself, except with WavLM's position biases; ONNX Runtime
        keeps all scores.
        """
        return self._blocked if form == "onnx" or self.model.config.num_buckets else self._plain

    @cached_property
    def _blocked(self) -> Graph:
        return build(self.model, self.layers, blocks=True)

    @cached_property
    def _plain(self) -> Graph:
        return build(self.model, self.layers)

    @cached_property
    def weights(self) -> str:
        """SHA-256 of all weights."""
        return sha256_tensors(self.model.state_dict())


class Candidate:
    """A file in one format and precision.

    Args:
        source: what is exported.
        config: concrete format and precision.
        path: of the file; its folder is made.

    Attributes:
        alone: place -> error of its products alone in 8 bits.
    """

    def __init__(self, source: ExportSource, config: ExportConfig, path: Path) -> None:
        self.source, self.config, self.path = source, config, path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.plan = QuantizationPlan(bf16=self.rest == "bf16")
        self.alone: dict[str, float] = {}
        self._chosen: list[str] = []  # places for 8 bits, the most worthwhile first
        if config.precision == "int8":
            self._choose_places()
        self._places = self._chosen

    @property
    def name(self) -> str:
        """Format and precision."""
        return f"{self.config.format}, {self.config.precision}"

    @cached_property
    def rest(self) -> str:
        """Precision that products which are not in 8 bits are computed in."""
        config = self.config
        if config.format == "onnx":
            return "fp32"
        if config.precision == "int8":
            return resolve(config.rest, self.source.model.config, torch.device("cpu"))
        return config.precision

    @property
    def bytes(self) -> int:
        """Size of the file, weights included."""
        files = self.path, self.path.with_suffix(".bin")
        return sum(file.stat().st_size for file in files if file.exists())

    @property
    def info(self) -> ExportMetadata:
        """Metadata of the file."""
        return ExportMetadata(
            config=self.source.model.config,
            layers=self.source.layers,
            precision=self.config.precision,
            rest=self.rest,
            int8=tuple(sorted(self._places)),
            checkpoint=self.source.name,
            weights=self.source.weights,
            versions=environment.versions(PACKAGES),
        )

    def write(self) -> Runtime:
        """Write the file, and load it."""
        graph = self.source.graph(self.config.format)
        if self.config.format == "onnx" and self.config.precision == "bf16":
            lowered = with_half_weights(graph)
        else:
            lowered = lower(graph, replace(self.plan, int8=frozenset(self._places)))
        content = lowered.model({KEY: self.info.to_json()}).SerializeToString()
        if self.config.format == "onnx":
            self.path.write_bytes(content)
        else:
            _save_openvino(content, self.info, self.path)
        return load_exported(self.path, self.source.threads)

    @property
    def places(self) -> int:
        """Number of places whose products are in 8 bits."""
        return len(self._places)

    @places.setter
    def places(self, count: int) -> None:
        self._places = self._chosen[:count]

    def _choose_places(self) -> None:
        """Measure the ranges of 8 bits on speech, and choose the products that they are used for."""
        source, config = self.source, self.config
        graph = source.graph(config.format)
        shape = source.model.config
        speech = calibration_data.calibration(config.calibrate, shape.min_samples)
        values = {node.input[0] for node in products(graph)}
        outputs = config.format == "onnx"
        if outputs:
            values |= {node.output[0] for node in products(graph) if node.op_type == "Conv"}
        feeds = calibration_feeds(shape, speech)
        ranges = calibration.measure(graph, sorted(values), feeds, config.format, source.threads)
        self.plan = replace(self.plan, ranges=ranges, outputs=outputs)
        self._chosen, self.alone = sensitivity.choose(
            graph,
            self.plan,
            source.layers,
            trial_feeds(shape, speech),
            MARGIN * config.max_error,
            config.format,
            source.threads,
        )


def _save_openvino(content: bytes, info: ExportMetadata, path: Path) -> None:
    """Write an ONNX model as OpenVINO's IR.

    OpenVINO computes in bfloat16 where the processor can, unless it is told otherwise or a node is marked.
    With the marks only products of linear layers follow it, which tolerate that; differences of nearly
    equal numbers in the statistics of norms do not.
    """
    openvino: Any = needed(RUNTIMES["openvino"], "openvino")
    network = openvino.Core().read_model(content)
    for node in network.get_ops():
        if node.get_output_size() and node.get_output_element_type(0) != openvino.Type.bf16:
            node.get_rt_info()["precise_0"] = ""
    network.set_rt_info(info.to_json(), KEY)
    openvino.save_model(network, str(path), compress_to_fp16=False)
