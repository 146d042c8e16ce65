"""Environment of a run: versions, hardware and number of processes, which its numbers depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

import numpy as np
import torch

from ..version import __version__

Environment = dict[str, str | int]


def environment(device: torch.device, precision: str, processes: int, accumulate: int) -> Environment:
    """Return versions, hardware and division of the work; where all are the same, runs resume bit by bit."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "s3prl_dphubert": __version__,
        "device": f"{device.type} ({name})",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "micro-batches an update": accumulate * processes,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, of this package and of those packages that are installed."""
    versions = {"python": platform.python_version(), "s3prl_dphubert": __version__}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def changes(before: Environment, now: Environment) -> str:
    """Describe the entries that have changed; empty if none has."""
    return ", ".join(
        f"{name} {value} (was {before[name]})"
        for name, value in now.items()
        if name in before and before[name] != value
    )
