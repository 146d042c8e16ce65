"""The one family of errors that this package raises on bad input."""

from __future__ import annotations

from collections.abc import Iterable


class DPHubertError(ValueError):
    """Base of every error that a user can cause; its text is one readable message."""


class ConfigError(DPHubertError):
    """A configuration is invalid; the message lists every fault at once."""

    @classmethod
    def raise_for(cls, what: str, faults: Iterable[str]) -> None:
        """Raise if there is any fault; each names the field, the value and what is allowed."""
        found = list(faults)
        if found:
            raise cls(f"{what}: " + "; ".join(found))


class DataError(DPHubertError):
    """Audio or a manifest cannot be used."""


class CheckpointError(DPHubertError):
    """A checkpoint is damaged, incomplete, foreign or newer than this version."""


class RunError(DPHubertError):
    """A run cannot start, go on or finish as asked."""
