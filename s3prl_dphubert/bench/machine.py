"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from ..utils import environment

PACKAGES = ("torch", "transformers", "s3prl", "onnxruntime", "openvino", "numpy")
FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)


def machine() -> dict[str, str]:
    """Processor, its flags that matter here, and memory, as far as the system tells."""
    fields = _cpuinfo()
    known = fields.get("flags", fields.get("Features", "")).split()
    model = " ".join(fields.get(name, "") for name in ("model name",)).strip() or platform.processor()
    found = {
        "processor": model or platform.machine(),
        "family, model": f"{fields.get('cpu family', '?')}, {fields.get('model', '?')}",
        "flags": " ".join(flag for flag in FLAGS if flag in known) or torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{size / 2**30:.0f} GiB"
    return found


def versions() -> dict[str, str]:
    """Versions of what computes, where it is installed."""
    return environment.versions(PACKAGES)


def _cpuinfo() -> dict[str, str]:
    """Facts of the first core."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
