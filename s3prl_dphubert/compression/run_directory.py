"""Lock a run directory, tie it to one configuration and its inputs, and clean it up."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..errors import CheckpointError, DataError, RunError
from ..model import SpeechModel
from ..utils.config_io import differences, read_yaml, to_dict
from ..utils.files import remove_partial, write_text
from ..utils.hashing import sha256_file, sha256_model
from ..utils.locking import folder_lock
from ..utils.readers import read_record
from .compress_config import CompressConfig

log = logging.getLogger(__name__)
CHANGEABLE = re.compile(
    r"device|deterministic|budget\.tolerance|card(\..*)?"
    r"|stage[12]\.(accumulate|precision|compile|num_workers|max_nonfinite|save_every|keep|log_every)"
)
"""Fields that say how a run is computed, not what it computes; a run may continue with other values."""
CONFIG, INPUTS = "config.yaml", "inputs.json"
RESULTS = ("pruned", "model", "stage1/state-*.pt", "stage2/state-*.pt")
"""Patterns of what a run has to show; a directory without any of it may be given another configuration."""
BY_PRODUCTS = ("student", "stage1", "stage2", "targets", "results.json", "projections.safetensors", INPUTS)


@contextmanager
def run_directory(config: CompressConfig, out: Path) -> Iterator[None]:
    """Hold the directory of a run for this process, after creating it if it is new.

    Partial files of a killed process are removed.

    Raises:
        RunError: the directory belongs to another configuration, holds other files, is in use, or cannot be
            written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir()}
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"{out}: a file is in the way, expected a directory or a new name") from error
    if CONFIG not in names and not all(name.startswith(".") for name in names):  # of a lock, or half written
        raise RunError(f"{out}: is not empty and holds no run; choose another place")
    with folder_lock(out):
        remove_partial(out)
        claim(config, out)
        yield


def claim(config: CompressConfig, out: Path) -> None:
    """Write the configuration of a new run, or check that the directory belongs to the same one.

    A run that failed before its first checkpoint has nothing to lose: its directory is given to the new one.
    """
    path, values = out / CONFIG, to_dict(config)
    if path.exists():
        changes = dict(differences(read_yaml(path), values))
        if not changes:
            return
        fixed = sorted(name for name in changes if not CHANGEABLE.fullmatch(name))
        if fixed and _has_results(out):
            shown = ", ".join(fixed)
            raise RunError(
                f"{out}: belongs to another run, which differs in {shown}; take another --out, or remove it"
            )
        if fixed:
            _start_over(out)
        else:
            shown = ", ".join(f"{name} {new} (was {old})" for name, (old, new) in sorted(changes.items()))
            log.warning("%s: goes on with %s", out, shown)
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def _has_results(out: Path) -> bool:
    return any(any(out.glob(pattern)) for pattern in RESULTS)


def _start_over(out: Path) -> None:
    """Remove what a run that never got to a checkpoint has left."""
    for name in BY_PRODUCTS:
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)


def pin_inputs(config: CompressConfig, teacher: SpeechModel, out: Path) -> None:
    """Keep digests of what a run reads with it, or check that they are still the same.

    Raises:
        RunError: a manifest, the table of latencies or the teacher has changed since the run began.
        DataError: a file cannot be read.
    """
    files = {
        "data.train": config.data.train,
        "data.valid": config.data.valid,
        "budget.table": config.budget.table,
    }
    digests = {"teacher": sha256_model(teacher.config.identity(), teacher.state_dict())}
    for field, source in files.items():
        if source is not None:
            try:
                digests[field] = sha256_file(Path(source))
            except OSError as error:
                raise DataError(f"{field}: {source} cannot be read ({error.strerror})") from error
    path = out / INPUTS
    before = read_record(path)
    sources = files | {"teacher": config.teacher}
    changed = [field for field, digest in digests.items() if before.get(field, digest) != digest]
    if changed and _has_results(out):
        shown = ", ".join(f"{field} ({sources[field]})" for field in changed)
        raise RunError(
            f"{out}: {shown} changed since the run began; restore the content, take another --out, or "
            f"remove {path} to go on with what is there now"
        )
    if changed:
        _start_over(out)
    if before != digests:
        write_text(path, json.dumps(digests, indent=2) + "\n")


@contextmanager
def removable(path: Path, then: str) -> Iterator[None]:
    """Say of a damaged file of a run that it may be removed, and what happens ``then``.

    Raises:
        RunError: the file is damaged.
    """
    try:
        yield
    except (CheckpointError, RuntimeError, LookupError, TypeError) as error:
        reason = str(error) if isinstance(error, CheckpointError) else f"{path}: damaged ({error!r:.200})"
        raise RunError(f"{reason}; remove {path} and start again: {then}") from error
