"""All patches, in the order in which s3prl meets what they repair."""

from . import (
    audio_io,
    checkpoint_writes,
    ctc,
    dataloaders,
    devices,
    distributed_runner,
    fairseq_import,
    file_lists,
    huggingface_hub,
    missing_modules,
    pandas_rows,
    sox_effects,
    trim_silence,
)
from .patch import Patch

PATCHES: tuple[Patch, ...] = (
    *audio_io.PATCHES,
    *sox_effects.PATCHES,
    *huggingface_hub.PATCHES,
    *checkpoint_writes.PATCHES,
    *distributed_runner.PATCHES,
    *dataloaders.PATCHES,
    *ctc.PATCHES,
    *file_lists.PATCHES,
    *pandas_rows.PATCHES,
    *devices.PATCHES,
    *trim_silence.PATCHES,
    *fairseq_import.PATCHES,
    *missing_modules.PATCHES,
)
