"""What a run's numbers depend on beside its configuration and its data."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

import numpy as np
import torch

from ..version import __version__

Environment = dict[str, str | int]


def environment(device: torch.device, precision: str, processes: int, accumulate: int) -> Environment:
    """Versions, hardware and sharing out; runs go on to the bit where all of them are the same."""
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
    """Versions of Python, of this package and of those of the others that are installed."""
    found = {"python": platform.python_version(), "s3prl_dphubert": __version__}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def changes(before: Environment, now: Environment) -> str:
    """In words what is not as it was; empty where nothing has changed."""
    differing = [
        f"{name} {value} (was {before[name]})"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    return ", ".join(differing)
