"""Names that users give to checkpoints of their own, in this process or in a file. Imports no torch.

The file is a YAML mapping from names to sources, or to sources with options of the upstream::

    my_model: runs/first/model
    my_exact_model: {ckpt: user/repo, padding: exact}
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shown
from ..utils.readers import LARGEST_YAML, parse_yaml, read_limited, reading
from .teachers import TEACHERS

FILES = "S3PRL_DPHUBERT_UPSTREAMS"
NEED_A_CHECKPOINT = ("_local", "_url", "_gdriveid", "_custom")
"""Endings by which s3prl knows the upstreams that cannot be called without a checkpoint."""

in_process: dict[str, NamedCheckpoint] = {}
"""Names that :func:`s3prl_dphubert.register` was given in this process."""


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint with a name of the user's, under which s3prl takes it without arguments.

    Args:
        name: name on ``s3prl.hub``.
        ckpt: source as for :func:`s3prl_dphubert.load_model`, or an exported file.
        options: options of the upstream, such as ``precision``.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    name: str
    ckpt: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ConfigError.raise_for("name of an upstream", self._faults())

    def _faults(self) -> Iterator[str]:
        if not isinstance(self.name, str) or not self.name.isidentifier() or self.name.startswith("_"):
            yield f"name is {shown(self.name)}, allowed: letters, digits and _, beginning with a letter"
        elif self.name.endswith(NEED_A_CHECKPOINT):
            yield (
                f"name is {self.name!r}, allowed: other endings than {', '.join(NEED_A_CHECKPOINT)}, which "
                "s3prl takes for upstreams that need a checkpoint"
            )
        if not isinstance(self.ckpt, str) or not self.ckpt.strip():
            yield f"ckpt is {shown(self.ckpt)}, expected a path, a Hub id, a URL or the name of a teacher"


def find(name: str) -> NamedCheckpoint | None:
    """Return the checkpoint of a name, first of those given in this process; ``None`` if there is none."""
    return in_process.get(name) or read_files()[0].get(name)


def read_files() -> tuple[dict[str, NamedCheckpoint], list[str]]:
    """Read the user's files.

    They are those that ``S3PRL_DPHUBERT_UPSTREAMS`` lists, separated as in ``PATH``, or else
    ``s3prl-dphubert/upstreams.yaml`` in the user's configuration folder, if it is there.

    Returns:
        The checkpoints by their names, and a line for every name or file that cannot be used.
    """
    named: dict[str, NamedCheckpoint] = {}
    faults = []
    for path in _paths():
        try:
            values = _mapping(path)
        except ConfigError as error:
            faults.append(str(error))
            continue
        for name, value in values.items():
            try:
                checkpoint = _checkpoint(name, value, path.parent)
                if name in named:
                    raise ConfigError(f"{name} is there twice, in another file for {named[name].ckpt}")
                named[name] = checkpoint
            except ConfigError as error:
                faults.append(f"{path}: {error}")
    return named, faults


def absolute(source: str | Path, folder: str | Path = "") -> str:
    """Return a source, as an absolute path if it is one.

    Args:
        source: source as for :func:`s3prl_dphubert.load_model`.
        folder: folder that a relative path starts from, by default the current one.
    """
    if str(source) in TEACHERS and not isinstance(source, Path):
        return str(source)
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(source)))
    return path if isinstance(source, Path) or os.path.exists(path) else str(source)


def _paths() -> list[Path]:
    if listed := os.environ.get(FILES):
        return [Path(os.path.abspath(os.path.expanduser(path))) for path in listed.split(os.pathsep) if path]
    # os.path leaves the ~ of a user without a home, as in some containers, where pathlib raises.
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    path = folder / "s3prl-dphubert" / "upstreams.yaml"
    return [path] if path.is_file() else []


def _mapping(path: Path) -> dict[Any, Any]:
    with reading(path, ConfigError, "YAML"):
        values = parse_yaml(read_limited(path, LARGEST_YAML))
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: holds {shown(values)}, expected lines of name: source")
    return values or {}


def _checkpoint(name: Any, value: Any, folder: Path) -> NamedCheckpoint:
    options = dict(value) if isinstance(value, dict) else {"ckpt": value}
    source = options.pop("ckpt", None)
    ckpt = absolute(source, folder) if isinstance(source, str) and source else source
    try:
        return NamedCheckpoint(name, ckpt, {str(option): each for option, each in options.items()})
    except ConfigError as error:
        raise ConfigError(f"{shown(name)}: {'; '.join(error.faults)}") from error
