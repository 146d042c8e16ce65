"""Register the upstreams with s3prl in this process, or remove them again."""

from __future__ import annotations

import sys

from .autoload import Trigger
from .upstream import registry
from .upstream.registry import register

__all__ = ["register", "unregister"]


def unregister(name: str | None = None) -> None:
    """Remove the upstreams from ``s3prl.hub``, and stop waiting for s3prl.

    Repairs of s3prl that have been applied stay, since modules that rely on them may be in use.

    Args:
        name: remove this name alone, and go on waiting for s3prl.

    Raises:
        ConfigError: this package has not added the name.
    """
    registry.remove(name)
    if name is not None:
        return
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Trigger)]
