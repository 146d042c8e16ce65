"""Whose a run's directory is: one configuration's, and one process's at a time."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..errors import RunError
from ..utils.config_io import differences, read_yaml, to_dict
from ..utils.files import write_text
from ..utils.locking import folder_lock
from .compress_config import CompressConfig

log = logging.getLogger(__name__)
HOW = re.compile(
    r"device|stage[12]\.(accumulate|precision|num_workers|max_nonfinite|save_every|keep|log_every)"
)
"""Settings that say how a run is computed, not what it is; it may go on under others."""


@contextmanager
def owning(config: CompressConfig, out: Path) -> Iterator[None]:
    """Hold a run's directory for this process, made if it is new, rid of what a killed one left.

    Raises:
        RunError: it belongs to another configuration, holds other things or is in use.
    """
    claim(config, out)
    with folder_lock(out):
        sweep(out)
        yield


def claim(config: CompressConfig, out: Path) -> None:
    """Make the run's directory, or check that it belongs to the same configuration."""
    path, wanted = out / "config.yaml", to_dict(config)
    if path.exists():
        changed = dict(differences(read_yaml(path), wanted))
        others = sorted(name for name in changed if not HOW.fullmatch(name))
        if others:
            raise RunError(f"{out}: belongs to another run, which differs in {', '.join(others)}")
        if not changed:
            return
        words = ", ".join(f"{name} {new} (was {old})" for name, (old, new) in sorted(changed.items()))
        log.warning("%s: goes on with %s", out, words)
    elif out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: is not empty and holds no run; choose another place")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(wanted, sort_keys=False))


def sweep(out: Path) -> None:
    """Remove what a killed process had half written."""
    for leftover in list(out.rglob("*.part")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
