"""Number types that matrix products and convolutions may have."""

from __future__ import annotations

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *AUTOCAST)
