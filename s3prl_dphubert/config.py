"""Configurations of a compression run, and YAML in and out."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .budget import Budget
from .data.batches import BatchConfig
from .errors import ConfigError
from .gates import GateConfig
from .objective import ObjectiveConfig
from .start import StudentConfig

PRECISIONS = ("fp32", "bf16", "fp16")
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class TrainConfig:
    """How one stage is trained.

    Args:
        updates: optimizer steps.
        warmup: updates in which the learning rates rise; then they fall linearly to 0.
        lr: peak learning rate of weights and projections.
        gate_lr: peak learning rate of gates and multipliers.
        clip: largest gradient norm over all optimised parameters together.
        accumulate: micro-batches an update.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast).
        max_nonfinite: stop after so many updates in a row with a non-finite loss or gradient.
        save_every: updates between checkpoints.
        keep: checkpoints to keep.
        validate_every: updates between validations.
        log_every: updates between rows of the log.
        num_workers: processes that read audio; 0 reads in the training process.
    """

    updates: int = 50_000
    warmup: int = 15_000
    lr: float = 2e-4
    gate_lr: float = 0.02
    clip: float = 10.0
    accumulate: int = 1
    precision: str = "fp32"
    max_nonfinite: int = 20
    save_every: int = 1000
    keep: int = 2
    validate_every: int = 1000
    log_every: int = 50
    num_workers: int = 2

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.warmup <= self.updates:
            faults.append(f"warmup is {self.warmup}, allowed: 0 to updates ({self.updates})")
        for name in (
            "updates",
            "accumulate",
            "max_nonfinite",
            "save_every",
            "keep",
            "validate_every",
            "log_every",
        ):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}, allowed: 1 or more")
        for name in ("lr", "gate_lr", "clip"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, allowed: more than 0")
        if self.num_workers < 0:
            faults.append(f"num_workers is {self.num_workers}, allowed: 0 or more")
        if self.precision not in PRECISIONS:
            faults.append(f"precision is {self.precision!r}, allowed: {', '.join(PRECISIONS)}")
        ConfigError.raise_for("training", faults)


@dataclass(frozen=True)
class DataConfig:
    """Where the audio is.

    Args:
        train: manifest of the training utterances.
        valid: manifest for validation, or ``None`` to validate on none.
        valid_batches: batches of it to use.
        max_bad_fraction: share of unreadable files above which a run does not start.
        batch: how utterances are grouped.
    """

    train: str = ""
    valid: str | None = None
    valid_batches: int = 16
    max_bad_fraction: float = 0.05
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        faults = []
        if not self.train:
            faults.append("train is missing, allowed: path of a manifest")
        if not 0 <= self.max_bad_fraction <= 1:
            faults.append(f"max_bad_fraction is {self.max_bad_fraction}, allowed: 0 to 1")
        if self.valid_batches < 1:
            faults.append(f"valid_batches is {self.valid_batches}, allowed: 1 or more")
        ConfigError.raise_for("data", faults)


def _stage2() -> TrainConfig:
    return TrainConfig(updates=25_000, warmup=5_000, lr=1e-4)


@dataclass(frozen=True)
class CompressConfig:
    """One compression run: joint distillation and pruning, then distillation of what is left.

    Either stage may be ``None``. Without stage 1 nothing is pruned: a ``student`` of a shape of
    its own is distilled, and gates and budget are not used. Without stage 2 the result is the
    model right after pruning.

    Args:
        teacher: checkpoint directory, released ``.pth``, or a name that ships (``hubert_nano``).
        data: where the audio is.
        seed: of everything random.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        gates: which units are gated.
        budget: what the pruned model may cost.
        objective: what is distilled.
        student: the student's shape; ``None`` starts from a copy of the teacher.
        stage1: training with gates, then pruning.
        stage2: training of the pruned model or of the student.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    teacher: str
    data: DataConfig
    seed: int = 0
    device: str = "cpu"
    gates: GateConfig = field(default_factory=GateConfig)
    budget: Budget = field(default_factory=Budget)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    student: StudentConfig | None = None
    stage1: TrainConfig | None = field(default_factory=TrainConfig)
    stage2: TrainConfig | None = field(default_factory=_stage2)

    def __post_init__(self) -> None:
        faults = []
        if not DEVICE.fullmatch(self.device):
            faults.append(f"device is {self.device!r}, allowed: cpu, cuda, cuda:N")
        if self.seed < 0:
            faults.append(f"seed is {self.seed}, allowed: 0 or more")
        if self.stage1 is None and self.stage2 is None:
            faults.append("stage1 and stage2 are both null, allowed: at least one of them")
        if self.stage1 is None and self.student is None:
            faults.append("stage1 is null without a student, allowed: either of them makes the model smaller")
        ConfigError.raise_for("run", faults)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; its key ``base`` names a file beside it that it extends.

    Raises:
        ConfigError: the file is missing, no mapping, not YAML, or extends itself.
    """
    return _read_yaml(Path(path), ())


def _read_yaml(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base extends itself")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__}, allowed: a mapping")
    base = values.pop("base", None)
    if base is None:
        return values
    return merge(_read_yaml(path.parent / base, (*seen, path.resolve())), values)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Lay single values over a mapping, each given as ``field.inner=VALUE`` with VALUE in YAML.

    Raises:
        ConfigError: a change has no ``=`` or no field, or its value is not YAML.
    """
    for change in changes:
        name, equals, text = change.partition("=")
        fields = name.split(".")
        if not equals or not all(fields):
            raise ConfigError(f"--set is {change!r}, allowed: FIELD=VALUE, such as stage1.updates=20000")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {name} is {text!r}, not readable as YAML") from error
        for field_name in reversed(fields):
            value = {field_name: value}
        values = merge(values, value)
    return values


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """Build a configuration dataclass from nested plain values.

    Raises:
        ConfigError: listing every unknown, missing or invalid field at once.
    """
    faults: list[str] = []
    built = _build(kind, values, "", faults)
    ConfigError.raise_for("configuration", faults)
    return built


def _build(kind: type, values: Any, path: str, faults: list[str]) -> Any:
    if not isinstance(values, dict):
        faults.append(f"{path or 'top'} is {values!r}, allowed: a mapping")
        return None
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    before = len(faults)
    faults += [
        f"{path}{name} is not known, allowed: {', '.join(known)}" for name in values if name not in known
    ]
    arguments = {}
    for name, spec in known.items():
        hint = hints[name]
        if name not in values:
            if spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
                faults.append(f"{path}{name} is missing")
        elif (nested := _nested(hint, values[name])) is not None:
            arguments[name] = _build(nested, values[name], f"{path}{name}.", faults)
        else:
            arguments[name] = _convert(hint, values[name], f"{path}{name}", faults)
    if len(faults) > before:
        return None
    try:
        return kind(**arguments)
    except ConfigError as error:
        faults.append(f"{path}{error}")
        return None


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _nested(hint: Any, value: Any) -> type | None:
    """The configuration that a value has to become, if it is one."""
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    return next((option for option in options if dataclasses.is_dataclass(option)), None)  # type: ignore


def _convert(hint: Any, value: Any, path: str, faults: list[str]) -> Any:
    """Check a plain value against its annotation; integers pass as floats, ``1e-4`` as a number."""
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    names = []
    for option in (option for option in options if option is not type(None)):
        origin = typing.get_origin(option) or option
        if origin is dict and isinstance(value, dict):
            inner = typing.get_args(option)[1]
            return {key: _convert(inner, each, f"{path}.{key}", faults) for key, each in value.items()}
        if origin is tuple and isinstance(value, list | tuple):
            return tuple(value)
        if origin is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                pass
        elif isinstance(value, origin) and not (origin is int and isinstance(value, bool)):
            return value
        names.append({dict: "a mapping", tuple: "a list"}.get(origin, origin.__name__))
    faults.append(f"{path} is {value!r}, allowed: {' or '.join(names)}")
    return None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested values of a configuration, lists instead of tuples."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))
