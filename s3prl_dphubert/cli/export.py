"""Commands that write a model in another format: ``convert``, ``export-hub`` and ``export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import cards
from .models import SOURCE

DTYPES = ("float32", "float16")


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    convert = commands.add_parser("convert", help="convert a model of any format into a checkpoint or a .pth")
    convert.set_defaults(run=_convert)
    convert.add_argument("model", metavar="MODEL", help=SOURCE)
    target = "checkpoint directory; with .pth, the published code's format"
    convert.add_argument("target", type=Path, help=target)
    native = (
        "dphubert, or transformers: a dense model for its own HubertModel, WavLMModel … (default dphubert)"
    )
    convert.add_argument("--format", choices=("dphubert", "transformers"), default="dphubert", help=native)
    kinds = "with --format transformers: hubert (default) or wav2vec2, which differ in their name alone"
    convert.add_argument("--model-type", choices=("hubert", "wav2vec2"), help=kinds)
    convert.add_argument(
        "--dtype", choices=(*DTYPES, "bfloat16"), default="float32", help="weights (default float32)"
    )
    cards.add_options(convert)

    hub = commands.add_parser("export-hub", help="write a folder for the Hub that s3prl runs by itself")
    hub.set_defaults(run=_hub)
    hub.add_argument("model", metavar="MODEL", help=SOURCE)
    hub.add_argument("folder", type=Path, help="folder to write, with expert.py, model.pt and the code")
    hub.add_argument("--dtype", choices=DTYPES, default="float32", help="weights (default float32)")

    export = commands.add_parser("export", help="write a model for ONNX Runtime or OpenVINO, with a report")
    export.set_defaults(run=_export)
    export.add_argument("model", metavar="MODEL", help=SOURCE)
    export.add_argument("out", type=Path, help="NAME.onnx, NAME.xml for OpenVINO, or NAME for --format auto")
    form = "onnx, openvino or auto, the faster one here (default: by the suffix of OUT)"
    export.add_argument("--format", help=form)
    precision = "fp32, bf16, int8 or auto, the fastest here within --max-error (default fp32)"
    export.add_argument("--precision", default="fp32", help=precision)
    rest = "products that int8 leaves, for OpenVINO: fp32, bf16 or auto, the faster one here (default auto)"
    export.add_argument("--rest", default="auto", help=rest)
    layers = "hidden states to return, 0,6,12 (default all)"
    export.add_argument("--layers", help=layers)
    calibrate = "speech that int8's ranges are measured on (default: half of the embedded voices)"
    export.add_argument("--calibrate", type=Path, metavar="MANIFEST", help=calibrate)
    check = "speech for the report (default: the other half)"
    export.add_argument("--check", type=Path, metavar="MANIFEST", help=check)
    limit = "largest relative error of an utterance's hidden states (default 0.03)"
    export.add_argument("--max-error", type=float, default=0.03, help=limit)
    export.add_argument("--threads", type=int, help="threads of the runtime, for calibration and timing")
    export.add_argument("--overwrite", action="store_true", help="replace existing files")


def _hub(arguments: argparse.Namespace) -> None:
    import torch

    from ..upstream.hub_repo import export_hub

    folder = export_hub(arguments.model, arguments.folder, getattr(torch, arguments.dtype))
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{folder}  {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")
    print(f"upload: hf upload USER/REPO {folder}")


def _convert(arguments: argparse.Namespace) -> None:
    import torch

    from ..checkpoints import dphubert_pth, native_transformers
    from ..checkpoints.directory import save_model
    from ..checkpoints.load import load_model
    from ..checkpoints.model_card import model_card

    target: Path = arguments.target
    dtype = getattr(torch, arguments.dtype)
    metadata = cards.metadata(arguments)
    model = load_model(arguments.model)
    if target.suffix != ".pth":
        rows, native = {"source": arguments.model}, arguments.format == "transformers"
        stated = metadata.of(arguments.model)
        card = model_card(target.name, model.config, stated, rows, native=native)
        if native:
            print(native_transformers.write(model, target, arguments.model_type, card, dtype))
        else:
            print(save_model(model, target, card, dtype))
        return
    added = dphubert_pth.write(model, target, dtype)
    print(target)
    if added:
        names = ", ".join(sorted({name.rpartition(".")[0] for name in added}))
        print(f"{sum(added.values()):,} parameters added, since the format has no empty sublayers: {names}")


def _export(arguments: argparse.Namespace) -> None:
    from ..export.backends import needed
    from ..export.export_config import ExportConfig

    config = ExportConfig(
        format=arguments.format or _format(arguments.out),
        precision=arguments.precision,
        rest=arguments.rest,
        layers=_layers(arguments.layers),
        calibrate=arguments.calibrate,
        check=arguments.check,
        max_error=arguments.max_error,
        threads=arguments.threads,
    )
    needed("onnx", config.format)
    from ..export.exporter import export_model

    report = export_model(arguments.model, arguments.out, config, arguments.overwrite)
    if report.choice:
        print(report.choice)
    print(f"{arguments.out.with_name(report.file)}  {report.bytes:,} bytes\n\n{report.to_markdown()}")


def _format(out: Path) -> str:
    """Return the format of a file's suffix; without one, the fastest."""
    return {".onnx": "onnx", "": "auto"}.get(out.suffix, "openvino")


def _layers(text: str | None) -> tuple[int, ...] | None:
    from ..errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--layers is {text!r}, allowed: numbers with commas, 0,6,12") from error
