"""Configurations as plain values: YAML files, nested mappings, and dataclasses built from them."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from ..errors import ConfigError, shown
from .readers import LARGEST_YAML, parse_yaml, read_limited, reading

T = TypeVar("T")
_SCIENTIFIC = re.compile(r"\s*[-+]?\d+(\.\d*)?[eE][-+]?\d+\s*")  # 1e-4 is a string in YAML, 1.0e-4 a number


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; its key ``base`` names a file beside it that it extends.

    Raises:
        ConfigError: the file is missing, no mapping, not YAML, or extends itself.
    """
    return _read_yaml(Path(path), ())


def _read_yaml(path: Path, descendants: tuple[Path, ...]) -> dict[str, Any]:
    with reading(path, ConfigError, "YAML"):
        values = parse_yaml(read_limited(path, LARGEST_YAML))
        if path.resolve() in descendants:
            raise ConfigError(f"{path}: base extends itself")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__}, expected a mapping")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base is {shown(base)}, expected the name of a file")
    return merge(_read_yaml(path.parent / base, (*descendants, path.resolve())), values)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        is_section = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if is_section else value
    return merged


def apply_changes(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
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
            value: Any = float(text) if _SCIENTIFIC.fullmatch(text) else parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--set {name} is {shown(text)}, not readable as YAML") from error
        for field_name in reversed(fields):
            value = {field_name: value}
        values = merge(values, value)
    return values


def from_dict(
    kind: type[T], values: Any, what: str = "configuration", *, complete: bool = False, strict: bool = False
) -> T:
    """Build a dataclass, and those nested in it, from plain values.

    All faults are found in one pass, each named by the path of its field (``stage1.lr``): unknown and
    missing fields, values of another type, and whatever the ``__post_init__`` of a dataclass refuses. A
    section with a fault does not hide those of the others, nor its own further ones. The values of a
    section are laid over the default of its field, which need not have the defaults of its class.

    Args:
        kind: dataclass to build.
        values: mapping as YAML or JSON gives it; lists become tuples, and a string such as ``1e-4``, which
            YAML does not take for a number, is a number where one is expected.
        what: name of the whole in the error message, such as the path of its file.
        complete: require every field, also those that have a default.
        strict: take no string for a number; for values that a program wrote.

    Raises:
        ConfigError: listing every fault.
    """
    reader = _Reader(complete, strict)
    config = reader.build(kind, values, "")
    ConfigError.raise_for(what, reader.faults)
    return config


def type_faults(config: Any) -> list[str]:
    """List the fields of a dataclass instance whose values do not have the annotated types."""
    reader = _Reader(complete=True, strict=True)
    for name, hint in _hints(type(config)).items():
        reader.convert(hint, getattr(config, name), name)
    return reader.faults


class _Reader:
    """Build dataclasses from nested values, and collect the faults of the values.

    A value that cannot be used is replaced by a stand-in, so that the checks of the dataclass still run on
    the other fields. Faults that those checks find in a stand-in are left out.
    """

    def __init__(self, complete: bool, strict: bool) -> None:
        self.complete, self.strict = complete, strict
        self.faults: list[str] = []
        self.replaced: list[str] = []  # paths of the fields that hold a stand-in

    def build(self, kind: type[T], values: Any, path: str, defaults: T | None = None) -> T:
        """Return an instance of a dataclass; after a fault it only serves further checks.

        Args:
            kind: dataclass to build.
            values: mapping of its fields.
            path: of the section, for messages.
            defaults: instance whose values the missing fields take; by default those of the class.
        """
        if not isinstance(values, Mapping):
            self._refuse(path, values, "a mapping")
            return _unchecked(kind, {})
        prefix = f"{path}." if path else ""
        hints = _hints(kind)
        for name in values:
            if name not in hints:
                self.faults.append(f"{prefix}{name}: unknown field; available: {', '.join(hints)}")
        arguments: dict[str, Any] = {}
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            name, at = field.name, f"{prefix}{field.name}"
            if name in values:
                default = _default(field) if defaults is None else getattr(defaults, name)
                value = self.convert(hints[name], values[name], at, default)
                if value is not _UNUSABLE:
                    arguments[name] = value
                    continue
            elif self.complete or not _has_default(field):
                self.faults.append(f"{at} is missing")
            else:
                if defaults is not None:
                    arguments[name] = getattr(defaults, name)
                continue
            self.replaced.append(at)
        try:
            return kind(**_with_stand_ins(kind, arguments))
        except ConfigError as error:
            self._add(error, prefix, hints)
            return _unchecked(kind, arguments)

    def _add(self, error: ConfigError, prefix: str, names: Iterable[str]) -> None:
        """Add the faults that a dataclass found, with paths, but not those that concern a stand-in."""
        replaced = [path.removeprefix(prefix) for path in self.replaced if path.startswith(prefix)]
        for fault in error.faults or (str(error),):
            if any(re.search(rf"\b{re.escape(name)}\b", fault) for name in replaced):
                continue
            names_field = re.split(r"\W", fault, maxsplit=1)[0] in names
            self.faults.append(f"{prefix}{fault}" if names_field or not prefix else f"{prefix[:-1]}: {fault}")

    def _refuse(self, path: str, value: Any, expected: str) -> Any:
        self.faults.append(
            f"{path} is {shown(value)}, expected {expected}" if path else f"expected {expected}"
        )
        return _UNUSABLE

    def convert(self, hint: Any, value: Any, path: str, default: Any = None) -> Any:
        """Return a value in the type of its annotation, or ``_UNUSABLE`` after noting the fault.

        A section is laid over its ``default``.
        """
        options = _options(hint)
        for option in options:
            origin = typing.get_origin(option) or option
            if origin is Any or (origin is type(None) and value is None):
                return value
            if dataclasses.is_dataclass(origin) and isinstance(origin, type):
                if isinstance(value, origin):
                    return value
                if isinstance(value, Mapping):
                    return self.build(origin, value, path, default if isinstance(default, origin) else None)
            elif origin in (dict, Mapping) and isinstance(value, Mapping):
                return self._convert_mapping(option, value, path)
            elif origin is tuple and isinstance(value, list | tuple):
                return self._convert_list(option, value, path)
            elif origin in _SCALARS:
                if (scalar := self._scalar(origin, value)) is not _UNUSABLE:
                    return scalar
            elif isinstance(origin, type) and isinstance(value, origin):
                return value
        return self._refuse(path, value, " or ".join(dict.fromkeys(map(_describe, options))))

    def _convert_mapping(self, hint: Any, values: Mapping[str, Any], path: str) -> Any:
        inner = (*typing.get_args(hint), Any, Any)[1]
        converted = {key: self.convert(inner, value, f"{path}.{key}") for key, value in values.items()}
        return _UNUSABLE if any(value is _UNUSABLE for value in converted.values()) else converted

    def _convert_list(self, hint: Any, values: Sequence[Any], path: str) -> Any:
        inner = typing.get_args(hint) or (Any, ...)
        if inner[-1] is ...:
            inner = inner[:1] * len(values)
        elif len(inner) != len(values):
            return self._refuse(path, values, _describe(hint))
        rows = enumerate(zip(inner, values, strict=True))
        converted = tuple(self.convert(hint, value, f"{path}[{i}]") for i, (hint, value) in rows)
        return _UNUSABLE if any(value is _UNUSABLE for value in converted) else converted

    def _scalar(self, kind: type, value: Any) -> Any:
        """Return a plain value as ``kind``; an integer counts as a number, a Boolean as neither."""
        if isinstance(value, bool) and kind is not bool:
            return _UNUSABLE
        if kind is float and isinstance(value, int | float if self.strict else int | float | str):
            try:
                return float(value)
            except (ValueError, OverflowError):
                return _UNUSABLE
        return value if isinstance(value, kind) else _UNUSABLE


_UNUSABLE: Any = object()
_SCALARS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _hints(kind: type) -> dict[str, Any]:
    """Field -> annotated type, of the fields that ``__init__`` takes."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}  # type: ignore


def _options(hint: Any) -> tuple[Any, ...]:
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint) or hint
    if origin is type(None):
        return "null"
    if origin is tuple:
        length = [] if ... in typing.get_args(hint) else typing.get_args(hint)
        return f"a list of {len(length)}" if length else "a list"
    return _SCALARS.get(origin, "a mapping")


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _with_stand_ins(kind: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Add values of the right types for missing fields without a default."""
    hints, whole = _hints(kind), dict(arguments)
    for field in dataclasses.fields(kind):
        if field.name not in whole and not _has_default(field):
            options = _options(hints[field.name])
            origin = typing.get_origin(options[0]) or options[0]
            if type(None) in options or not isinstance(origin, type):
                whole[field.name] = None
            elif dataclasses.is_dataclass(origin):
                whole[field.name] = _unchecked(origin, {})
            else:
                whole[field.name] = {} if origin is Mapping else origin()
    return whole


def _unchecked(kind: type[T], arguments: dict[str, Any]) -> T:
    """Return an instance whose ``__post_init__`` has not run."""
    instance = object.__new__(kind)
    whole = _with_stand_ins(kind, arguments)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        value = whole[field.name] if field.name in whole else _default(field)
        object.__setattr__(instance, field.name, value)
    return instance


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; ``MISSING`` if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def is_int(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer, and no Boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is an integer or a float, finite or not, and no Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def to_dict(config: Any) -> dict[str, Any]:
    """Return plain nested values of a configuration, with lists instead of tuples."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the path (``outer.inner``) and both values of each difference between two nested mappings."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif a != b:
        yield path, (a, b)
