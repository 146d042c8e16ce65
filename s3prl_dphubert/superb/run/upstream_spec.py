"""The upstream that a run of SUPERB is about, as the command line of s3prl names it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...checkpoints import hub, user_names
from ...errors import ConfigError, RunError
from ...utils import hashing
from ...utils.config_io import read_yaml
from ...utils.files import write_text
from ...utils.readers import read_record
from .run_files import UPSTREAM
from .workers.launcher import Launcher

HUB_UPSTREAMS = ("dphubert_hub", "dphubert_local")
WEIGHTS = (".json", ".safetensors", ".bin", ".pt")  # files of a checkpoint directory that change results


@dataclass(frozen=True)
class UpstreamSpec:
    """An upstream of s3prl.

    Args:
        name: as after ``-u``.
        checkpoint: as after ``-k``: a path, a URL or a name on the Hub; empty for none.
        options: YAML file, as after ``-g``.
        title: name in reports; by default ``name``, or the end of the checkpoint's path.

    Raises:
        ConfigError: a path does not exist, or holds a separator of s3prl's ``-o``; or the options leave the
            precision to the machine, on which scores would depend.
    """

    name: str
    checkpoint: str = ""
    options: Path | None = None
    title: str = ""

    def __post_init__(self) -> None:
        faults = [] if self.name.isidentifier() else [f"name is {self.name!r}, allowed: a name on s3prl.hub"]
        if self.name == "dphubert_local" and not (self._is_local or hub.is_remote(self.checkpoint)):
            faults.append(f"checkpoint is {self.checkpoint!r}, allowed: a path, a teacher's name or a Hub id")
        if self.options is not None and not self.options.is_file():
            faults.append(f"options is {str(self.options)!r}, allowed: a YAML file")
        elif self._options.get("precision") == "auto":
            faults.append(
                "precision is 'auto', allowed for scores, which no machine may change: fp32, bf16, fp16"
            )
        if self._is_local:
            object.__setattr__(self, "checkpoint", os.path.abspath(self.checkpoint))
        if self.options is not None:
            object.__setattr__(self, "options", Path(os.path.abspath(self.options)))
        for name, path in self.paths.items():
            faults += separator_faults(name, path)
        ConfigError.raise_for("upstream", faults)
        last = Path(self.checkpoint).parts[-2:] if self.checkpoint else ()
        object.__setattr__(self, "title", self.title or "/".join(last) or self.name)

    @property
    def _is_local(self) -> bool:
        return bool(self.checkpoint) and Path(self.checkpoint).exists()

    @property
    def arguments(self) -> list[str]:
        """Arguments of run_downstream that name the upstream."""
        checkpoint = ["-k", self.checkpoint] if self.checkpoint else []
        return ["-u", self.name, *checkpoint, *(["-g", str(self.options)] if self.options else [])]

    @property
    def paths(self) -> dict[str, str]:
        """Arguments of a finished training that hold a path, which may have changed since."""
        paths = {}
        if self._is_local:
            paths["upstream_ckpt"] = self.checkpoint
        if self.options:
            paths["upstream_model_config"] = str(self.options)
        return paths

    @property
    def _options(self) -> dict[str, Any]:
        """Options of the name, if it is the user's, and of the file."""
        named = user_names.find(self.name)
        return {**(named.options if named else {}), **(read_yaml(self.options) if self.options else {})}

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that changes results: of a local checkpoint the content, not the path."""
        named = user_names.find(self.name)
        source = self if named is None else UpstreamSpec("dphubert_local", named.ckpt)
        options = self._options
        if options.get("features"):  # wherever the cache is, and whether it has them: they are rounded
            options["features"] = "float16"
        return {
            "name": self.name,
            "checkpoint": _digest(Path(source.checkpoint)) if source._is_local else source._pinned,
            "options": options,
        }

    @property
    def _pinned(self) -> str:
        """The checkpoint; of a repository on the Hub at the commit that the cache has or the Hub gives."""
        parsed = hub.parse_hub_id(self.checkpoint) if self.name in HUB_UPSTREAMS else None
        if parsed is None or parsed[0].revision is not None:
            return self.checkpoint
        repository, filename = parsed
        try:
            return f"{self.checkpoint}@{repository.pinned(filename or 'config.json').revision}"
        except hub.DownloadError:  # says s3prl in more words when it loads the checkpoint
            return self.checkpoint

    def measured(self, out: Path, launcher: Launcher) -> dict[str, Any]:
        """Count hidden states, parameters and MACs, once for all calls: ``upstream.json`` keeps the numbers.

        Raises:
            RunError: it cannot be loaded.
        """
        recorded = read_record(out / UPSTREAM)
        if recorded.get("content") == self.content:
            return recorded
        answer, log = out / ".measured.json", out / "upstream.log"
        keywords = {"ckpt": self.checkpoint, "model_config": str(self.options) if self.options else ""}
        request = {"name": self.name, "called": {name: value for name, value in keywords.items() if value}}
        try:
            launcher.run("measure", [str(answer), json.dumps(request)], log, out)
        except RunError as error:
            raise RunError(f"{self.title} cannot be loaded: {error}") from error
        measured = {"content": self.content, "title": self.title, **read_record(answer)}
        write_text(out / UPSTREAM, json.dumps(measured, indent=2) + "\n")
        answer.unlink()
        return measured


def separator_faults(name: str, path: str) -> list[str]:
    """Return the fault of a path that s3prl's ``-o`` would split, if it has one."""
    return [f"{name} is {path!r}, allowed: without '=' and ',,'"] if "=" in path or ",," in path else []


def _digest(checkpoint: Path) -> str:
    """Return the SHA-256 of a file, or of names and contents of the files in a checkpoint directory."""
    if not checkpoint.is_dir():
        return hashing.sha256_file(checkpoint)
    return hashing.sha256_tree(checkpoint, sorted(p for p in checkpoint.iterdir() if p.suffix in WEIGHTS))
