"""Number types that matrix products and convolutions may have."""

from __future__ import annotations

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *AUTOCAST)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision ``bf16`` or ``fp16``; off for ``fp32``."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
