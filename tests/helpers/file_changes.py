"""Changes that a process makes to files: seen one by one, so that a test can act before any of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")


def watch_changes(folder: Path, act: Callable[[str], Any]) -> None:
    """Call ``act`` before every change of a file below a folder that Python makes, until the process ends.

    Args:
        folder: that is watched.
        act: gets the event and the path below the folder, such as ``open model/config.json``.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opens = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        creates = event == "open" and arguments[1] is None and (arguments[2] or 0) & os.O_CREAT
        if (opens or creates or event in WRITES) and str(arguments[0]).startswith(str(folder)):
            act(f"{event} {os.path.relpath(str(arguments[0]), folder)}")

    sys.addaudithook(hook)
