"""Environment of a run: versions, hardware and number of processes, which its numbers depend on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..version import __version__

if TYPE_CHECKING:
    import torch

Environment = dict[str, str | int]
S3PRL = ("s3prl", "espnet-s3prl")
"""Distributions that install the module s3prl, which may also come from a checkout."""


def s3prl_version() -> str:
    """Return the version of the s3prl that an import takes, and its origin if that is another package.

    Returns:
        Such as ``0.4.18``, ``2026.5.14 (espnet-s3prl)`` or ``0.4.18 (a checkout)``; empty if there is none.
    """
    spec = find_spec("s3prl")
    if spec is None or spec.origin is None:
        return ""
    module = Path(spec.origin).resolve()
    for name in S3PRL:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if Path(str(distribution.locate_file("s3prl/__init__.py"))).resolve() == module:
            return distribution.version if name == "s3prl" else f"{distribution.version} ({name})"
    try:
        version = (module.parent / "version.txt").read_text(encoding="utf8").strip()
    except OSError:
        version = "unknown"
    return f"{version} (a checkout)"


def environment(device: torch.device, precision: str, processes: int, accumulate: int) -> Environment:
    """Return versions, hardware and division of the work; where all are the same, runs resume bit by bit."""
    import torch

    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    fixed = {"deterministic": int(torch.are_deterministic_algorithms_enabled())} if cuda else {}
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": package_version("numpy"),
        "s3prl_dphubert": __version__,
        "device": f"{device.type} ({name})",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "micro-batches an update": accumulate * processes,
        **fixed,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, of this package and of those packages that are installed."""
    installed = {name: version for name in packages if (version := package_version(name))}
    return {"python": platform.python_version(), "s3prl_dphubert": __version__, **installed}


def package_version(name: str) -> str:
    """Return the version of a package, of s3prl wherever it is from; empty if it is not installed."""
    return s3prl_version() if name == "s3prl" else distribution_version(name)


def distribution_version(name: str) -> str:
    """Return the version of a package as it was installed under this name; empty if it was not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def is_first_process() -> bool:
    """Return whether this process speaks: under torchrun the one of rank 0 alone does."""
    return os.environ.get("RANK", "0") == "0"


def processor() -> str:
    """Return the name of the processor, as far as the system reports it."""
    return cpuinfo().get("model name", "") or platform.processor() or platform.machine()


def cpuinfo() -> dict[str, str]:
    """Return the fields of the first core in ``/proc/cpuinfo``; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def changes(before: Environment, now: Environment) -> str:
    """Describe the entries that have changed; empty if none has."""
    return ", ".join(
        f"{name} {value} (was {before[name]})"
        for name, value in now.items()
        if name in before and before[name] != value
    )
