"""What can go wrong while a model is exported."""

from __future__ import annotations

from ..errors import DPHubertError


class ExportError(DPHubertError):
    """A model cannot be exported as asked, or a package for it is missing."""
