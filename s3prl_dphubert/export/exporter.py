"""Writes models for runtimes that need no torch."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.load import load_model
from ..errors import CheckpointError
from ..model import SpeechModel
from . import calibration, calibration_data, report, sensitivity
from .backends import FORMATS, KEY, needed, open_session
from .export_config import ExportConfig
from .extractor_graph import build
from .graph import Graph
from .metadata import Info, versions, weights_hash
from .quantization import Plan, lower, products, with_half_weights
from .report import REPORTS, Report
from .runtime import Runtime, load_exported


def export_model(
    source: str | Path, out: str | Path, config: ExportConfig | None = None, overwrite: bool = False
) -> Report:
    """Write a model to ``out`` and, beside it, a report: all of it appears, or nothing.

    Args:
        source: as for :func:`~s3prl_dphubert.load_model`.
        out: ``NAME.onnx``, or ``NAME.xml``, to which ``NAME.bin`` belongs.
        config: how; the defaults of :class:`.ExportConfig` otherwise.
        overwrite: replace files that are there.

    Raises:
        ConfigError: ``out`` or a layer does not fit.
        CheckpointError: the model cannot be loaded, or a file is there already.
        DataError: a manifest or its audio cannot be read.
        ExportError: a package is missing, or the result is not finite.
    """
    config, out = config or ExportConfig(), Path(out)
    config.check_suffix(out)
    runtime = needed("onnxruntime" if config.format == "onnx" else "openvino", config.format)
    needed("onnx", config.format)
    there = [str(path) for path in targets(out) if path.exists()]
    if there and not overwrite:
        raise CheckpointError(f"{', '.join(there)}: exists already; choose another name or overwrite")
    model = load_model(source)
    layers = config.layers_of(model.config)
    heard = calibration_data.check(config.check, model.config.min_samples)
    threads = config.threads or torch.get_num_threads()
    whole = build(model, layers)
    lowered, plan, alone = _lowered(whole, model, layers, config, threads)
    info = Info(
        config=model.config,
        layers=layers,
        precision=config.precision,
        int8=tuple(sorted(plan.int8)),
        checkpoint=str(source),
        weights=weights_hash(model),
        versions=versions(),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        folder = Path(name)
        _write(lowered, info, folder / out.name, runtime)
        found = _measured(folder / out.name, whole, info, model, heard, alone, threads)
        found.write(folder / out.name)
        for path in targets(out):
            os.replace(folder / path.name, path)
    return found


def targets(out: Path) -> list[Path]:
    """All files of an export, the one that is named last."""
    others = [out.with_name(out.name + suffix) for suffix in REPORTS]
    if out.suffix == FORMATS["openvino"]:
        others.append(out.with_suffix(".bin"))
    return [*others, out]


def _lowered(
    graph: Graph, model: SpeechModel, layers: tuple[int, ...], config: ExportConfig, threads: int
) -> tuple[Graph, Plan, dict[str, float]]:
    """The graph in the precision asked for, what was planned, and for int8 each place's error alone."""
    onnx = config.format == "onnx"
    if config.precision == "bf16" and onnx:
        return with_half_weights(graph), Plan(), {}
    if config.precision != "int8":
        plan = Plan(bf16=config.precision == "bf16")
        return lower(graph, plan), plan, {}
    heard = calibration_data.calibration(config.calibrate, model.config.min_samples)
    values = {node.input[0] for node in products(graph)}
    if onnx:
        values |= {node.output[0] for node in products(graph) if node.op_type == "Conv"}
    bounds = calibration.measure(graph, sorted(values), heard, config.format, threads)
    plan = Plan(bf16=not onnx, ranges=bounds, outputs=onnx)
    plan, alone = sensitivity.choose(graph, plan, layers, heard, config.max_error, config.format, threads)
    return lower(graph, plan), plan, alone


def _write(graph: Graph, info: Info, path: Path, runtime: Any) -> None:
    content = graph.model({KEY: info.to_json()}).SerializeToString()
    if path.suffix == FORMATS["onnx"]:
        path.write_bytes(content)
        return
    network = runtime.Core().read_model(content)
    network.set_rt_info(info.to_json(), KEY)
    runtime.save_model(network, str(path), compress_to_fp16=False)


def _measured(
    path: Path,
    whole: Graph,
    info: Info,
    model: SpeechModel,
    heard: list[Tensor],
    alone: dict[str, float],
    threads: int,
) -> Report:
    runtime = load_exported(path, threads)
    form = next(name for name, suffix in FORMATS.items() if path.suffix == suffix)
    plain = Runtime(open_session(whole.model().SerializeToString(), form, threads), info)
    runs: dict[str, report.Run] = {
        "file": runtime.extract_features,
        f"{form}, float32": plain.extract_features,
        "torch, float32": lambda waveforms: model.extract_features(waveforms, num_layers=max(info.layers)),
    }
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        took = report.speed(runs, heard)
    finally:
        torch.set_num_threads(before)
    size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.exists())
    return Report(info, report.errors(runtime, model, heard), len(heard), took, threads, size, alone)
