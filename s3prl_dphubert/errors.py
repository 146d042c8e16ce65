"""Errors that this package raises on bad input, all of one family."""

from __future__ import annotations

import sys
from collections.abc import Iterable


class DPHubertError(ValueError):
    """Base of all errors that a user can cause; the message is readable and says what to change."""


class ConfigError(DPHubertError):
    """A configuration is invalid; the message lists all faults, ``faults`` holds them one by one."""

    faults: tuple[str, ...] = ()

    @classmethod
    def raise_for(cls, what: str, faults: Iterable[str]) -> None:
        """Raise an error if there are faults.

        Args:
            what: name of the configuration, which the message begins with.
            faults: each names the field, its value and what is allowed.
        """
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
    """A run cannot start, continue or finish."""


class ResultError(DPHubertError):
    """A result, a prediction file or a submission cannot be used."""


class ExportError(DPHubertError):
    """A model cannot be exported, or a package for it is missing."""


def warn_unregistered(error: Exception) -> None:
    """Print in one line to stderr why the upstreams could not be registered in s3prl."""
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    print(f"s3prl-dphubert: its upstreams are not registered ({text})", file=sys.stderr)
