"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform

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
    """Return processor, relevant CPU flags, cores and memory, as far as the system reports them."""
    fields = environment.cpuinfo()
    flags = fields.get("flags", fields.get("Features", "")).split()
    facts = {
        "processor": environment.processor(),
        "family, model": f"{fields.get('cpu family', '?')}, {fields.get('model', '?')}",
        "flags": " ".join(flag for flag in FLAGS if flag in flags) or torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts["memory"] = f"{size / 2**30:.0f} GiB"
    return facts


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that compute."""
    return environment.versions(PACKAGES)
