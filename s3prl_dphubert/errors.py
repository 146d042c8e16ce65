"""The one family of errors that this package raises on bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterable


class DPHubertError(ValueError):
    """Base of every error that a user can cause; its text is one readable message."""


class ConfigError(DPHubertError):
    """A configuration is invalid; the message lists every fault at once, ``faults`` holds them one by one."""

    faults: tuple[str, ...] = ()

    @classmethod
    def raise_for(cls, what: str, faults: Iterable[str]) -> None:
        """Raise if there is any fault; each names the field, the value and what is allowed."""
        listed = tuple(faults)
        if listed:
            error = cls(f"{what}: " + "; ".join(listed))
            error.faults = listed
            raise error


class DataError(DPHubertError):
    """Audio or a manifest cannot be used."""


class CheckpointError(DPHubertError):
    """A checkpoint is damaged, incomplete, foreign or newer than this version."""


class RunError(DPHubertError):
    """A run cannot start, go on or finish as asked."""


def complain(error: Exception) -> None:
    """Say in one line what went wrong."""
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    print(f"s3prl-dphubert: its upstreams are not registered ({text})", file=sys.stderr)


class ResultError(DPHubertError):
    """A result, a prediction file or a submission cannot be used; the message says which and why."""


class ExportError(DPHubertError):
    """A model cannot be exported as asked, or a package for it is missing."""
