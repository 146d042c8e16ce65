"""Entries for ``torch.hub.load("OWNER/s3prl-dphubert", "dphubert_local", ckpt=…)``; s3prl is not needed."""

import sys
from pathlib import Path

dependencies = [
    "torch",
    "numpy",
    "yaml",
    "safetensors",
    "huggingface_hub",
    "filelock",
    "soundfile",
    "soxr",
    "fsspec",
    "tqdm",
]

# torch.hub takes this folder off sys.path when an entry returns; what the package imports later has
# to be found all the same. At the end, so that it hides nothing.
if str(Path(__file__).resolve().parent) not in sys.path[1:]:
    sys.path.append(str(Path(__file__).resolve().parent))

from s3prl_dphubert.upstream.entries import (  # noqa: E402
    dphubert,
    dphubert_hub,
    dphubert_local,
    dphubert_url,
    dpwavlm,
)

__all__ = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]
