"""Settings as plain values: YAML in and out, and configuration dataclasses from nested mappings."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError


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


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Names of the values that differ in two nested mappings, ``outer.inner``, and what each has."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif a != b:
        yield path, (a, b)
