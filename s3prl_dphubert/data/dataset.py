"""Training stream and validation batches of a run, from its manifests."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ..errors import ConfigError
from .batches import Batch, BatchConfig, BatchStream, epoch_share, validation_batches
from .manifest import Manifest, check_headers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataConfig:
    """Manifests of a run, and how their utterances form batches.

    Args:
        train: manifest of the training utterances.
        valid: manifest for validation; ``None`` for a run without validation.
        valid_batches: number of batches to validate on.
        max_bad_fraction: share of unreadable files above which a run does not start.
        batch: grouping of the utterances into batches.

    Raises:
        ConfigError: a field is invalid; the message lists all of them.
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


def read_data(data: DataConfig, main: bool = True) -> tuple[BatchStream, list[Batch]]:
    """Return the training stream and the validation batches.

    Args:
        data: manifests and batches.
        main: check all files and read the validation batches, which only the main process does; otherwise
            there are no validation batches.

    Raises:
        DataError: a manifest cannot be read, or too many of its files are bad.
    """
    manifest = Manifest.load(data.train)
    if main:
        for bad in check_headers(manifest, data.max_bad_fraction):
            log.warning("%s: skipped, %s", bad.path, bad.reason)
        if share := epoch_share(manifest, data.batch):
            log.warning("%s: %s", data.train, share)
    stream = BatchStream(manifest, data.batch)
    if data.valid is None or not main:
        return stream, []
    valid = Manifest.load(data.valid)
    check_headers(valid, data.max_bad_fraction)
    return stream, list(validation_batches(valid, data.batch, data.valid_batches))
