"""Entries for ``torch.hub.load("OWNER/s3prl-dphubert", "dphubert_local", ckpt=…)``; s3prl is not needed."""

import sys
from pathlib import Path

dependencies = ["torch", "numpy", "safetensors", "yaml", "huggingface_hub", "filelock", "tqdm"]

# torch.hub removes this folder from sys.path when an entry returns, but later imports, and those of other
# processes, need it. It goes to the end, so that it hides nothing.
_HERE = str(Path(__file__).resolve().parent)
if _HERE not in sys.path[1:]:
    sys.path.append(_HERE)

from s3prl_dphubert.upstream.entries import (  # noqa: E402
    dphubert,
    dphubert_hub,
    dphubert_local,
    dphubert_url,
    dpwavlm,
)

__all__ = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]
