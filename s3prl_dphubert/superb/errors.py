"""The error of everything around SUPERB."""

from __future__ import annotations

from ..errors import DPHubertError


class ResultError(DPHubertError):
    """A result, a prediction file or a submission cannot be used; the message says which and why."""
