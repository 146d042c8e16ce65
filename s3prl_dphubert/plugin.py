"""The plugin's switch: make the upstreams known to s3prl in this process, or take them back."""

from __future__ import annotations

import sys

from .autoload import Trigger
from .upstream import registry
from .upstream.registry import register

__all__ = ["register", "unregister"]


def unregister() -> None:
    """Take the upstreams off ``s3prl.hub`` and stop waiting for s3prl.

    Repairs of s3prl that have been made stay, since modules that use them may be in use.
    """
    registry.remove()
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Trigger)]
