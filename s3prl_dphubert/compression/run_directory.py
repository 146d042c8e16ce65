"""Lock a run directory, tie it to one configuration, and clean it up."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..errors import RunError
from ..utils.config_io import differences, read_yaml, to_dict
from ..utils.files import remove_partial, write_text
from ..utils.locking import folder_lock
from .compress_config import CompressConfig

log = logging.getLogger(__name__)
CHANGEABLE = re.compile(
    r"device|stage[12]\.(accumulate|precision|num_workers|max_nonfinite|save_every|keep|log_every)"
)
"""Fields that say how a run is computed, not what it computes; a run may continue with other values."""


@contextmanager
def run_directory(config: CompressConfig, out: Path) -> Iterator[None]:
    """Hold the directory of a run for this process, after creating it if it is new.

    Partial files of a killed process are removed.

    Raises:
        RunError: the directory belongs to another configuration, holds other files, or is in use.
    """
    claim(config, out)
    with folder_lock(out):
        remove_partial(out)
        yield


def claim(config: CompressConfig, out: Path) -> None:
    """Create the directory of a run, or check that it belongs to the same configuration."""
    path, values = out / "config.yaml", to_dict(config)
    if path.exists():
        changes = dict(differences(read_yaml(path), values))
        fixed = sorted(name for name in changes if not CHANGEABLE.fullmatch(name))
        if fixed:
            raise RunError(f"{out}: belongs to another run, which differs in {', '.join(fixed)}")
        if not changes:
            return
        shown = ", ".join(f"{name} {new} (was {old})" for name, (old, new) in sorted(changes.items()))
        log.warning("%s: goes on with %s", out, shown)
    elif out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: is not empty and holds no run; choose another place")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(values, sort_keys=False))
