"""The user's cache folder of this package."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "S3PRL_DPHUBERT_CACHE"


def home() -> Path:
    """Where this package keeps what it can make again: ``S3PRL_DPHUBERT_CACHE`` or the user's cache."""
    if os.environ.get(HOME):
        return Path(os.environ[HOME])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3prl-dphubert"
