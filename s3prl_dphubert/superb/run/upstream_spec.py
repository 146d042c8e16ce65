"""The model that a run of SUPERB is about, as s3prl is told of it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import ConfigError, RunError
from ...utils import hashing
from ...utils.config_io import read_yaml
from ...utils.files import read_json, write_text
from .workers.launcher import Launcher

FILE = "upstream.json"


@dataclass(frozen=True)
class Upstream:
    """An upstream of s3prl.

    Args:
        name: as after ``-u``.
        checkpoint: as after ``-k``: a path, a URL or a name on the Hub; empty for none.
        options: YAML file, as after ``-g``.
        title: what reports call it; by default its name, or the end of the checkpoint's path.

    Raises:
        ConfigError: a path does not exist, or holds what s3prl's ``-o`` takes for a separator.
    """

    name: str
    checkpoint: str = ""
    options: Path | None = None
    title: str = ""

    def __post_init__(self) -> None:
        faults = [] if self.name.isidentifier() else [f"name is {self.name!r}, allowed: a name on s3prl.hub"]
        if self.name == "dphubert_local" and not Path(self.checkpoint or "?").exists():
            faults.append(f"checkpoint is {self.checkpoint!r}, allowed: a checkpoint on this machine")
        if self.options is not None and not self.options.is_file():
            faults.append(f"options is {str(self.options)!r}, allowed: a YAML file")
        if self.checkpoint and Path(self.checkpoint).exists():
            object.__setattr__(self, "checkpoint", os.path.abspath(self.checkpoint))
        if self.options is not None:
            object.__setattr__(self, "options", Path(os.path.abspath(self.options)))
        for what, place in self.places.items():
            faults += plain(what, place)
        ConfigError.raise_for("upstream", faults)
        last = Path(self.checkpoint).parts[-2:] if self.checkpoint else ()
        object.__setattr__(self, "title", self.title or "/".join(last) or self.name)

    @property
    def arguments(self) -> list[str]:
        """How run_downstream is told of it."""
        checkpoint = ["-k", self.checkpoint] if self.checkpoint else []
        return ["-u", self.name, *checkpoint, *(["-g", str(self.options)] if self.options else [])]

    @property
    def places(self) -> dict[str, str]:
        """Arguments of a finished training that hold a place, which may have changed since."""
        here = self.checkpoint if self.checkpoint and Path(self.checkpoint).exists() else ""
        found = {"upstream_ckpt": here, "upstream_model_config": str(self.options or "")}
        return {name: value for name, value in found.items() if value}

    @cached_property
    def content(self) -> dict[str, Any]:
        """What a result depends on; a checkpoint on this machine counts by what is in it."""
        place = Path(self.checkpoint)
        local = bool(self.checkpoint) and place.exists()
        options = read_yaml(self.options) if self.options else {}
        options.pop("features", None)  # where hidden states are kept changes none
        return {
            "name": self.name,
            "checkpoint": _digest(place) if local else self.checkpoint,
            "options": options,
        }

    def measured(self, out: Path, launcher: Launcher) -> dict[str, Any]:
        """Its number of hidden states, parameters and MACs, from ``upstream.json`` where they are known.

        Raises:
            RunError: it cannot be loaded.
        """
        known, content = read_json(out / FILE), self.content
        if known.get("content") == content:
            return known
        found, log = out / ".measured.json", out / "upstream.log"
        called = {
            "ckpt": self.checkpoint or None,
            "model_config": str(self.options) if self.options else None,
        }
        called = {name: value for name, value in called.items() if value}
        try:
            launcher.run("measure", [str(found), json.dumps({"name": self.name, "called": called})], log, out)
        except RunError as error:
            raise RunError(f"{self.title} cannot be loaded: {error}") from error
        measured = {"content": content, "title": self.title, **read_json(found)}
        write_text(out / FILE, json.dumps(measured, indent=2) + "\n")
        found.unlink()
        return measured


def plain(what: str, path: str) -> list[str]:
    """What is wrong with a path that goes through s3prl's ``-o``, which splits at these."""
    return [f"{what} is {path!r}, allowed: without '=' and ',,'"] if "=" in path or ",," in path else []


def _digest(place: Path) -> str:
    """Changes with the content of a file, or of a checkpoint's files in a folder."""
    digest = hashlib.sha256()
    kinds = (".json", ".safetensors", ".bin", ".pt")
    inside = sorted(place.iterdir()) if place.is_dir() else []
    for path in [path for path in inside if path.suffix in kinds] if place.is_dir() else [place]:
        digest.update(path.name.encode() if place.is_dir() else b"")
        hashing.update(digest, path)
    return digest.hexdigest()
