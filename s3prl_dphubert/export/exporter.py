"""Export of models to runtimes that need no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.load import load_model
from ..errors import CheckpointError
from ..model import SpeechModel
from ..utils import environment
from ..utils.files import temporary_folder
from ..utils.hashing import sha256_tensors
from . import calibration, calibration_data, report, sensitivity
from .backends import FORMATS, KEY, needed, open_session
from .export_config import ExportConfig
from .extractor_graph import build
from .graph import Graph
from .metadata import PACKAGES, ExportMetadata
from .quantization import QuantizationPlan, lower, products, with_half_weights
from .report import REPORTS, ExportReport
from .runtime import Runtime, load_exported


def export_model(
    source: str | Path, out: str | Path, config: ExportConfig | None = None, overwrite: bool = False
) -> ExportReport:
    """Write a model and a report on it; either all files appear or none.

    Args:
        source: as for :func:`~s3prl_dphubert.load_model`.
        out: ``NAME.onnx``, or ``NAME.xml``, to which ``NAME.bin`` belongs.
        config: format and precision; the defaults of :class:`.ExportConfig` otherwise.
        overwrite: replace existing files.

    Returns:
        The report, which is also written beside ``out``.

    Raises:
        ConfigError: ``out`` has another suffix than the format, or the model lacks a layer.
        CheckpointError: the model cannot be loaded, or a file exists already.
        DataError: a manifest or its audio cannot be read.
        ExportError: a package is missing, or the result is not finite.
    """
    config, out = config or ExportConfig(), Path(out)
    config.check_suffix(out)
    runtime = needed("onnxruntime" if config.format == "onnx" else "openvino", config.format)
    needed("onnx", config.format)
    existing = [str(path) for path in targets(out) if path.exists()]
    if existing and not overwrite:
        raise CheckpointError(f"{', '.join(existing)}: exists already; choose another name or overwrite")
    model = load_model(source)
    layers = config.layers_of(model.config)
    speech = calibration_data.check(config.check, model.config.min_samples)
    threads = config.threads or torch.get_num_threads()
    graph = build(model, layers)
    lowered, plan, alone = _lower(graph, model, layers, config, threads)
    info = ExportMetadata(
        config=model.config,
        layers=layers,
        precision=config.precision,
        int8=tuple(sorted(plan.int8)),
        checkpoint=str(source),
        weights=sha256_tensors(model.state_dict()),
        versions=environment.versions(PACKAGES),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out) as folder:
        _write(lowered, info, folder / out.name, runtime)
        measured = _measure(folder / out.name, graph, info, model, speech, alone, threads)
        measured.write(folder / out.name)
        for path in targets(out):
            os.replace(folder / path.name, path)
    return measured


def targets(out: Path) -> list[Path]:
    """Return all files of an export, ``out`` itself last."""
    others = [out.with_name(out.name + suffix) for suffix in REPORTS]
    if out.suffix == FORMATS["openvino"]:
        others.append(out.with_suffix(".bin"))
    return [*others, out]


def _lower(
    graph: Graph, model: SpeechModel, layers: tuple[int, ...], config: ExportConfig, threads: int
) -> tuple[Graph, QuantizationPlan, dict[str, float]]:
    """Return the graph in the configured precision, its plan, and for int8 the error of each place alone."""
    onnx = config.format == "onnx"
    if config.precision == "bf16" and onnx:
        return with_half_weights(graph), QuantizationPlan(), {}
    if config.precision != "int8":
        plan = QuantizationPlan(bf16=config.precision == "bf16")
        return lower(graph, plan), plan, {}
    speech = calibration_data.calibration(config.calibrate, model.config.min_samples)
    values = {node.input[0] for node in products(graph)}
    if onnx:
        values |= {node.output[0] for node in products(graph) if node.op_type == "Conv"}
    ranges = calibration.measure(graph, sorted(values), speech, config.format, threads)
    plan = QuantizationPlan(bf16=not onnx, ranges=ranges, outputs=onnx)
    plan, alone = sensitivity.choose(graph, plan, layers, speech, config.max_error, config.format, threads)
    return lower(graph, plan), plan, alone


def _write(graph: Graph, info: ExportMetadata, path: Path, runtime: Any) -> None:
    content = graph.model({KEY: info.to_json()}).SerializeToString()
    if path.suffix == FORMATS["onnx"]:
        path.write_bytes(content)
        return
    network = runtime.Core().read_model(content)
    network.set_rt_info(info.to_json(), KEY)
    runtime.save_model(network, str(path), compress_to_fp16=False)


def _measure(
    path: Path,
    graph: Graph,
    info: ExportMetadata,
    model: SpeechModel,
    speech: list[Tensor],
    alone: dict[str, float],
    threads: int,
) -> ExportReport:
    """Measure the error of a file, and its speed beside the graph in float32 and the model in torch."""
    runtime = load_exported(path, threads)
    form = next(name for name, suffix in FORMATS.items() if path.suffix == suffix)
    plain = Runtime(open_session(graph.model().SerializeToString(), form, threads), info)
    runs: dict[str, report.Run] = {
        "file": runtime.extract_features,
        f"{form}, float32": plain.extract_features,
        "torch, float32": lambda waveforms: model.extract_features(waveforms, num_layers=max(info.layers)),
    }
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        speed = report.speed(runs, speech)
    finally:
        torch.set_num_threads(before)
    size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.exists())
    errors = report.errors(runtime, model, speech)
    return ExportReport(info, errors, len(speech), speed, threads, size, alone)
