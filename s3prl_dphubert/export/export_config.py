"""Configuration of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ConfigError
from ..model import ModelConfig
from .backends import FORMATS

PRECISIONS = ("fp32", "bf16", "int8")
RESTS = ("fp32", "bf16")
AUTO = "auto"


@dataclass(frozen=True)
class ExportConfig:
    """Format and precision of an export.

    Args:
        format: ``onnx``, for ONNX Runtime, or ``openvino``; ``auto``: the one that is faster on this machine.
        precision: ``fp32``; ``bf16``: products in bfloat16 for OpenVINO, only weights for ONNX; ``int8``:
            products in 8 bits where that costs little; ``auto``: the fastest on this machine within
            ``max_error``.
        rest: precision of the products that ``int8`` leaves, for OpenVINO: ``fp32``, ``bf16``, or ``auto``,
            the faster one on this machine. ONNX Runtime computes them in float32.
        layers: rising indices of the hidden states that the file returns; all by default.
        calibrate: manifest of speech on which int8's ranges are measured; by default speech that ships.
        check: manifest of other speech on which the report is measured; by default speech that ships.
        max_error: largest relative error of an utterance (mean over the hidden states), alone or in a batch
            of any lengths. int8 takes as many products as it allows; a file beyond it is not written.
        threads: threads of the runtime for calibration and timing; as many as torch uses by default.

    Raises:
        ConfigError: a field is invalid; the message lists all of them.
    """

    format: str = "openvino"
    precision: str = "fp32"
    rest: str = AUTO
    layers: tuple[int, ...] | None = None
    calibrate: Path | None = None
    check: Path | None = None
    max_error: float = 0.03
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value!r}, allowed: {', '.join(allowed)}"
            for name, value, allowed in (
                ("format", self.format, (*FORMATS, AUTO)),
                ("precision", self.precision, (*PRECISIONS, AUTO)),
                ("rest", self.rest, (*RESTS, AUTO)),
            )
            if value not in allowed
        ]
        if self.layers is not None and (not self.layers or sorted({*self.layers}) != list(self.layers)):
            faults.append(f"layers is {self.layers}, allowed: rising numbers, at least one")
        if not 0 < self.max_error < 1:
            faults.append(f"max_error is {self.max_error}, allowed: above 0 and below 1")
        if self.calibrate is not None and self.precision not in ("int8", AUTO):
            faults.append(f"calibrate is {self.calibrate}, allowed: only with precision int8 or auto")
        if self.rest in RESTS and (self.precision not in ("int8", AUTO) or self.format == "onnx"):
            faults.append(f"rest is {self.rest}, allowed: only with precision int8 or auto, for OpenVINO")
        if self.threads is not None and self.threads < 1:
            faults.append(f"threads is {self.threads}, allowed: 1 or more")
        ConfigError.raise_for("export", faults)

    def layers_of(self, config: ModelConfig) -> tuple[int, ...]:
        """Return the indices of the hidden states to export of a model.

        Raises:
            ConfigError: the model has no such hidden state.
        """
        if self.layers is None:
            return tuple(range(config.num_layers + 1))
        wrong = [layer for layer in self.layers if not 0 <= layer <= config.num_layers]
        ConfigError.raise_for(
            "export", [f"layers has {layer}, allowed: 0 to {config.num_layers}" for layer in wrong]
        )
        return self.layers

    def candidates(self, formats: Sequence[str]) -> list[ExportConfig]:
        """Return what ``auto`` stands for, the most precise first; the configuration itself without it.

        Args:
            formats: those whose runtimes are installed.
        """
        precisions = PRECISIONS if self.precision == AUTO else (self.precision,)
        return [
            replace(
                self,
                precision=precision,
                format=form,
                calibrate=self.calibrate if precision == "int8" else None,
                rest=self.rest if precision == "int8" and form == "openvino" else AUTO,
            )
            for precision in precisions
            for form in (formats if self.format == AUTO else (self.format,))
            # ONNX Runtime computes the bf16 file as the one in float32, after converting its weights.
            if not (self.precision == AUTO and form == "onnx" and precision == "bf16")
        ]

    def check_suffix(self, out: Path) -> None:
        """Check that a file name has the suffix of the format, and none if that is still to be chosen.

        Raises:
            ConfigError: it has another one.
        """
        if self.format == AUTO:
            if out.suffix in FORMATS.values():
                raise ConfigError(
                    f"export: OUT is {out}, allowed with format auto: a name without {out.suffix}"
                )
            return
        suffix = FORMATS[self.format]
        if out.suffix != suffix:
            raise ConfigError(
                f"export: OUT is {out}, allowed: a name that ends in {suffix}, for {self.format}"
            )
