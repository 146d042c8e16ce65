"""Export a model for ONNX Runtime or OpenVINO, run the file, and compare it with the original."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from s3prl_dphubert import ExportConfig, export_model, load_exported, load_model


def main() -> None:
    """Export, run both on the same batch, and print error and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hubert_mini", help="name, directory, file or Hub id")
    parser.add_argument("--out", type=Path, default=Path("exported.onnx"), help="NAME.onnx, or NAME.xml")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or int8")
    arguments = parser.parse_args()

    kind = "onnx" if arguments.out.suffix == ".onnx" else "openvino"
    config = ExportConfig(format=kind, precision=arguments.precision)
    export_model(arguments.model, arguments.out, config, overwrite=True)

    waveforms, lengths = torch.randn(4, 32_000), torch.tensor([32_000, 24_000, 16_000, 8_000])
    waveforms *= torch.arange(32_000) < lengths[:, None]  # zero after the end of each utterance
    original, exported = load_model(arguments.model), load_exported(arguments.out)
    results = {}
    for name, model in (("torch", original), ("exported", exported)):
        with torch.no_grad():
            model.extract_features(waveforms, lengths)  # the first call prepares buffers
            began = time.perf_counter()
            results[name], frames = model.extract_features(waveforms, lengths)
        print(f"{name}: {1000 * (time.perf_counter() - began):.0f} ms")
    valid = torch.arange(results["torch"][-1].shape[1]) < frames[:, None]  # (B, F)
    reference, result = (results[name][-1][valid] for name in ("torch", "exported"))
    print(f"relative error of the last layer: {(result - reference).norm() / reference.norm():.1e}")


if __name__ == "__main__":
    main()
