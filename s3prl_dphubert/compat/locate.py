"""Where s3prl is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import RunError


def s3prl_home() -> Path:
    """The folder of the installed s3prl.

    Raises:
        RunError: there is none.
    """
    spec = find_spec("s3prl")
    if spec is None or spec.origin is None:
        raise RunError("s3prl is not installed in this environment: pip install s3prl==0.4.18")
    return Path(spec.origin).parent
