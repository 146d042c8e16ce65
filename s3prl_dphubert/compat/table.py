"""All patches, in the order in which s3prl meets what they repair."""

from . import (
    absent,
    audio,
    caches,
    checkpoints,
    ctc,
    devices,
    fairseq,
    huggingface,
    loaders,
    processes,
    silence,
    sox_effects,
    tables,
)
from .patch import Patch

PATCHES: tuple[Patch, ...] = (
    *audio.PATCHES,
    *sox_effects.PATCHES,
    *huggingface.PATCHES,
    *checkpoints.PATCHES,
    *processes.PATCHES,
    *loaders.PATCHES,
    *ctc.PATCHES,
    *caches.PATCHES,
    *tables.PATCHES,
    *devices.PATCHES,
    *silence.PATCHES,
    *fairseq.PATCHES,
    *absent.PATCHES,
)
